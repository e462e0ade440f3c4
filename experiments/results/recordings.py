"""The recordings that results are reported on, and what those who collected them reached by cloning."""

from typing import NamedTuple


class Recording(NamedTuple):
  """One ``.npz`` recording of others.

  Attributes:
    file: its name, ``.npz`` left out.
    reference: return of a behaviour-cloning run (MLP 2x256, a few thousand updates, 20 to 100 episodes) by those who
      collected the recordings, one or two seeds; None where they give no return.
    reference_std: its standard deviation, where they give one.
    max_episode_steps: the time limit that it was recorded with; None: the task's.
    observation: what of the environment's observation was recorded, as its option of that name; None: all of it.
    updates: gradient steps, enough that more no longer help: the page shows the return on the way.
    note: what to know when reading its row.
  """

  file: str
  reference: float | None
  reference_std: float | None = None
  max_episode_steps: int | None = None
  observation: str | tuple[str, ...] | None = None
  updates: int = 10_000
  note: str = ""

  @property
  def name(self) -> str:
    """Of the dataset made from it."""
    return self.file.lower()


DEMONSTRATIONS = (
  Recording("cs285_HalfCheetah-v4_expert", 4070.0),
  Recording("cs285_Hopper-v4_expert", 3268.0, 694.0),
  Recording(
    "ilpyt_CartPole-v0",
    500.0,
    max_episode_steps=200,
    note="Recorded with a time limit of 200 steps and played with the task's own, 500: the policy balances on beyond "
    "what it was shown, and there is no normalised score.",
  ),
  Recording("ilpyt_LunarLander-v2", 243.0, updates=30_000),
  Recording("ilpyt_LunarLanderContinuous-v2", 288.0),
  Recording("imitation_pendulum", -210.0),
  Recording("sb2_expert_cartpole", 490.0),
  Recording(
    "dapg_AdroitHandDoor_human",
    None,
    note="Played with the task's own time limit of 200 steps; the demonstrations, by people, are 223 to 300 steps "
    "long, and in 9 of the 25 the door is not open by then. The reference is stated as success rates of two seeds, "
    "0.18 and 0.02; success is not measured here.",
  ),
)

# Played in EnvPool with policies of others; the reference is their clone of all the data.
OFFLINE = (
  Recording("HalfCheetah-v4_expert", 4155.0),
  Recording("Hopper-v4_expert", 3624.0),
  Recording(
    "LunarLander-v2_mixed", 130.0, updates=20_000, note="Made by five policies, from a random one to a good one."
  ),
)
