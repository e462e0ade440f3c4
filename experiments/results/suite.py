"""What the table of results consists of: agents, tasks, and the fields that papers set by task."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from experiments.configs import rebrac
from experiments.results.recordings import Recording

# Config files, in the order of the columns.
AGENTS = ("bc", "bc_tanh", "bc10", "chunked_bc", "bc_transformer", "td3_bc", "iql", "rebrac", "dt")
CONTINUOUS_ONLY = ("bc_tanh", "td3_bc", "rebrac")
TRANSFORMERS = ("bc_transformer", "dt")
ENVIRONMENTS = ("halfcheetah", "hopper", "walker2d")
QUALITIES = ("medium", "medium-replay", "medium-expert", "expert")
MAZES = ("pointmaze-medium", "pointmaze-large")

# What was recorded of tasks that show a robot and its goal.
_GOAL = ("observation", "achieved_goal", "desired_goal")

# Recordings of others. The expert's return, 100 of the normalised score, is that of the expert set of the same task,
# else that of the policy behind the data.
RECORDINGS = {
  Recording("HalfCheetah-v4_medium", 1729.0): 4157.0,
  Recording("HalfCheetah-v4_replay", 1162.0): 4157.0,
  Recording("HalfCheetah-v4_expert", 4155.0): 4157.0,
  Recording("Hopper-v4_medium", 1285.0): 3728.0,
  Recording("Hopper-v4_replay", 2042.0): 3728.0,
  Recording("Hopper-v4_expert", 3624.0): 3728.0,
  Recording("LunarLander-v2_mixed", 130.0): 253.0,
  Recording("MiniGrid-DoorKey-5x5_mixed", 0.72, observation="image"): 0.96,
  Recording("Adroit_pen_expert", 6504.0): 7431.0,
  Recording("FetchPush-v4_expert", None, observation=_GOAL): -8.7,
  Recording("MetaWorld_Reach-v3_expert", 1327.0): 1329.0,
  Recording("MetaWorld_DrawerOpen-v3_expert", 899.0): 899.0,
  Recording("MetaWorld_DoorOpen-v3_expert", 928.0): 949.0,
  Recording("Breakout-v5_a3c", 20.0): 181.5,
}
_LOCOMOTION = ENVIRONMENTS  # names of recordings begin alike
_RETURN_SCALES = (
  ("pointmaze", 1.0),
  ("minigrid", 1.0),
  ("fetchpush", 10.0),
  ("lunarlander", 100.0),
  ("breakout", 100.0),
)
_DISCRETE = ("lunarlander", "cartpole", "minigrid", "breakout")
_PICTURES = ("breakout",)


class Task(NamedTuple):
  """A dataset and what its scores are measured by.

  Attributes:
    dataset: its name.
    group: tasks that are averaged together.
    recording: where it is converted from; None for built-in ones.
    expert_return: where the dataset names none.
  """

  dataset: str
  group: str
  recording: Recording | None = None
  expert_return: float | None = None


TASKS = {
  task.dataset: task
  for task in (
    *(Task(f"{env}-{quality}", "locomotion") for quality in QUALITIES for env in ENVIRONMENTS),
    Task("lunarlander-medium-expert", "discrete"),
    *(Task(name, "mazes") for name in MAZES),
    *(Task(recording.name, "recordings of others", recording, expert) for recording, expert in RECORDINGS.items()),
  )
}


def applies(agent: str, task: Task) -> bool:
  """Whether the agent can act there at all."""
  return agent not in CONTINUOUS_ONLY or not task.dataset.startswith(_DISCRETE)


def costly(agent: str, task: Task) -> bool:
  """Whether updates take so long that fewer are made without a GPU: transformers', and of pictures."""
  return agent in TRANSFORMERS or task.dataset.startswith(_PICTURES)


def fields(agent: str, task: Task, steps: int) -> Mapping[str, Any]:
  """What the paper sets by task, or by the number of updates, as fields of the config; nothing is tuned here."""
  found: dict[str, Any] = {"dataset": task.dataset, "split": "train", "agent.encoder": "flat"}
  if task.dataset.startswith(_PICTURES):
    found |= {"agent.encoder": "nature", "frame_stack": 4}
  if agent == "rebrac":
    found |= {f"agent.{name}": value for name, value in rebrac.paper(task.dataset).items()}
  if agent == "iql" and not task.dataset.startswith(_LOCOMOTION):
    found["agent.reward_scale"] = 1.0  # the paper divides the rewards of locomotion alone
  if agent == "iql" and task.group == "mazes":
    # Kostrikov et al. 2021, section 5: the values for antmaze.
    found |= {"agent.expectile": 0.9, "agent.temperature": 10.0, "agent.reward_shift": -1.0}
  if agent in TRANSFORMERS:
    # The papers' runs are longer than their warm-up of 10,000 updates by an order of magnitude.
    found["agent.warmup"] = steps // 10
  if agent == "dt":
    # Such that returns come out at about 1 to 10, as in the paper's tasks.
    found["agent.return_scale"] = next(
      (scale for name, scale in _RETURN_SCALES if task.dataset.startswith(name)), 1000.0
    )
  return found


def cells(agents: tuple[str, ...], datasets: tuple[str, ...]) -> Iterator[tuple[str, Task]]:
  """Row by row, the pairs that make sense.

  Raises:
    ValueError: for an agent or a dataset that the table does not have.
  """
  for name in agents:
    if name not in AGENTS:
      raise ValueError(f"--agents: no {name!r}; there are {', '.join(AGENTS)}")
  for name in datasets:
    if name not in TASKS:
      raise ValueError(f"--datasets: no {name!r}; there are {', '.join(TASKS)}")
  return ((agent, TASKS[name]) for name in datasets for agent in agents if applies(agent, TASKS[name]))
