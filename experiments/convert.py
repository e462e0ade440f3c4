"""Turns a recording in an ``.npz`` file into an RLDS dataset.

python -m experiments.convert --npz=cs285_Hopper-v4_expert.npz --preset=cs285 --name=hopper-cs285

The environment that the recording names (or ``--env_id``) gives the bounds of its actions and the time limit.
"""

import json
import pathlib
import sys
from typing import Any

import jax
from absl import flags

from experiments import cli
from ilx.data import rlds
from ilx.data.convert import layouts, npz
from ilx.data.convert.recording import Recording
from ilx.evaluation import environments
from ilx.types import Spec

_NPZ = flags.DEFINE_string("npz", None, "The recording.", required=True)
_PRESET = flags.DEFINE_string(
  "preset", "auto", f"Its layout: {', '.join(layouts.PRESETS)}; auto; or a JSON file of a layouts.Layout."
)
_NAME = flags.DEFINE_string("name", None, "Name of the dataset; by default the file's.")
_ROOT = flags.DEFINE_string("root", None, "Folder of datasets; by default $ILX_DATA_DIR, or ~/.cache/ilx.")
_ENV_ID = flags.DEFINE_string("env_id", None, "EnvPool's name of the task; by default the recording's.")
_ENV_KWARGS = flags.DEFINE_string("env_kwargs", None, "JSON object for EnvPool; by default the recording's.")
_LIMIT = flags.DEFINE_integer("max_episode_steps", None, "Time limit it was recorded with; by default the task's.", 1)
_CLIP = flags.DEFINE_bool("clip", True, "Clip actions to the environment's bounds.")
_EXPERT = flags.DEFINE_float("expert_return", None, "Return that normalised scores count as 100.")
_RANDOM = flags.DEFINE_float("random_return", None, "Return that normalised scores count as 0.")


def main() -> None:
  try:
    _convert()
  except (OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def _convert() -> None:
  about = npz.meta(_NPZ.value)
  env_id = _ENV_ID.value or about.get("env_id")
  env_kwargs = _env_kwargs(about)
  spec, limit = _task(env_id, env_kwargs) if env_id else (None, None)
  recording = npz.read(
    _NPZ.value,
    _PRESET.value,
    action=spec and spec.action,
    clip=_CLIP.value,
    max_episode_steps=_LIMIT.value or limit,
  )
  metadata = {
    "env_id": env_id,
    "env_kwargs": env_kwargs,
    "expert_return": _EXPERT.value,
    "random_return": _RANDOM.value,
  }
  where = npz.write(
    recording,
    _ROOT.value or rlds.root(),
    name=_NAME.value or npz.default_name(_NPZ.value),
    metadata={key: value for key, value in metadata.items() if value is not None},
  )
  print(report(recording, where))
  if spec is not None:
    _warn_unless_playable(recording, spec, env_id)


def report(recording: Recording, where: pathlib.Path) -> str:
  """What was read and where it was written, for the terminal."""
  read = recording.metadata["recording"]
  outside = (", clipped" if read["clipped"] else ", kept") if read["out_of_bounds"] else ""
  lines = [
    f"episodes    {read['episodes']}, {read['steps']} steps",
    f"return      {read['return_mean']:.6g} mean, {read['return_min']:.6g} to {read['return_max']:.6g}",
    f"ends        {read['terminals']} of the task, {read['time_limits']} by a time limit or a cut",
    f"left out    {read['dropped']} last actions whose next observation was not recorded",
    f"actions     {read['out_of_bounds']} out of bounds{outside}",
    f"written to  {where}",
  ]
  return "\n".join(lines)


def _env_kwargs(about: dict[str, Any]) -> dict[str, Any]:
  if _ENV_KWARGS.value is None:
    return npz.env_kwargs(about)
  try:
    given = json.loads(_ENV_KWARGS.value)
  except json.JSONDecodeError as error:
    raise ValueError(f"--env_kwargs: not JSON ({error})") from None
  if not isinstance(given, dict):
    raise ValueError(f"--env_kwargs: expected a JSON object, got {_ENV_KWARGS.value}")
  return given


def _task(env_id: str, env_kwargs: dict[str, Any]) -> tuple[Spec, int | None]:
  """The task's spec and time limit."""
  spec = environments.spec(env_id, **env_kwargs)
  import envpool  # after `environments` has said what is wrong where it is not installed

  return spec, getattr(envpool.make_spec(env_id, **env_kwargs).config, "max_episode_steps", None)


def _warn_unless_playable(recording: Recording, spec: Spec, env_id: str) -> None:
  observation = recording.observation
  found = spec._replace(observation=jax.ShapeDtypeStruct(observation.shape[1:], observation.dtype))
  try:
    environments.check_spec(found, spec, env_id)
  except ValueError as error:
    print(f"warning: {error}", file=sys.stderr)


if __name__ == "__main__":
  cli.run(main)
