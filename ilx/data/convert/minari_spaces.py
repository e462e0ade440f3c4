"""The spaces in a Minari dataset's ``metadata.json``, read without Gymnasium."""

import json
import math
from typing import Any, NamedTuple

import numpy as np

from ilx.types import Continuous

_KINDS = ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Text", "Dict", "Tuple")
_DEPTH = 16


class Space(NamedTuple):
  """A Gymnasium space.

  Attributes:
    kind: its class.
    shape: of one value; () for text and for spaces of spaces.
    dtype: of one value.
    low: Box: the lower bounds.
    high: Box: the upper bounds.
    n: Discrete: how many choices there are.
    start: Discrete: the first of them.
    parts: Dict and Tuple: the spaces in it; a Tuple's by "0", "1"...
  """

  kind: str
  shape: tuple[int, ...] = ()
  dtype: np.dtype = np.dtype(np.int64)
  low: np.ndarray | None = None
  high: np.ndarray | None = None
  n: int = 0
  start: int = 0
  parts: dict[str, "Space"] = {}  # noqa: RUF012 (never changed)

  @property
  def is_image(self) -> bool:
    """Whether Minari takes it for pictures: uint8 from 0 to 255, at least 32 x 32, with or without channels."""
    if self.kind != "Box" or self.dtype != np.uint8 or len(self.shape) not in (2, 3) or min(self.shape[:2]) < 32:
      return False
    return bool((self.low == 0).all() and (self.high == 255).all())

  @property
  def bounds(self) -> Continuous | None:
    """Of a Box ``[A]`` of real numbers, where all of them are bounded."""
    if self.kind != "Box" or len(self.shape) != 1 or self.dtype.kind != "f":
      return None
    low, high = self.low.astype(np.float32), self.high.astype(np.float32)
    if not np.all(np.isfinite(low) & np.isfinite(high) & (low < high)):
      return None
    return Continuous(low, high)


def parse(text: Any, where: str) -> Space:
  """The space in Minari's JSON of it.

  Args:
    text: a JSON string or what it says.
    where: named in errors.

  Raises:
    ValueError: where it is none.
  """
  try:
    return _parse(json.loads(text) if isinstance(text, str) else text, _DEPTH)
  except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
    raise ValueError(f"{where} is no space that is known ({error!r}); known: {', '.join(_KINDS)}") from None


def _parse(node: dict[str, Any], depth: int) -> Space:
  kind = node["type"]
  if kind not in _KINDS or not depth:
    raise ValueError(f"type {kind!r}")
  if kind == "Dict":
    return Space(kind, parts={str(key): _parse(part, depth - 1) for key, part in node["subspaces"].items()})
  if kind == "Tuple":
    return Space(kind, parts={str(i): _parse(part, depth - 1) for i, part in enumerate(node["subspaces"])})
  if kind == "Text":
    return Space(kind, dtype=np.dtype(object))
  if kind == "Discrete":
    return Space(kind, n=int(node["n"]), start=int(node.get("start", 0)))
  if kind == "MultiDiscrete":
    return Space(kind, np.asarray(node["nvec"]).shape, np.dtype(node.get("dtype", "int64")))
  if kind == "MultiBinary":
    shape = tuple(node["n"]) if isinstance(node["n"], list) else (node["n"],)
    return Space(kind, tuple(map(int, shape)), np.dtype(np.int8))
  shape, dtype = tuple(map(int, node["shape"])), np.dtype(node["dtype"])
  low, high = (np.asarray(node[name], np.float64) for name in ("low", "high"))
  if low.size not in (1, math.prod(shape)) or high.size != low.size:
    raise ValueError(f"bounds of {low.size} and {high.size} numbers for the shape {shape}")
  return Space(kind, shape, dtype, low, high)
