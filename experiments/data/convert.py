"""Turns recordings in other formats into an RLDS dataset.

SOURCE is a file or folder of D4RL (HDF5), Minari, robomimic (HDF5), OGBench (npz), LeRobot, plain npz in the layouts of
several projects, or a folder of game logs with a mapping file.

python -m experiments.data convert cs285_Hopper-v4_expert.npz --preset=cs285 --name=hopper-cs285
python -m experiments.data convert hopper_medium-v2.hdf5 --format=d4rl --name=hopper-medium
python -m experiments.data convert recordings --mapping=mapping.yaml --name=game

One episode is in memory at a time; killed and started again, a conversion goes on behind the last episode that was
written (npz is read as a whole). What was written is validated afterwards.

Exit code: 0 done, 1 done but the validation found errors, 2 not done.
"""

import functools
import importlib
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.data import npz, options, sources, terminal, validate
from experiments.data.problems import ERROR
from experiments.report import text
from ilx.data import rlds

ARGUMENTS = "SOURCE"


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""

  def string(name: str, default: str | None, words: str) -> None:
    flags.DEFINE_string(name, default, words, flag_values=values)

  flags.DEFINE_enum(
    "format", "auto", sources.FORMATS, "What the recordings are: by default looked up.", flag_values=values
  )
  string("name", None, "Name of the dataset; by default by the source's.")
  string("version", "1.0.0", "Its version.")
  string("root", None, "Folder of datasets; by default $ILX_DATA_DIR, or ~/.cache/ilx.")
  string("mapping", None, "Game logs: YAML or JSON file that says which file, column and time is what.")
  flags.DEFINE_multi_string(
    "option",
    [],
    'KEY=VALUE of the format\'s own, such as cameras=["top"]; an unknown one lists them.',
    flag_values=values,
  )
  flags.DEFINE_bool("skip_damaged", False, "Leave out episodes that cannot be read.", flag_values=values)
  flags.DEFINE_integer("episodes_per_shard", 1000, "Episodes in a file.", 1, flag_values=values)
  flags.DEFINE_enum(
    "image_format",
    None,
    ("png", "jpeg"),
    "How pictures are stored that a format hands over as pixels, as D4RL does; by default as pixels. The others encode "
    "theirs themselves: robomimic, Minari and OGBench as --option=images=png, jpeg or raw says, LeRobot by "
    "--option=encoding, game logs by their mapping.",
    flag_values=values,
  )
  string("env_id", None, "EnvPool's name of the task; by default the recording's.")
  string(
    "env_kwargs",
    None,
    "JSON object, the task's options; by default the recording's. Among them may be "
    '{"observation": "image"}, where that part of the task\'s observations was recorded.',
  )
  options.define_number(values, "expert_return", None, "Return that normalised scores count as 100.")
  options.define_number(values, "random_return", None, "Return that normalised scores count as 0.")
  npz.define(values)
  flags.DEFINE_enum(
    "runner", "direct", ("direct", "beam"), "direct: in this process; beam: on Apache Beam.", flag_values=values
  )
  flags.DEFINE_multi_string(
    "beam_args", [], "A flag for Beam, such as --beam_args=--direct_num_workers=4; may be repeated.", flag_values=values
  )
  flags.DEFINE_bool("validate", True, "Check what was written.", flag_values=values)


def main(arguments: Sequence[str], values: flags.FlagValues) -> int:
  """Converts one source; returns the exit code."""
  (source,) = arguments
  kind = values.format if values.format != "auto" else sources.detect(source, values.mapping)
  metadata = {"env_id": values.env_id, "expert_return": values.expert_return, "random_return": values.random_return}
  metadata = {key: value for key, value in metadata.items() if value is not None}
  if values.env_kwargs is not None:
    metadata["env_kwargs"] = npz.parse_env_kwargs(values.env_kwargs)
  try:
    path = _convert(source, kind, values, metadata)
  except FileExistsError as error:
    words = re.sub(r"\w+ under another name or version", "give another --name or --version", str(error))
    raise FileExistsError(words) from error
  return _close(path, values.validate)


def _convert(source: str, kind: str, values: flags.FlagValues, metadata: dict[str, Any]) -> pathlib.Path:
  if kind == "npz":
    _refuse(
      values, kind, ("mapping", "option", "skip_damaged", "episodes_per_shard", "image_format", "runner", "beam_args")
    )
    return npz.convert(source, values, metadata)
  _refuse(values, kind, npz.FLAGS)
  return _write(source, kind, values, metadata)


def _refuse(values: flags.FlagValues, kind: str, names: Sequence[str]) -> None:
  for name in names:
    if values[name].present:
      raise ValueError(f"--{name} does not apply to --format={kind}")


def _write(path: str, kind: str, values: flags.FlagValues, metadata: dict[str, Any]) -> pathlib.Path:
  if values.beam_args and values.runner != "beam":
    raise ValueError("--beam_args needs --runner=beam")
  source = sources.open_source(path, kind, values.mapping, sources.parse_options(values.option))
  writer = importlib.import_module("ilx.data.convert.beam" if values.runner == "beam" else "ilx.data.convert.write")
  write = functools.partial(
    writer.write,
    source,
    values.root or rlds.root(),
    name=values.name,
    version=values.version,
    metadata=metadata,
    episodes_per_shard=values.episodes_per_shard,
    skip_damaged=values.skip_damaged,
    image_format=values.image_format,
  )
  if values.runner == "beam":
    return write(pipeline_options=values.beam_args)
  with terminal.progress("episodes", len(source)) as advance:
    return write(inputs=sources.inputs(path, kind), progress=terminal.total(advance))


def _close(path: pathlib.Path, check: bool) -> int:
  """Prints what was written; returns the exit code."""
  info = rlds.read_info(path)
  result = validate.validate(path) if check else None
  if result is not None:
    print(f"episodes    {result.episodes:,}, {result.steps - result.episodes:,} steps")
    if result.returns.count[0]:
      mean, low, high = (
        text.significant(float(x[0]), "-") for x in (result.returns.mean, result.returns.low, result.returns.high)
      )
      print(f"return      {mean} mean, {low} to {high}")
    print(
      f"ends        {result.terminals:,} of the task, {result.episodes - result.terminals:,} by a time limit or a cut"
    )
  else:
    print(f"episodes    {sum(split.num_episodes for split in info.splits.values()):,}")
  if skipped := info.metadata.get("skipped"):
    first = f"episode {skipped[0]['index']}: {skipped[0]['reason']}"
    print(terminal.printable(f"skipped     {len(skipped):,} damaged; the first: {first}"))
  print(f"written to  {path}")
  if result is None:
    return 0
  print()
  validate.show(result)
  return 1 if result.problems.total(ERROR) else 0
