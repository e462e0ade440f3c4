"""Recordings in ``.npz`` files: the environment that they name gives the bounds of actions and the time limit."""

import json
import pathlib
import sys
from typing import Any

from absl import flags

from ilx.data import rlds
from ilx.data.convert import layouts, npz
from ilx.data.convert.recording import Recording
from ilx.types import Spec

# Flags that other formats do not have.
FLAGS = ("preset", "max_episode_steps", "clip")


def define(values: flags.FlagValues) -> None:
  """The flags of this format."""
  presets = ", ".join(layouts.PRESETS)
  flags.DEFINE_string(
    "preset", "auto", f"npz: its layout: {presets}; auto; or a JSON file of a layouts.Layout.", flag_values=values
  )
  flags.DEFINE_integer(
    "max_episode_steps", None, "npz: time limit it was recorded with; by default the task's.", 1, flag_values=values
  )
  flags.DEFINE_bool("clip", True, "npz: clip actions to the environment's bounds.", flag_values=values)


def convert(source: str, values: flags.FlagValues, metadata: dict[str, Any]) -> pathlib.Path:
  """Writes a recording as a dataset; prints what was read, and warns of what does not fit the environment.

  Args:
    source: the file.
    values: the command's flags.
    metadata: entries of ``metadata.json`` by flags, "env_id" and "env_kwargs" among them where they were given.
  """
  about = npz.meta(source)
  env_id = metadata.get("env_id") or about.get("env_id")
  env_kwargs = npz.env_kwargs(about)
  if "env_kwargs" in metadata:
    from ilx.evaluation import observed

    env_kwargs = observed.instead(env_kwargs, metadata["env_kwargs"])
  spec, limit = _task(env_id, env_kwargs) if env_id else (None, None)
  recording = npz.read(
    source,
    values.preset,
    action=spec and spec.action,
    clip=values.clip,
    max_episode_steps=values.max_episode_steps or limit,
  )
  merged = {"env_id": env_id} | metadata | {"env_kwargs": env_kwargs}
  path = npz.write(
    recording,
    values.root or rlds.root(),
    name=values.name or npz.default_name(source),
    version=values.version,
    metadata={key: value for key, value in merged.items() if value is not None},
  )
  print(report(recording))
  if spec is not None:
    _warn_unless_playable(recording, spec, env_id)
  return path


def report(recording: Recording) -> str:
  """What was read, for the terminal."""
  read = recording.metadata["recording"]
  outside = (", clipped" if read["clipped"] else ", kept") if read["out_of_bounds"] else ""
  lines = [
    f"recording   {read['episodes']} episodes, {read['steps']} steps, return {read['return_mean']:.6g} as recorded",
    f"left out    {read['dropped']} last actions whose next observation was not recorded",
    f"actions     {read['out_of_bounds']} out of bounds{outside}",
  ]
  return "\n".join(lines)


def parse_env_kwargs(text: str) -> dict[str, Any]:
  """The JSON object of ``--env_kwargs``."""
  try:
    given = json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(f"--env_kwargs: not JSON ({error})") from None
  if not isinstance(given, dict):
    raise ValueError(f"--env_kwargs: expected a JSON object, got {text}")
  return given


def _task(env_id: str, env_kwargs: dict[str, Any]) -> tuple[Spec, int | None]:
  """The task's spec and its time limit in actions."""
  from ilx.evaluation import environments

  limit = environments.time_limit(env_id, **env_kwargs)
  times, _ = environments.repetitions(env_id, env_kwargs)
  return environments.spec(env_id, **env_kwargs), limit and -(-limit // times)


def _warn_unless_playable(recording: Recording, spec: Spec, env_id: str) -> None:
  import jax

  from ilx.evaluation import matching

  observation = recording.observation
  found = spec._replace(observation=jax.ShapeDtypeStruct(observation.shape[1:], observation.dtype))
  if frames := matching.stacked(found, spec):
    print(f"stacks      if {env_id} shows the last {frames} frames at once: train with --config.frame_stack={frames}")
    return
  try:
    matching.check_spec(found, spec, env_id)
  except ValueError as error:
    print(f"warning: {error}", file=sys.stderr)
