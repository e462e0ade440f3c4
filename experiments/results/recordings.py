"""The recordings that results are reported on, and what those who collected them reached by cloning."""

from typing import NamedTuple


class Recording(NamedTuple):
  """One ``.npz`` recording of others.

  Attributes:
    file: its name, ``.npz`` left out.
    updates: gradient steps that cloning it takes until more no longer help; the table shows the return on the way.
    reference: return of a behaviour-cloning run (MLP 2x256, a few thousand updates, 20 to 100 episodes) by those who
      collected the recordings, one or two seeds; None where they give no return.
    reference_std: its standard deviation, where they give one.
    max_episode_steps: the time limit that it was recorded with; None: the task's.
    note: what to know when reading its row.
  """

  file: str
  updates: int
  reference: float | None
  reference_std: float | None = None
  max_episode_steps: int | None = None
  note: str = ""

  @property
  def name(self) -> str:
    """Of the dataset made from it."""
    return self.file.lower()


DEMONSTRATIONS = (
  Recording("cs285_HalfCheetah-v4_expert", 20_000, 4070.0),
  Recording("cs285_Hopper-v4_expert", 20_000, 3268.0, 694.0),
  Recording(
    "ilpyt_CartPole-v0",
    20_000,
    500.0,
    max_episode_steps=200,
    note="Recorded with a time limit of 200 steps and played with the task's own, 500: the policy balances on beyond "
    "what it was shown, and there is no normalised score.",
  ),
  Recording("ilpyt_LunarLander-v2", 20_000, 243.0),
  Recording("ilpyt_LunarLanderContinuous-v2", 20_000, 288.0),
  Recording("imitation_pendulum", 20_000, -210.0),
  Recording("sb2_expert_cartpole", 20_000, 490.0),
  Recording(
    "dapg_AdroitHandDoor_human",
    20_000,
    None,
    note="Played with the task's own time limit of 200 steps; the demonstrations, by people, are 223 to 300 steps "
    "long. The reference is stated as success rates of two seeds, 0.18 and 0.02; success is not measured here.",
  ),
)

# Played in EnvPool with policies of others; the reference is their clone of all the data.
OFFLINE = (
  Recording("HalfCheetah-v4_expert", 20_000, 4155.0),
  Recording("Hopper-v4_expert", 20_000, 3624.0),
  Recording("LunarLander-v2_mixed", 20_000, 130.0, note="Made by five policies, from a random one to a good one."),
)
