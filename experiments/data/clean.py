"""Writes a new dataset from a part of another, by rules.

Episodes are left out whole or trimmed at their ends: dropping steps in between would make transitions that never were.
A step is idle where its action is 0 or repeats, nothing observed changes, not a byte of a picture, and nothing is
earned; most cameras' pictures always change, so that no step is idle unless --idle_ignore names them. After an idle
start was dropped the first step that is left is the episode's first; after an idle end the last ones keep the discount
and the is_terminal that the episode ended with. The flags is_first and is_last are set by the episodes' ends, pictures
are copied byte for byte, real numbers are stored as float32 and integers as int32. Whatever cannot be read or stored
(NaN, a step before the last that is terminal, integers beyond int32) is found before anything is written. Killed and
started again, it goes on behind the last episode.

What went and why is in clean.jsonl in the new dataset's folder, one line for each episode that was left out or changed;
the rules and counts are in its metadata.json.
"""

import collections
import json
import pathlib
import shutil
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments.data import options, terminal
from experiments.data import plan as plan_lib
from experiments.data.plan import Kept, Plan, UnfitError
from experiments.data.rules import Rules
from experiments.data.trimmed import Trimmed
from ilx.data import derived, encode, files, folder, rlds
from ilx.data.convert import write as writing

ARGUMENTS = "DATASET"
# What holds for the whole of the old dataset only.
_STALE = ("data_return", "data_return_std", "num_episodes", "num_transitions", "skipped")


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""

  def on(name: str, words: str) -> None:
    flags.DEFINE_bool(name, False, words, flag_values=values)

  def text(name: str, words: str, default: str | None = None) -> None:
    flags.DEFINE_string(name, default, words, flag_values=values)

  text("name", "Name of the new dataset; by default the old one's with -clean.")
  text("version", "Its version.", "1.0.0")
  text("root", "Folder of datasets; by default $ILX_DATA_DIR, or ~/.cache/ilx.")
  text("split", "The name of the one split to take, no part of it; by default all.")
  on(
    "drop_idle_start",
    "Drop the steps that episodes begin with in which the action is 0 or repeats, nothing observed changes, not a byte "
    "of a picture, and nothing was earned.",
  )
  on("drop_idle_end", "Drop such steps that episodes end with.")
  options.define_idle_tolerance(values)
  flags.DEFINE_list(
    "idle_ignore", [], "Fields that may change in idle steps, such as observation/image.", flag_values=values
  )
  on("drop_duplicates", "Leave out episodes whose steps equal those of an earlier one that stays, in whatever split.")
  on("skip_damaged", "Leave out what cannot be read or stored; else that is an error.")
  flags.DEFINE_integer("min_length", 1, "Least transitions, after idle ones were dropped.", 1, flag_values=values)
  options.define_number(values, "min_return", None, "Least undiscounted return.")
  options.define_number(values, "max_return", None, "Greatest undiscounted return.")
  text("success_key", "Entry of the episodes' metadata that must be true, such as success.")
  text("where", "Condition in SQL over the table of episodes, such as length>20; see query.")
  on("clip_actions", "Clip actions to action_low and action_high of metadata.json.")
  flags.DEFINE_multi_string(
    "cast", [], "FIELD=DTYPE, such as observation/state=float32; float32, int32, uint8 or bool.", flag_values=values
  )
  flags.DEFINE_list("keep_fields", [], "The only fields to keep beside those RLDS needs.", flag_values=values)
  flags.DEFINE_list("drop_fields", [], "Fields to leave out, such as observation/image_1.", flag_values=values)
  on("dry_run", "Only say what would be done.")


def main(arguments: Sequence[str], values: flags.FlagValues) -> int:
  """Cleans one dataset; returns the exit code."""
  rules = Rules(
    **{
      name: values[name].value
      for name in Rules.__dataclass_fields__
      if name not in ("cast", "idle_ignore", "keep_fields", "drop_fields")
    },
    idle_ignore=tuple(values.idle_ignore),
    cast=tuple(_cast(text) for text in values.cast),
    keep_fields=tuple(values.keep_fields),
    drop_fields=tuple(values.drop_fields),
  )
  path, plan = clean(
    arguments[0],
    rules,
    root=values.root,
    name=values.name,
    version=values.version,
    split=values.split,
    dry_run=values.dry_run,
  )
  show(plan)
  print(f"written to  {path}" if path else "nothing was written (--dry_run)")
  return 0


def clean(
  dataset: str,
  rules: Rules,
  *,
  root: str | None = None,
  name: str | None = None,
  version: str = "1.0.0",
  split: str | None = None,
  dry_run: bool = False,
) -> tuple[pathlib.Path | None, Plan]:
  """Writes what the rules leave of a dataset as a new one.

  Returns:
    The new dataset's folder (None for a dry run), and what was done.

  Raises:
    FileNotFoundError: where there is no such dataset.
    FileExistsError: where the new one is already there.
    ValueError: where something is damaged and not to be skipped, a rule does not fit, or no episode is left.
  """
  info = rlds.read_info(rlds.resolve(dataset))
  directory = pathlib.Path(root).expanduser() if root else rlds.root()
  name = name or f"{info.name}-clean"
  try:
    folder.check_names(name, version, "train")
  except ValueError as error:
    raise ValueError(str(error).replace("Recorder: ", "--")) from None
  target = directory / name / version
  if target.resolve() == info.directory.resolve():
    raise ValueError(f"{target} is the dataset itself; a new one needs another --name or --version")
  if target.exists():
    raise FileExistsError(f"{target} is already there; remove it, or give another --name or --version")
  if split is not None and split not in info.splits:
    there = ", ".join(info.splits) or "none"
    raise ValueError(f"{info.directory}: no split {split!r}; --split takes the name of one: {there}")
  splits = list(info.splits) if split is None else [split]
  source = Trimmed(info, [], {}, rules, {}, name)  # refuses rules that do not fit, before the work
  chosen = _chosen(info, splits, rules)
  with terminal.progress("reading", sum(info.splits[each].num_episodes for each in splits)) as advance:
    plan = plan_lib.plan(info, splits, rules, chosen, lambda: advance(1), _check(source))
  if not plan.kept:
    raise ValueError(f"{info.directory}: no episode is left ({_reasons(plan) or 'there is none'})")
  if dry_run:
    return None, plan
  source = source.of(plan.kept, plan.files, _metadata(info, rules, plan))
  log = _write_log(target, plan)
  unfinished = target.with_name(f"{version}.incomplete")
  resumes = unfinished.exists()
  with terminal.progress("writing", len(source)) as advance:
    try:
      path = writing.write(
        source, directory, name=target.parent.name, version=version, progress=terminal.total(advance)
      )
    except BaseException as error:
      log.unlink(missing_ok=True)  # a run that goes on makes it again
      # The same rules would fail again, and others could not go on with it.
      if isinstance(error, ValueError) and not resumes:
        shutil.rmtree(unfinished, ignore_errors=True)
      raise
  # Last, so that a kill in between leaves it beside the folder.
  log.replace(path / "clean.jsonl")
  for left in _logs(target):
    left.unlink(missing_ok=True)  # of killed runs, and of others that can only fail now
  return path, plan


def _write_log(target: pathlib.Path, plan: Plan) -> pathlib.Path:
  """Writes the log beside a dataset that is to be, under a name that no other run has; returns its path."""
  log = target.with_name(f"{target.name}.clean-{uuid.uuid4().hex}.jsonl")
  log.parent.mkdir(parents=True, exist_ok=True)
  files.write_text(log, "".join(json.dumps(entry) + "\n" for entry in plan.log))
  return log


def _logs(target: pathlib.Path) -> list[pathlib.Path]:
  return list(target.parent.glob(f"{target.name}.clean-*.jsonl"))


def show(plan: Plan) -> None:
  """Prints counts before and after, and what went by which rule."""
  before, after = plan.before, plan.after
  rows = [
    (key, f"{before[key]:,}", f"{after[key]:,}", f"{after[key] - before[key]:+,}")
    for key in ("episodes", "transitions")
  ]
  terminal.table(("", "before", "after", "change"), rows)
  counts = collections.Counter((entry["what"], entry.get("rule", entry["why"])) for entry in plan.log)
  amounts: collections.Counter[tuple[str, str]] = collections.Counter()
  for entry in plan.log:
    amounts[entry["what"], entry.get("rule", entry["why"])] += entry.get("steps", entry.get("values", 0))
  if counts:
    print()
    rows = [
      (what, rule, f"{count:,}", f"{amounts[what, rule]:,}" if amounts[what, rule] else "")
      for (what, rule), count in counts.most_common()
    ]
    terminal.table(("what", "rule", "episodes", "steps or values"), rows, numbers=False)
  print()


def _metadata(info: rlds.Info, rules: Rules, plan: Plan) -> dict[str, Any]:
  kept = {key: value for key, value in info.metadata.items() if key not in _STALE}
  counts = {key: {"before": plan.before[key], "after": plan.after[key]} for key in ("episodes", "transitions")}
  dropped = collections.Counter(entry["rule"] for entry in plan.log if entry["what"] == "dropped")
  cleaned = {
    "dataset": f"{info.name}/{info.version}",
    "rules": rules.stated(),
    **counts,
    "dropped": dict(sorted(dropped.items())),
  }
  if all(path.is_file() for split in info.splits.values() for path in split.files):
    cleaned["fingerprint"] = derived.fingerprint(info)
  # As JSON gives it back, which is what an unfinished run is compared with.
  return json.loads(json.dumps(kept | {"cleaned": cleaned}))


def _reasons(plan: Plan) -> str:
  counts = collections.Counter(entry["rule"] for entry in plan.log if entry["what"] == "dropped")
  damage = next((f"; the first: {entry['why']}" for entry in plan.log if entry.get("rule") == "damaged"), "")
  return ", ".join(f"{count:,} {rule}" for rule, count in counts.most_common()) + damage


def _check(source: Trimmed) -> Callable[[bytes, Kept], None]:
  """Raises ValueError for a record of which what is kept cannot be written, before anything is."""
  first: dict[str, Any] = {}

  def check(content: bytes, kept: Kept) -> None:
    converted = source.of_record(content, kept)
    try:
      found = encode.encode(converted.steps, converted.metadata).features
    except ValueError as error:
      raise ValueError(str(error).removeprefix("episode: ")) from None
    if problem := encode.difference(first or found, found):
      raise UnfitError(f"{problem}; to write the others, give --drop_fields")
    first.update(found)

  return check


def _chosen(info: rlds.Info, splits: list[str], rules: Rules) -> set[tuple[pathlib.Path, int]] | None:
  """The records that meet ``rules.where``."""
  if rules.where is None:
    return None
  from experiments.data import query

  return query.chosen(info, splits, rules.where, skip_damaged=rules.skip_damaged)


def _cast(text: str) -> tuple[str, str]:
  field, _, dtype = text.partition("=")
  if dtype not in ("float32", "int32", "uint8", "bool"):
    raise ValueError(f"--cast={text}: expected FIELD=DTYPE with float32, int32, uint8 or bool")
  return field, str(np.dtype(dtype))
