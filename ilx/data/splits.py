"""TFDS' split syntax: which episodes of which files ``"train[:90%]+val"`` means."""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

_PART = re.compile(r"(?P<name>[\w-]+)(?:\[(?P<slice>[^\[\]]*)\])?")
_BOUNDARY = re.compile(r"(?:(?P<value>-?\d[\d_]*(?:\.\d+)?)(?P<unit>%|shard)?)?")


class Split(NamedTuple):
  """Files of one split, and how many episodes each holds."""

  files: tuple[Path, ...]
  lengths: tuple[int, ...]

  @property
  def num_episodes(self) -> int:
    """E."""
    return sum(self.lengths)


class Part(NamedTuple):
  """Episodes ``start`` to ``stop - 1`` of the split ``name``."""

  name: str
  start: int
  stop: int


class Chunk(NamedTuple):
  """Records ``start`` to ``stop - 1`` of a file that holds ``length``."""

  file: Path
  start: int
  stop: int
  length: int


def parse(text: str, splits: Mapping[str, Split]) -> list[Part]:
  """The parts that ``text`` names, in its order.

  ``"train"``, ``"train[10:20]"``, ``"train[:-5]"``, ``"train[:90%]"`` (rounded to the closest episode, halves to the
  even one), ``"train[:2shard]"``, ``"train[1shard]"``, ``"all"`` (every split), and sums of these with ``+``.

  Source: https://www.tensorflow.org/datasets/splits

  Raises:
    ValueError: where ``text`` is no such thing, names an unknown split, reaches beyond one (in shards that
      is the end, as for TFDS), or a part is empty.
  """
  if text in splits and text != "all":  # also where its name is one that the syntax has no place for
    return _parts_of_all(text, {text: splits[text]})
  return [part for piece in text.split("+") for part in _parts(piece.strip(), splits)]


def chunks(parts: Iterable[Part], splits: Mapping[str, Split]) -> list[Chunk]:
  """The pieces of files that ``parts`` are, in their order."""
  result = []
  for name, start, stop in parts:
    before = 0
    for file, length in zip(*splits[name], strict=True):
      first, last = max(start - before, 0), min(stop - before, length)
      if first < last:
        result.append(Chunk(file, first, last, length))
      before += length
  return result


def _parts(piece: str, splits: Mapping[str, Split]) -> list[Part]:
  match = _PART.fullmatch(piece)
  if not match:
    raise ValueError(f'split {piece!r} is not understood; write such as "train", "train[:90%]" or "train[10:]+val"')
  name, inside = match["name"], match["slice"]
  if name == "all" and inside is None:
    return _parts_of_all(piece, splits)
  if name not in splits:
    near = difflib.get_close_matches(name, splits, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"no split {name!r}; there: {', '.join(splits) or 'none'}{hint}")
  total = splits[name].num_episodes
  start, stop = (0, total) if inside is None else _slice(inside, piece, splits[name])
  if max(abs(start), abs(stop)) > total:
    raise ValueError(f"split {piece!r} reaches beyond the {total} episodes of {name!r}")
  start, stop = start + total * (start < 0), stop + total * (stop < 0)
  if start >= stop:
    raise ValueError(f"split {piece!r} is empty: {name!r} has {total} episodes")
  return [Part(name, start, stop)]


def _parts_of_all(piece: str, splits: Mapping[str, Split]) -> list[Part]:
  parts = [Part(name, 0, split.num_episodes) for name, split in splits.items() if split.num_episodes]
  if not parts:
    raise ValueError(f"split {piece!r} is empty")
  return parts


def _slice(inside: str, piece: str, split: Split) -> tuple[int, int]:
  """Start and stop in episodes; negative ones count from the end."""
  boundaries = [_BOUNDARY.fullmatch(text) for text in inside.split(":")]
  if len(boundaries) > 2 or not all(boundaries) or not any(match["value"] for match in boundaries):
    raise ValueError(f'split {piece!r}: the slice is not understood; write such as "[:90%]", "[10:20]" or "[:2shard]"')
  unit = next((match["unit"] for match in boundaries if match["unit"]), None)
  values = [match["value"] for match in boundaries]
  if unit != "%" and any("." in (value or "") for value in values):
    raise ValueError(f"split {piece!r}: only percentages may have a fraction")
  if len(values) == 1:
    if unit != "shard":
      raise ValueError(f"split {piece!r}: one episode alone is written {values[0]}:{_next(values[0])}")
    values = [values[0], _next(values[0])]
  start, stop = values
  total = split.num_episodes
  if unit == "%":
    percents = [float(value or 0) for value in values]
    if max(map(abs, percents)) > 100:
      raise ValueError(f"split {piece!r}: percentages are between -100 and 100")
    start, stop = (None if value is None else round(float(value) * total / 100.0) for value in values)
  elif unit == "shard":
    lengths = split.lengths
    start = None if start is None else sum(lengths[: int(start)])
    if stop is not None:
      last = int(stop)
      # TFDS takes 0 for the end, so that "[-1shard]" is the last one.
      stop = sum(lengths[: last if last > 0 else len(lengths) + last])
  return 0 if start is None else int(start), total if stop is None else int(stop)


def _next(value: str) -> str:
  return str(int(float(value)) + 1)
