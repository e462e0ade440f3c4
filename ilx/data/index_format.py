"""The file that keeps an index: plain data, checked before use.

The SHA-256 of what follows in hexadecimal digits, a line of JSON, and the arrays that it lists, end to end.
"""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ilx.types import Statistics, Tree

VERSION = 2
# Of what is stored, and of steps. NumPy's own reading of such names understands whole expressions.
_TYPES = ("<i8", "<f8", "<f4", "|b1", "|u1", "<i4")


class Index(NamedTuple):
  """What there is to know of a split without its steps.

  Attributes:
    length: int64 ``[E]``, transitions of every episode: its steps but the last.
    episode_return: float64 ``[E]``, undiscounted; the last step's reward carries no meaning.
    is_terminal: bool ``[E]``, whether the episode's last step is terminal.
    statistics: with quantiles. "observation" of all steps; "action" and "reward" of all but every episode's last,
      absent where there are none. Leaves of more than ``statistics.LARGE`` numbers a step: of ``statistics.sample``.
    observation: a tree of ``jax.ShapeDtypeStruct``, one step.
    action: the same.
  """

  length: np.ndarray
  episode_return: np.ndarray
  is_terminal: np.ndarray
  statistics: dict[str, Statistics]
  observation: Tree
  action: Tree

  @property
  def num_episodes(self) -> int:
    """E."""
    return len(self.length)

  @property
  def num_steps(self) -> int:
    """Last steps included."""
    return int(self.length.sum()) + len(self.length)


def encode(index: Index) -> bytes:
  """The content of the file."""
  arrays: list[np.ndarray] = []

  def store(array: np.ndarray) -> dict[str, Any]:
    # Of an axis along which a value repeats, one is kept.
    array = np.asarray(array)
    kept = array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]
    arrays.append(kept)
    return {"dtype": array.dtype.str, "shape": array.shape, "kept": kept.shape}

  def tree(value: Tree, leaf: Callable[[Any], dict[str, Any]]) -> dict[str, Any] | None:
    if value is None:
      return None
    if isinstance(value, dict):
      return {"children": {name: tree(child, leaf) for name, child in value.items()}}
    return leaf(value)

  def struct(leaf: jax.ShapeDtypeStruct) -> dict[str, Any]:
    return {"dtype": np.dtype(leaf.dtype).str, "shape": leaf.shape}

  content = {
    "version": VERSION,
    "length": store(index.length),
    "episode_return": store(index.episode_return),
    "is_terminal": store(index.is_terminal),
    "observation": tree(index.observation, struct),
    "action": tree(index.action, struct),
    "statistics": {
      name: [found.count, *(tree(value, store) for value in found[1:])] for name, found in index.statistics.items()
    },
  }
  body = json.dumps(content).encode() + b"\n" + b"".join(array.tobytes() for array in arrays)
  return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode(content: bytes) -> Index:
  """An index from the bytes of its file.

  Raises:
    ValueError: where they are damaged or of another version. Takes no memory beyond a small multiple of them.
  """
  digest, _, body = content.partition(b"\n")
  if hashlib.sha256(body).hexdigest().encode() != digest:
    raise ValueError("wrong checksum")
  head, _, blob = body.partition(b"\n")
  place = 0

  def dtype(entry: dict[str, Any]) -> np.dtype:
    if entry["dtype"] not in _TYPES:
      raise ValueError(f"dtype {entry['dtype']!r}")
    return np.dtype(entry["dtype"])

  def load(entry: dict[str, Any]) -> np.ndarray:
    nonlocal place
    kept = np.frombuffer(blob, dtype(entry), math.prod(entry["kept"]), place).copy()
    place += kept.nbytes
    return np.broadcast_to(kept.reshape(entry["kept"]), entry["shape"])

  def tree(node: dict[str, Any] | None, leaf: Callable[[dict[str, Any]], Any]) -> Tree:
    if node is None:
      return None
    if "children" in node:
      return {name: tree(child, leaf) for name, child in node["children"].items()}
    return leaf(node)

  def struct(entry: dict[str, Any]) -> jax.ShapeDtypeStruct:
    if not all(type(size) is int and size >= 0 for size in entry["shape"]):
      raise ValueError(f"shape {entry['shape']}")
    return jax.ShapeDtypeStruct(tuple(entry["shape"]), dtype(entry))

  try:
    found = json.loads(head)
    if found["version"] != VERSION:
      raise ValueError(f"version {found['version']}")
    columns = [load(found[name]) for name in ("length", "episode_return", "is_terminal")]
    index = Index(
      *columns,
      statistics={
        name: Statistics(count, *(tree(value, load) for value in values))
        for name, (count, *values) in found["statistics"].items()
      },
      observation=tree(found["observation"], struct),
      action=tree(found["action"], struct),
    )
    if [column.dtype.str for column in columns] != ["<i8", "<f8", "|b1"] or columns[0].ndim != 1:
      raise ValueError("its columns are of other types than they should be")
    if len({column.shape for column in columns}) != 1 or columns[0].nbytes > place or place != len(blob):
      raise ValueError("its arrays have other sizes than it says")
  except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
    raise ValueError(f"malformed: {error!r}") from None
  return index
