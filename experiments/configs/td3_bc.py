"""TD3+BC on HalfCheetah, from as many transitions by an expert as by a mediocre policy.

python -m experiments.main --config=experiments/configs/td3_bc.py

The paper's hyper-parameters, the same for all datasets; its runs are a million updates (`--config.steps=1_000_000`).
"""

import ml_collections

from experiments.configs import defaults


def get_config() -> ml_collections.ConfigDict:
  """Fields are set as ``--config.dataset=hopper-medium --config.agent.alpha=1.0``; see ``defaults.py``."""
  config = defaults.get_config()

  config.agent.name = "td3_bc"
  # How much Q counts beside imitation; 0: behaviour cloning.
  config.agent.alpha = 2.5
  config.agent.discount = 0.99
  # Of the targets' moving average.
  config.agent.tau = 0.005
  # Standard deviation of the noise on the target policy's actions, which are in [-1, 1], and where it is clipped.
  config.agent.policy_noise = 0.2
  config.agent.noise_clip = 0.5
  # Updates of both Q to one of the policy and the targets.
  config.agent.policy_delay = 2
  # How many Q there are, of which the smallest counts. More than two are divided over the mesh's tensor.
  config.agent.num_critics = 2
  # Widths of the hidden layers of policy and Q.
  config.agent.hidden = (256, 256)
  config.agent.learning_rate = 3e-4
  # "constant", or "cosine" to decay the learning rate; the policy's by its own updates, so that after a run with
  # policy_delay=2 a half is left.
  config.agent.schedule = "constant"

  config.dataset = "halfcheetah-medium-expert"
  config.steps = 100_000
  return config
