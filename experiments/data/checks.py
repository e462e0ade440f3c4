"""The checks of one episode; nothing is raised, everything is noted."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Any

import numpy as np

from experiments.data import fields
from experiments.data.bounds import Bounds
from experiments.data.fields import Stored
from experiments.data.problems import ERROR, WARNING
from ilx.data import decode, images
from ilx.data.features import Feature

# Flags, and where in an episode they may be true.
_FLAGS = {"is_first": 0, "is_last": -1, "is_terminal": -1}
_MEANINGLESS_LAST = ("action", "reward", "discount")
_SCALARS = (*_FLAGS, "reward", "discount")
REQUIRED = ("observation", "action", "reward", "is_terminal")
_LOADED = ("observation", "action", *_SCALARS)

# Takes (level, kind, message, field, step).
Note = Callable[..., None]


def layout(step_fields: Mapping[str, Any], note: Note) -> None:
  """What ``features.json`` must have for the dataset to be loaded."""
  tops = {name.split("/")[1] for name in step_fields}
  for name in REQUIRED:
    if name not in tops:
      note(ERROR, "missing field", "features.json has no such field; RLDS needs it", field=f"steps/{name}")
  for name in ("is_first", "is_last"):
    if name not in tops:
      note(
        WARNING,
        "missing field",
        "features.json has no such field; episodes are taken as records",
        field=f"steps/{name}",
      )
  for name, feature in step_fields.items():
    top = name.split("/", 1)[1]
    if top in _SCALARS and (not isinstance(feature, Feature) or np.prod(feature.shape) != 1):
      note(ERROR, "shape", f"features.json says {fields.describe(feature)}; expected one number a step", field=name)


def episode(
  record: Mapping[str, Stored],
  step_fields: Mapping[str, Any],
  beside: Mapping[str, Any],
  bounds: Mapping[str, Bounds],
  pool: Executor,
  note: Note,
) -> dict[str, Stored]:
  """Checks a parsed record; returns the fields that are as they should be.

  Args:
    record: what ``example.parse`` gave; of one step at least.
    step_fields: fields of the steps by name.
    beside: the other fields.
    bounds: of the action, or of its parts, by field.
    pool: decodes pictures.
    note: see ``Note``.
  """
  steps = fields.count_steps(record, step_fields)
  if steps == 1:
    note(WARNING, "short", "the episode has one step only, and so no transition")
  good: dict[str, Stored] = {}
  for name, feature in step_fields.items():
    if fields.examined(feature) and (value := _read(feature, record.get(name), steps, name, note)) is not None:
      good[name] = value
  for name, feature in beside.items():
    if fields.examined(feature) and (value := _read(feature, record.get(name), 1, name, note)) is not None:
      _finite(name, value, note, steps=False)
  known = (*step_fields, *beside)
  for name in record:
    if not any(name == key or name.startswith(f"{key}/") for key in known):
      note(WARNING, "unknown field", "in the record, but not in features.json", field=name)
  for name, value in good.items():
    _finite(name, value, note)
    _fits(name, value, note)
    if step_fields[name].kind == "text":
      _text(name, value, note)
    elif step_fields[name].kind == "image":
      _pictures(name, value, step_fields[name], pool, note)
  _flags(good, steps, note)
  _ranges(good, bounds, note)
  return good


def ragged(
  record: Mapping[str, Stored], chosen: Mapping[str, Mapping[str, Any]], step_fields: Mapping[str, Any], note: Note
) -> None:
  """Checks the fields that ``episode`` passes over: of varying shape, optional, sequences in steps.

  Args:
    record: what ``example.parse`` gave.
    chosen: for each name the part of the features that it is, see ``ilx.data.decode.choose``.
    step_fields: fields of the steps by name.
    note: see ``Note``.
  """
  steps = fields.count_steps(record, step_fields)
  for name, part in chosen.items():
    for leaf in decode.leaves(part):
      if leaf.name != name and not leaf.name.startswith(f"{name}/"):
        continue  # only there to tell the number of steps
      if not all(key in record for key in leaf.keys()):  # noqa: SIM118 (no dict)
        if not leaf.feature.optional:
          note(ERROR, "missing field", "missing from the record", field=name)
        continue
      try:
        found = decode.count(leaf, record) if leaf.lengths else None
        if found not in (None, steps):
          raise ValueError(f"{found} values in {steps} steps")
        decoded = decode.decode(part, record)
      except ValueError as error:
        note(ERROR, "type or shape", re.sub(rf"^field {name!r},? ", "", str(error)), field=name)
        continue
      if leaf.lengths:
        value = functools.reduce(dict.__getitem__, leaf.name.split("/"), decoded)
        bad = [step for step, row in enumerate(value) if not _is_finite(row)] if isinstance(value, np.ndarray) else []
        if bad:
          more = f"; in {len(bad)} steps of this episode" if len(bad) > 1 else ""
          note(ERROR, "not finite", f"NaN or inf{more}", field=name, step=bad[0])


def _is_finite(value: Any) -> bool:
  """Of arrays of arrays too; what is no number is."""
  if isinstance(value, np.ndarray) and value.dtype == object:
    return all(map(_is_finite, value))
  real = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fV"  # bfloat16 is a V
  return not real or bool(np.isfinite(value).all())


def _read(feature: Feature, stored: Stored | None, steps: int, name: str, note: Note) -> Stored | None:
  try:
    return fields.values(feature, stored, steps)
  except fields.FieldError as error:
    kind = "missing field" if stored is None else "type or shape"
    note(ERROR, kind, str(error), field=name, step=error.step)
    return None


def _finite(name: str, value: Stored, note: Note, steps: bool = True) -> None:
  if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or np.isfinite(value).all():
    return
  bad = ~np.isfinite(value.reshape(len(value), -1))
  step = int(bad.any(axis=1).argmax())
  if not steps:
    # NaN stands for what is not known of an episode.
    if np.isinf(value).any():
      note(WARNING, "not finite", "infinite", field=name)
    return
  dimension = f" in dimension {int(bad[step].argmax())}" if bad.shape[1] > 1 else ""
  more = f"; {int(bad.sum())} values in this episode" if bad.sum() > 1 else ""
  if step == len(value) - 1 and name.split("/")[1] in _MEANINGLESS_LAST:
    more += "; it carries no meaning in the last step, but ilx.data.load refuses it there too"
  note(
    ERROR, "not finite", f"{'NaN' if np.isnan(value[step]).any() else 'inf'}{dimension}{more}", field=name, step=step
  )


def _fits(name: str, value: Stored, note: Note) -> None:
  """Notes numbers that ``ilx.data.load`` cannot hold: it has float32 and int32."""
  if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not value.size:
    return
  kept = np.dtype(np.float32 if value.dtype.kind == "f" else np.int32)
  if np.can_cast(value.dtype, kept):
    return
  limits = np.finfo(kept) if kept.kind == "f" else np.iinfo(kept)
  rows = value.reshape(len(value), -1)
  bad = np.isfinite(rows) & ((rows < limits.min) | (rows > limits.max))
  if bad.any():
    step = int(bad.any(axis=1).argmax())
    # Other fields are loaded where they are asked for.
    level = ERROR if name.split("/")[1] in _LOADED else WARNING
    found = rows[step, int(bad[step].argmax())]
    note(level, "range", f"{found} is beyond {kept}, as which ilx.data.load holds it", field=name, step=step)


def _text(name: str, value: list[bytes], note: Note) -> None:
  for step, content in enumerate(value):
    try:
      content.decode()
    except UnicodeDecodeError as error:
      note(ERROR, "text", f"no UTF-8: {error.reason} at byte {error.start}", field=name, step=step)
      return
  if not any(content.strip() for content in value):
    note(WARNING, "empty text", "the text is empty in all steps", field=name)


def _pictures(name: str, value: list[bytes], feature: Feature, pool: Executor, note: Note) -> None:
  # A still camera, or an absent one, repeats the same file.
  different = list(dict.fromkeys(value))
  for content, message in zip(different, pool.map(lambda content: _picture(content, feature), different), strict=True):
    if message:
      note(ERROR, "picture", message, field=name, step=value.index(content))


def _picture(content: bytes, feature: Feature) -> str | None:
  if not content:
    return "the picture is empty"
  try:
    images.decode(content, feature.shape, feature.dtype)
  except ValueError as error:
    return f"cannot be decoded: {str(error).replace(chr(10), ' ')[:160]}"
  return None


def _flags(good: Mapping[str, Stored], steps: int, note: Note) -> None:
  for name, place in _FLAGS.items():
    value = good.get(f"steps/{name}")
    if value is None or value.size != steps:
      continue
    true = np.flatnonzero(value)
    wanted = place % steps
    stray = true[true != wanted]
    if len(stray):
      which = "first" if place == 0 else "last"
      many = f", {len(stray)} times" if len(stray) > 1 else ""
      note(
        ERROR, "flag", f"true{many} before or behind the {which} of {steps} steps; one record must be one episode",
        field=f"steps/{name}", step=int(stray[0]),
      )  # fmt: skip


def _ranges(good: Mapping[str, Stored], bounds: Mapping[str, Bounds], note: Note) -> None:
  discount = good.get("steps/discount")
  if discount is not None and discount.size:
    # The last step's carries no meaning.
    values = discount.reshape(-1)[:-1]
    bad = (values < 0) | (values > 1)
    if bad.any():
      step = int(bad.argmax())
      note(ERROR, "range", f"{values[step]:g} is not in [0, 1]", field="steps/discount", step=step)
  for name, given in bounds.items():
    if isinstance(action := good.get(name), np.ndarray) and len(action) > 1:
      _bounded(name, action, given, note)


def _bounded(name: str, action: np.ndarray, given: Bounds, note: Note) -> None:
  rows = action.reshape(len(action), -1)[:-1]
  low, high, discrete = given
  if rows.shape[1] != len(low):
    note(
      ERROR,
      "metadata",
      f"metadata.json bounds {len(low)} dimensions, the action has {rows.shape[1]}",
      field=name,
    )
    return
  slack = 0 if discrete else 1e-6 * np.maximum(1, np.maximum(np.abs(low), np.abs(high)))
  bad = (rows < low - slack) | (rows > high + slack)
  if bad.any():
    step = int(bad.any(axis=1).argmax())
    dimension = int(bad[step].argmax())
    found, limits = rows[step, dimension], f"[{low[dimension]:g}, {high[dimension]:g}]"
    where = f"dimension {dimension} is " if rows.shape[1] > 1 else ""
    more = f"; {int(bad.sum())} values in this episode" if bad.sum() > 1 else ""
    # No such discrete action exists; continuous ones are clipped where they are learnt.
    level = ERROR if discrete else WARNING
    note(level, "action out of bounds", f"{where}{found:g}, outside {limits}{more}", field=name, step=step)


def constant_dimensions(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[int, float]]:
  """(dimension, value) of every dimension that never differs."""
  for dimension in np.flatnonzero(low == high):
    yield int(dimension), float(low[dimension])
