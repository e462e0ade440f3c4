"""What every agent must pass, ours or a user's, and made-up data to try agents on.

Inherit in a pytest module and give the agent; pytest collects the rest::

  class TestMyAgent(ilx.testing.AgentConformance):
    spec = ilx.testing.continuous_spec()

    def make(self):
      return my_agent(self.spec)
"""

from ilx.testing.conformance import AgentConformance
from ilx.testing.fake import continuous_spec, discrete_spec, factored_spec, fake_episodes, single_frames

__all__ = ["AgentConformance", "continuous_spec", "discrete_spec", "factored_spec", "fake_episodes", "single_frames"]
