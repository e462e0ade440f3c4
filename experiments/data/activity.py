"""Steps in which nothing happens, and steps that are the same: shared by what describes and what cleans."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.data import fields
from experiments.data.fields import Stored
from ilx.data.rlds import Info

_ACTION, _OBSERVATION = "steps/action", "steps/observation"


def idle(
  columns: Mapping[str, Stored], starts: np.ndarray, tolerance: float = 0.0, ignored: Sequence[str] = ()
) -> np.ndarray:
  """Steps whose action does nothing and is followed by the same observation, bool ``[N]``.

  An action does nothing where all of it is 0, or where it repeats the one before (the first one: the one behind); a
  text in it is never 0. The observation is the same where all of it is: numbers within the tolerance, texts and
  pictures byte for byte. So where a camera's pictures always differ, if only by noise, no step is idle unless the
  camera is ignored.

  Args:
    columns: fields ``[N, ...]`` by their names in a record.
    starts: int ``[E + 1]``; episode ``e`` is rows ``starts[e]`` to ``starts[e + 1] - 1``. Its last row is never idle.
    tolerance: the largest difference, in the data's units, that counts as none.
    ignored: fields of the observation, or folders of them, that may change; names as in ``columns``.
  """
  count = int(starts[-1])
  last = np.zeros(count, bool)
  last[starts[1:] - 1] = True
  observation = [
    value
    for name, value in columns.items()
    if inside(name, _OBSERVATION) and not any(inside(name, each) for each in ignored)
  ]
  action = [value for name, value in columns.items() if inside(name, _ACTION)]
  if not observation or not action or count < 2:
    return np.zeros(count, bool)
  same = np.logical_and.reduce([_follows_same(value, tolerance) for value in observation])
  zero = np.logical_and.reduce([_zero(value, tolerance) for value in action])
  repeats_next = np.logical_and.reduce([_follows_same(value, tolerance) for value in action])
  # The last step's action carries no meaning.
  repeats_next[:-1] &= ~last[1:]
  repeats = np.append(False, repeats_next[:-1]) & ~_first(starts, count)
  repeats[starts[:-1]] = repeats_next[starts[:-1]]
  return same & (zero | repeats) & ~last


def longest_same(columns: Mapping[str, Stored], starts: np.ndarray) -> np.ndarray:
  """The most steps in a row with one and the same action, int64 ``[E]``, last steps left out; 0 without an action.

  Args:
    columns: see ``idle``.
    starts: see ``idle``; an episode has at least one step.
  """
  action = [value for name, value in columns.items() if inside(name, _ACTION)]
  if not action:
    return np.zeros(len(starts) - 1, np.int64)
  count = int(starts[-1])
  last = np.zeros(count, bool)
  last[starts[1:] - 1] = True
  begins = _first(starts, count)
  begins[1:] |= ~np.logical_and.reduce([_follows_same(value, 0.0) for value in action])[:-1]
  begins |= last
  places = np.flatnonzero(begins)
  lengths = np.diff(places, append=count) * ~last[places]
  return np.maximum.reduceat(lengths, np.searchsorted(places, starts[:-1]))


def check(info: Info, ignored: Sequence[str]) -> None:
  """Raises ValueError where idle steps cannot be told by the action, and the observation less the ``ignored``.

  Args:
    info: of the dataset.
    ignored: names of fields or folders of the observation, relative to a step.
  """
  step = fields.of_steps(info)
  for name, feature in step.items():
    if inside(name, _ACTION) and not fields.examined(feature):
      raise ValueError(
        f"{info.directory}: field {name!r} ({fields.describe(feature)}) cannot be compared to find idle steps; "
        "leave out --drop_idle_start and --drop_idle_end"
      )
  there = {name: feature for name, feature in step.items() if inside(name, _OBSERVATION)}
  for given in ignored:
    chosen = [name for name in there if inside(name, f"steps/{given}")]
    if not chosen:
      known = ", ".join(name.removeprefix("steps/") for name in there)
      raise ValueError(f"{info.directory}: --idle_ignore: no field {given!r} of the observation; there: {known}")
    there = {name: feature for name, feature in there.items() if name not in chosen}
  if not there:
    raise ValueError(f"{info.directory}: --idle_ignore leaves nothing of the observation to tell idle steps by")
  for name, feature in there.items():
    if not fields.examined(feature):
      raise ValueError(
        f"{info.directory}: field {name!r} ({fields.describe(feature)}) cannot be compared to find idle steps; "
        f"give --idle_ignore={name.removeprefix('steps/')}"
      )


def column_hashes(value: Stored) -> np.ndarray:
  """64 bits of every row of a column, uint64 ``[N]``; equal for equal rows, in every process."""
  if isinstance(value, np.ndarray):
    rows = len(value)
    content = np.ascontiguousarray(value).reshape(rows, -1).view(np.uint8)
    padded = np.zeros((rows, -(-content.shape[1] // 8) * 8), np.uint8)
    padded[:, : content.shape[1]] = content
    return _mix(padded.view(np.uint64))
  hashes = (int.from_bytes(hashlib.blake2b(item, digest_size=8).digest(), "little") for item in value)
  return np.fromiter(hashes, np.uint64, len(value))


def combine(hashes: Mapping[str, np.ndarray]) -> np.ndarray:
  """64 bits of every row over several columns, from theirs."""
  total = np.uint64(0)
  for place, name in enumerate(sorted(hashes)):
    total = _scramble(total * np.uint64(0x9E3779B97F4A7C15) + hashes[name] + np.uint64(place))
  return total


def episode_hashes(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
  """64 bits of every episode, uint64 ``[E]``, from those of its rows in their order."""
  place = np.arange(len(rows), dtype=np.uint64) - np.repeat(starts[:-1], np.diff(starts)).astype(np.uint64)
  return _scramble(np.add.reduceat(rows * (place * np.uint64(2) + np.uint64(1)), starts[:-1]))


def content_hash(columns: Mapping[str, Stored]) -> np.ndarray:
  """64 bits of all of the columns, uint64 ``[1]``: faster than those of every row."""
  digest = hashlib.blake2b(digest_size=8)
  for name in sorted(columns):
    value = columns[name]
    digest.update(f"{name} {len(value)} ".encode())
    for part in [np.ascontiguousarray(value).tobytes()] if isinstance(value, np.ndarray) else value:
      digest.update(b"%d " % len(part))
      digest.update(part)
  return np.frombuffer(digest.digest(), np.uint64)


def _mix(words: np.ndarray) -> np.ndarray:
  """Multiplies every word by a random odd number of its own and adds up (multilinear hashing), then scrambles."""
  factors = np.random.default_rng(0).integers(0, 2**63, words.shape[1], np.uint64) | np.uint64(1)
  # The high half of a product depends on all bits, the low half on the low bits only: fold first.
  folded = _scramble(words)
  return _scramble((folded * factors).sum(axis=1, dtype=np.uint64))


def _scramble(x: np.ndarray) -> np.ndarray:
  """The finaliser of MurmurHash3. Source: https://github.com/aappleby/smhasher/wiki/MurmurHash3."""
  x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
  x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
  return x ^ (x >> np.uint64(33))


def inside(name: str, parent: str) -> bool:
  """Whether a field is ``parent`` or lies in that folder."""
  return name == parent or name.startswith(f"{parent}/")


def _first(starts: np.ndarray, count: int) -> np.ndarray:
  first = np.zeros(count, bool)
  first[starts[:-1]] = True
  return first


def _follows_same(value: Stored, tolerance: float) -> np.ndarray:
  """Whether the next row is the same; false in the last one."""
  if isinstance(value, np.ndarray):
    rows = value.reshape(len(value), -1)
    now, behind = rows[:-1], rows[1:]
    if tolerance and value.dtype.kind != "b":
      equal = (np.abs(behind.astype(np.float64) - now) <= tolerance).all(axis=1)
    else:
      equal = (now == behind).all(axis=1)
    return np.append(equal, False)
  return np.array([*(a == b for a, b in itertools.pairwise(value)), False], bool)


def _zero(value: Stored, tolerance: float) -> np.ndarray:
  """Whether all of a row is 0; never where it is no number."""
  if not isinstance(value, np.ndarray):
    return np.zeros(len(value), bool)
  return (np.abs(value.reshape(len(value), -1).astype(np.float64)) <= tolerance).all(axis=1)
