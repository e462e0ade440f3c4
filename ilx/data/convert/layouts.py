"""How projects lay out recordings in ``.npz`` files, and what RLDS field each array is."""

import dataclasses
import difflib
import json
import pathlib
from collections.abc import Iterable
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Layout:
  """Names of the arrays in a recording, and what its flags mean. N actions in E episodes; None: not recorded.

  Every array that is named must be in the file. Episodes are told apart by ``lengths``, ``starts``, ``splits`` or
  ``stops``; where several are named they must agree.

  Attributes:
    observation: ``[N, ...]``, what each action saw; ``[N + E, ...]`` with ``extra_observation``.
    action: ``[N, A]`` or ``[N]``.
    reward: ``[N]``, what each action earned.
    next_observation: ``[N, ...]``, what followed each action.
    final_observation: ``[E, ...]``, what followed each episode's last action.
    extra_observation: whether ``observation`` has one row more than there are actions in every episode, at its end.
    stacked: whether the arrays are ``[E, T, ...]``, padded at the end of episodes shorter than T (by ``lengths``).
    lengths: ``[E]``, actions in every episode.
    starts: flags ``[N]``, true on every episode's first action.
    splits: ``[E - 1]``, the index of the first action of every episode but the first.
    stops: flags ``[N]``, arrays that are true on an episode's last action.
    terminal: flags ``[N]`` or ``[E]``, true where an episode ended; what that says is up to ``ends``.
    returns: ``[E]``, sums of the rewards, compared with the rewards.
    ends: how to tell an end of the task, which cuts the bootstrap, from a time limit, which does not.
      "flags": ``terminal`` is true for ends of the task only.
      "length": flags (or the episode's being there, without ``terminal``) do not tell: an episode as long as the
      time limit ended by it, a shorter one by an end of the task.
      "never": the task has no end; all episodes were cut.
  """

  observation: str
  action: str
  reward: str
  next_observation: str | None = None
  final_observation: str | None = None
  extra_observation: bool = False
  stacked: bool = False
  lengths: str | None = None
  starts: str | None = None
  splits: str | None = None
  stops: tuple[str, ...] = ()
  terminal: str | None = None
  returns: str | None = None
  ends: Literal["flags", "length", "never"] = "flags"

  def __post_init__(self):
    if self.ends not in ("flags", "length", "never"):
      raise ValueError(f"layout: ends is {self.ends!r}; expected 'flags', 'length' or 'never'")
    if self.ends == "flags" and self.terminal is None:
      raise ValueError("layout: ends='flags' needs the name of the array in terminal")
    if not (self.lengths or self.starts or self.splits or self.stops or self.stacked):
      raise ValueError("layout: nothing tells episodes apart; name lengths, starts, splits or stops")
    after = [self.next_observation, self.final_observation, self.extra_observation or None]
    if sum(x is not None for x in after) > 1:
      raise ValueError("layout: give one of next_observation, final_observation and extra_observation")

  def arrays(self) -> list[str]:
    """The arrays it names, each once."""
    named = [getattr(self, name) for name in _NAMES]
    return list(dict.fromkeys([*filter(None, named), *self.stops]))


# The fields that hold one array's name.
_NAMES = ("observation", "action", "reward", "next_observation", "final_observation")
_NAMES += ("lengths", "starts", "splits", "terminal", "returns")

PRESETS: dict[str, Layout] = {
  # CS285 homework (Berkeley): terminals are true on every last step, time limits too; next observations are kept.
  "cs285": Layout(
    observation="observations",
    action="actions",
    reward="rewards",
    next_observation="next_observations",
    lengths="episode_lengths",
    stops=("terminals",),
    terminal="terminals",
    ends="length",
  ),
  # ilpyt (MITRE): flat state, action, reward, done; dones mix both ends; nothing is kept of what followed a done.
  "ilpyt": Layout(
    observation="observations",
    action="actions",
    reward="rewards",
    lengths="episode_lengths",
    stops=("dones",),
    terminal="dones",
    ends="length",
  ),
  # imitation (CHAI): one more observation than actions per episode; terminal says that the episode was played to its
  # end, be it a time limit; where it is false the recording is a fragment.
  "imitation": Layout(
    observation="obs",
    action="acts",
    reward="rews",
    extra_observation=True,
    splits="indices",
    terminal="terminal",
    ends="length",
  ),
  # Stable Baselines 2 (generate_expert_traj): flat with start flags, episodes played to their end, by whatever cause.
  "sb2": Layout(
    observation="obs",
    action="actions",
    reward="rewards",
    starts="episode_starts",
    returns="episode_returns",
    ends="length",
  ),
  # DAPG (hand manipulation): people at play, recorded until they stopped; its Adroit tasks have no end of their own.
  "dapg": Layout(
    observation="observations", action="actions", reward="rewards", lengths="episode_lengths", ends="never"
  ),
  # D4RL: flat; terminals are ends of the task, timeouts are time limits.
  "d4rl": Layout(
    observation="observations",
    action="actions",
    reward="rewards",
    stops=("terminals", "timeouts"),
    terminal="terminals",
  ),
  # D4RL's flags with what D4RL lacks: lengths, returns and every episode's final observation.
  "offline": Layout(
    observation="observations",
    action="actions",
    reward="rewards",
    final_observation="final_observations",
    lengths="episode_lengths",
    stops=("terminals", "timeouts"),
    terminal="terminals",
    returns="episode_returns",
  ),
}

# Arrays beside a layout's own that tell it from layouts with the same names.
_HALLMARKS = {"dapg": {"init_qpos"}}


def resolve(preset: str | Layout, found: Iterable[str], path: Any) -> Layout:
  """The layout that ``preset`` stands for: a layout, a preset's name, a JSON file of a layout's fields, or "auto".

  "auto" takes the one preset whose arrays are all among ``found``; of several, the one that uses all the others do.

  Raises:
    ValueError: where there is no such preset, "auto" cannot tell, or the file at ``path`` lacks an array of the layout.
  """
  found = set(found)
  if preset == "auto":
    layout = PRESETS[_detect(found, path)]
  elif isinstance(preset, Layout):
    layout = preset
  elif preset in PRESETS:
    layout = PRESETS[preset]
  elif preset.endswith(".json"):
    layout = from_json(preset)
  else:
    raise ValueError(
      f"preset {preset!r} is unknown{_nearest(preset, [*PRESETS, 'auto'])}; there are {', '.join(PRESETS)}"
    )
  for key in layout.arrays():
    if key not in found:
      if key == layout.observation:
        _refuse_without_observations(found, path)
      raise ValueError(f"{path}: no array {key!r}{_nearest(key, found)}; the file has {', '.join(sorted(found))}")
  return layout


def from_json(path: str | pathlib.Path) -> Layout:
  """The layout in a JSON file: an object of ``Layout``'s fields.

  Raises:
    ValueError: where it is not that, naming the field at fault.
  """
  try:
    fields = json.loads(pathlib.Path(path).read_text())
  except json.JSONDecodeError as error:
    raise ValueError(f"{path}: not JSON ({error})") from None
  if not isinstance(fields, dict):
    raise ValueError(f"{path}: expected a JSON object of the layout's fields")
  types = {field.name: field.type for field in dataclasses.fields(Layout)}
  for name, value in fields.items():
    if name not in types:
      raise ValueError(f"{path}: layout has no field {name!r}{_nearest(name, types)}")
    expected = {"stops": list, "extra_observation": bool, "stacked": bool}.get(name, str)
    if not isinstance(value, expected) or (name == "stops" and not all(isinstance(key, str) for key in value)):
      raise ValueError(
        f"{path}: field {name!r} is {value!r}; expected {'a list of names' if name == 'stops' else expected.__name__}"
      )
  missing = [name for name in ("observation", "action", "reward") if name not in fields]
  if missing:
    raise ValueError(f"{path}: layout lacks field {missing[0]!r}")
  return Layout(**{name: tuple(value) if name == "stops" else value for name, value in fields.items()})


def _detect(found: set[str], path: Any) -> str:
  uses = {name: set(layout.arrays()) | _HALLMARKS.get(name, set()) for name, layout in PRESETS.items()}
  fitting = {name: used for name, used in uses.items() if used <= found}
  widest = [name for name, used in fitting.items() if all(used >= other for other in fitting.values())]
  if len(widest) == 1:
    return widest[0]
  _refuse_without_observations(found, path)
  why = f"fits {' and '.join(fitting)}" if fitting else f"with {', '.join(sorted(found))} fits no preset"
  raise ValueError(f"{path}: {why}; name the preset, or describe the file in a JSON layout")


def _refuse_without_observations(found: set[str], path: Any) -> None:
  if not any("obs" in key or "state" in key for key in found) and any("act" in key for key in found):
    raise ValueError(
      f"{path}: has no observations (only {', '.join(sorted(found))}); "
      "play its actions in the environment and record what that shows"
    )


def _nearest(name: str, known: Iterable[str]) -> str:
  close = difflib.get_close_matches(name, list(known), n=1)
  return f" (did you mean {close[0]!r}?)" if close else ""
