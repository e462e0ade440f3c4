"""What D4RL's names of datasets say about their tasks: facts from D4RL's registry and scores (D4RL 1.1, infos.py)."""

import re
from typing import Any, NamedTuple

_MUJOCO_NOTE = "recorded in gym's v2 environment with mujoco-py; this is the same task with newer MuJoCo bindings"
_ADROIT_NOTE = "recorded in D4RL's own version of the task; this is the one that Gymnasium-Robotics maintains"
_ANT_NOTE = "no env_id: its 84 contact forces are 0 in gym's v2 environment of the time and are not in newer ones"


class Task(NamedTuple):
  """What is known of a dataset by its name.

  Attributes:
    env_id: EnvPool's name of the task; None where it has none like it.
    env_kwargs: for EnvPool.
    random_return: D4RL's reference score of a random policy; None where D4RL gives none.
    expert_return: D4RL's reference score of an expert.
    max_episode_steps: the time limit it was recorded with, where files without ``timeouts`` need one.
    ended: whether ``terminals`` mark every episode's end.
    goals: whether ``terminals`` mark steps at the goal, after which the episode goes on.
    note: what differs between the recording and ``env_id``.
  """

  env_id: str | None = None
  env_kwargs: dict[str, Any] = {}  # noqa: RUF012 (never changed)
  random_return: float | None = None
  expert_return: float | None = None
  max_episode_steps: int | None = None
  ended: bool = False
  goals: bool = False
  note: str | None = None


# name: (EnvPool's task, random, expert)
_MUJOCO = {
  "halfcheetah": ("HalfCheetah-v4", -280.178953, 12135.0),
  "hopper": ("Hopper-v4", -20.272305, 3234.3),
  "walker2d": ("Walker2d-v4", 1.629008, 4592.3),
  "ant": (None, -325.6, 3879.7),
}
_ADROIT = {
  "pen": ("AdroitHandPen-v1", 96.262799, 3076.8331017826877),
  "hammer": ("AdroitHandHammer-v1", -274.856578, 12794.134825156867),
  "door": ("AdroitHandDoor-v1", -56.512833, 2880.5693087298737),
  "relocate": ("AdroitHandRelocate-v1", -6.425911, 4233.877797728884),
}
# name, and the name of dense rewards: (random, expert)
_MAZE2D = {
  "open": (0.01, 20.66),
  "umaze": (23.85, 161.86),
  "medium": (13.13, 277.39),
  "large": (6.7, 273.99),
  "open-dense": (11.17817, 27.166538620695782),
  "umaze-dense": (68.537689, 193.66285642381482),
  "medium-dense": (44.264742, 297.4552547777125),
  "large-dense": (30.569041, 303.4857382709002),
}

# "mixed" is what version 0 called medium-replay. Files of version 0 carry no version in their names.
_MUJOCO_NAME = re.compile(
  r"(halfcheetah|hopper|walker2d|walker|ant)-"
  r"(random|medium|expert|medium-replay|full-replay|medium-expert|mixed|random-expert)(-v[012])?"
)
_ADROIT_NAME = re.compile(
  r"(pen|hammer|door|relocate)-((human|cloned|expert)(-longhorizon)?-v[01]|v0-(demos|expert)-clipped"
  r"|demos-v0-bc-combined)"
)
_ANTMAZE_NAME = re.compile(
  r"antmaze-(umaze|umaze-diverse|(medium|large)-(play|diverse))-v[012]"
  r"|ant-maze-(u-maze|big-maze|hardest-maze)-noisy-multistart-(true|false)-multigoal-(true|false)-sparse(-fixed)?"
)
_KITCHEN_NAME = re.compile(
  r"kitchen-(complete|partial|mixed)-v0|(mini-)?kitchen-microwave-kettle-(light-slider|bottomburner-light)-v0"
)
_MAZE2D_NAME = re.compile(r"maze2d-(open|umaze|medium|large)(-dense|-sparse)?(-v[01])?")


def task(name: str) -> Task | None:
  """The task of a dataset, by D4RL's name of it or of its file; None where it is not one of D4RL's.

  Example::

    task("halfcheetah-medium-v2").env_id  # "HalfCheetah-v4"
    task("halfcheetah_medium-v2")  # the same: its file's name
  """
  name = name.lower().replace("_", "-")
  if found := _MUJOCO_NAME.fullmatch(name):
    robot = "walker2d" if found[1] == "walker" else found[1]
    env_id, low, high = _MUJOCO[robot]
    note = _MUJOCO_NOTE if env_id else _ANT_NOTE
    return Task(env_id, {}, low, high, max_episode_steps=1000, note=note)
  if found := _ADROIT_NAME.fullmatch(name):
    env_id, low, high = _ADROIT[found[1]]
    kwargs = {"max_episode_steps": 100 if found[1] == "pen" else 200}
    return Task(env_id, kwargs, low, high, note=_ADROIT_NOTE)
  if _ANTMAZE_NAME.fullmatch(name):
    return Task(None, {}, 0.0, 1.0, goals=True)
  if _KITCHEN_NAME.fullmatch(name):
    return Task(None, {}, 0.0, 4.0, ended=True)
  if found := _MAZE2D_NAME.fullmatch(name):
    low, high = _MAZE2D[found[1] + ("-dense" if found[2] == "-dense" else "")]
    return Task(None, {}, low, high)
  return None
