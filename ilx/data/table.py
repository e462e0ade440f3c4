"""The episodes of a dataset as a table that SQL can query: an Arrow table, and DuckDB over it."""

import importlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ilx.data import decode, derived, records, rlds
from ilx.data.episodes import Episodes, from_columns
from ilx.data.features import Feature, Sequence
from ilx.data.images import Images
from ilx.data.rlds import Info

if TYPE_CHECKING:
  import pyarrow

_VERSION = 1  # of the kept table
_OWN = ("split", "file", "index", "episode", "length", "episode_return", "return_rank", "is_terminal")
# What the database may not do: touch files, the network or Python's variables, load extensions.
_CLOSED = {
  "autoinstall_known_extensions": "false",
  "autoload_known_extensions": "false",
  "python_enable_replacements": "false",
}


def table(info: Info, split: str = "all") -> "pyarrow.Table":
  """One row for every episode; made in one pass over the split, and kept for the next time (``derived``).

  Columns:
    split: its name, string.
    file: its file within the dataset's folder, string.
    index: int64, the record's number in the file.
    episode: int64, the episode's number in ``split``: in ``ilx.data.load(..., split=split)``, from 0.
    length: int64, transitions: steps but the last.
    episode_return: float64, undiscounted, without the last step's reward; null where the dataset has no rewards, or
      they are not finite.
    return_rank: int64, 1 for the highest return; equal returns have one rank.
    is_terminal: bool, of the last step; null where the dataset does not say.

  and every number, bool, label and text beside the steps, "episode_metadata/" left out, deeper names joined by "/"
  (in SQL: ``"agent/level"``). One that has the name of another column, also in other letter case, is called
  ``stored_<name>``. Labels are the names of their classes where these have names; NaN is null.

  Args:
    info: of the dataset.
    split: in TFDS' syntax; "all" is every split.

  Raises:
    ImportError: where pyarrow is not installed.
    FileNotFoundError: where a file is missing.
    ValueError: for an unknown split, or a damaged file; names it.

  Warns:
    UserWarning: where it cannot be kept, such as on a full disk; it is made all the same.
  """
  parts, schema = records.parts(info, split), _schema(info)
  count = sum(part.stop - part.start for part in parts)
  # The names of classes are no part of the dataset's fingerprint.
  stored = [(column, repr(_get(info.features, field))) for column, field in _stored_fields(info)]
  name = f"episodes-{derived.key('episodes', _VERSION, [tuple(part) for part in parts], stored)}"
  return derived.kept(
    info,
    derived.find(info, name),
    "the table of episodes is made anew whenever one asks for it",
    lambda: _build(info, split, schema),
    _encode,
    lambda content: _decode(content, schema, count),
  )


def _encode(rows: "pyarrow.Table") -> bytes:
  sink = _module("pyarrow").BufferOutputStream()
  _module("pyarrow.parquet").write_table(rows, sink, write_page_checksum=True)
  return sink.getvalue().to_pybytes()


def _decode(content: bytes, schema: "pyarrow.Schema", count: int) -> "pyarrow.Table":
  """Raises ValueError where the content is damaged, or not that of ``count`` rows of the schema."""
  arrow = _module("pyarrow")
  try:
    rows = _module("pyarrow.parquet").read_table(arrow.BufferReader(content), page_checksum_verification=True)
  except (arrow.ArrowException, OSError) as error:
    raise ValueError(error) from None
  if rows.schema != schema or len(rows) != count:
    raise ValueError(f"it has {len(rows)} rows of {', '.join(rows.column_names)}")
  return rows


def _build(info: Info, split: str, schema: "pyarrow.Schema") -> "pyarrow.Table":
  """As ``table``, always from the dataset; keeps nothing."""
  stored = dict(_stored_fields(info))
  steps = _step_fields(info)
  columns: dict[str, list] = {name: [] for name in (*_OWN, *stored)}
  for number, (file, index, episode) in enumerate(rlds.read_episodes(info, split, fields=[*steps, *stored.values()])):
    values = {name: _get(episode, name) for name in steps}
    columns["file"].append(file.relative_to(info.directory).as_posix())
    columns["index"].append(index)
    columns["episode"].append(number)
    length = max(len(value) for value in values.values() if value is not None) - 1
    if length < 0:
      raise ValueError(f"{file}: record {index} is an episode without steps; field {steps[0]!r} has no values")
    columns["length"].append(length)
    columns["episode_return"].append(_return(values.get("steps/reward")))
    columns["is_terminal"].append(_last(values.get("steps/is_terminal")))
    for name, field in stored.items():
      columns[name].append(_scalar(_get(episode, field), _get(info.features, field)))
  columns["split"] = [part.name for part in records.parts(info, split) for _ in range(part.stop - part.start)]
  columns["return_rank"] = _rank(columns["episode_return"])
  return _module("pyarrow").table(columns, schema=schema)


def _schema(info: Info) -> "pyarrow.Schema":
  arrow = _module("pyarrow")
  own = {
    "split": arrow.string(),
    "file": arrow.string(),
    "episode_return": arrow.float64(),
    "is_terminal": arrow.bool_(),
  }
  types = {name: own.get(name, arrow.int64()) for name in _OWN}
  types |= {name: _arrow_type(_get(info.features, field), arrow) for name, field in _stored_fields(info)}
  return arrow.schema(types)


def query(source: "Info | pyarrow.Table", sql: str, split: str = "all") -> "pyarrow.Table":
  """What a SELECT finds in the table ``episodes``, in DuckDB's dialect.

  The SQL sees that table and nothing else: no files, no network, no variables, no extensions.

  Example::

    query(info, "SELECT split, avg(episode_return) FROM episodes WHERE length > 50 GROUP BY split")

  Args:
    source: a dataset, or its ``table``.
    sql: one statement that gives a table: SELECT, FROM, DESCRIBE, SUMMARIZE...
    split: of a dataset.

  Raises:
    ImportError: where duckdb or pyarrow is not installed.
    ValueError: where the SQL is wrong, asks for what it may not see, or is not one such statement; has the columns.
  """
  rows = table(source, split) if isinstance(source, Info) else source
  duckdb = _module("duckdb")
  connection = connect(rows)
  try:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
      raise ValueError(f"SQL: expected one SELECT, got {sql!r}")
    return connection.sql(statements[0]).to_arrow_table()
  except duckdb.Error as error:
    raise ValueError(f"SQL: {error}\nThe table 'episodes' has the columns {', '.join(rows.column_names)}") from None
  finally:
    connection.close()


def connect(rows: "pyarrow.Table") -> Any:
  """A DuckDB connection that has ``rows`` as the table ``episodes`` and is locked away from everything else."""
  connection = _module("duckdb").connect(":memory:", config=_CLOSED)
  connection.register("episodes", rows)
  for setting in ("temp_directory=''", "enable_external_access=false", "lock_configuration=true"):
    connection.execute(f"SET {setting}")
  return connection


def select(info: Info, where: str, split: str = "train") -> np.ndarray:
  """The numbers of the episodes of ``split`` for which a condition holds, rising, int64.

  They are places in ``ilx.data.load(..., split=split)`` (see ``subset``) and in any other reading of that split.

  Args:
    info: of the dataset.
    where: a condition over the columns of ``table``, such as ``"success AND length > 50"``; may go on with ORDER BY
      and LIMIT.
    split: in TFDS' syntax.

  Raises:
    ImportError: where duckdb or pyarrow is not installed.
    ValueError: where the condition is wrong; has the columns.
  """
  found = query(info, f"SELECT episode FROM episodes WHERE {where}", split)
  return np.sort(found.column("episode").to_numpy()).astype(np.int64)


def subset(episodes: Episodes, numbers: np.ndarray) -> Episodes:
  """The episodes of these numbers, in their order; pictures stay encoded.

  Args:
    episodes: as they were loaded; weights and views come afterwards.
    numbers: integers ``[n]``, such as from ``select``.

  Raises:
    ValueError: where there are none, they are no integers, one is not in the data, or ``episodes`` have been
      narrowed or weighted.
  """
  numbers = np.asarray(numbers)
  if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
    raise ValueError(
      f"subset: numbers are {numbers.dtype} {list(numbers.shape)}; expected integers [n] (of a mask: np.flatnonzero)"
    )
  if not len(numbers):
    raise ValueError("subset: no episode is chosen")
  if not 0 <= numbers.min() <= numbers.max() < episodes.num_episodes:
    raise ValueError(f"subset: chosen are {numbers.min()} to {numbers.max()} of {episodes.num_episodes} episodes")
  if len(episodes.rows) != episodes.num_transitions or episodes.weights is not None:
    raise ValueError("subset: the episodes are narrowed or weighted; choose a subset first")
  starts = np.asarray(episodes.starts)
  spans = [(int(starts[number]), int(starts[number + 1])) for number in numbers]

  def taken(column: Any) -> Any:
    if isinstance(column, Images):
      return Images.concatenate([column.part(start, stop) for start, stop in spans])
    return np.concatenate([np.asarray(column[start:stop]) for start, stop in spans])

  names = ("observation", "action", "reward", "discount", "is_terminal", "extras")
  columns = {name: jax.tree.map(taken, getattr(episodes, name)) for name in names}
  return from_columns(**columns, starts=np.cumsum([0, *(stop - start for start, stop in spans)]))


def _stored_fields(info: Info) -> Iterator[tuple[str, str]]:
  """(column, field) of what is stored beside the steps and has a place in a table."""
  taken = set(_OWN)
  for leaf in decode.leaves({name: field for name, field in info.features.items() if name != "steps"}):
    if leaf.lengths or leaf.feature.shape or leaf.feature.kind not in ("tensor", "text", "label"):
      continue
    name = leaf.name.removeprefix("episode_metadata/")
    while name.casefold() in taken:
      name = f"stored_{name}"
    taken.add(name.casefold())
    yield name, leaf.name


def _step_fields(info: Info) -> list[str]:
  """The fields that tell length, return and end: as few as there are."""
  steps = info.features.get("steps")
  if not isinstance(steps, Sequence) or not isinstance(steps.feature, dict):
    raise ValueError(f"{info.directory}: no RLDS dataset: 'steps' must be a Dataset of step fields")
  found = [
    f"steps/{name}"
    for name in ("reward", "is_terminal")
    if isinstance(field := steps.feature.get(name), Feature) and field.kind == "tensor" and not field.optional
  ]
  if found:
    return found
  for leaf in decode.leaves(steps, "steps"):
    if leaf.feature.kind != "unknown" and not leaf.feature.optional:
      return [leaf.name]
  raise ValueError(f"{info.directory}: no field of the steps can be read")


def _get(tree: dict[str, Any], name: str) -> Any:
  for part in name.split("/"):
    tree = tree[part]
  return tree


def _return(reward: np.ndarray | None) -> float | None:
  if reward is None:
    return None
  found = float(reward.reshape(len(reward), -1)[:-1].sum(dtype=np.float64))
  return found if math.isfinite(found) else None  # to SQL NaN is more than any number


def _last(is_terminal: np.ndarray | None) -> bool | None:
  return None if is_terminal is None or not len(is_terminal) else bool(np.any(is_terminal[-1]))


def _rank(returns: list[float | None]) -> list[int | None]:
  falling = np.sort([-value for value in returns if value is not None])
  return [None if value is None else 1 + int(np.searchsorted(falling, -value)) for value in returns]


def _scalar(value: Any, feature: Feature) -> Any:
  if value is None:
    return None
  if feature.kind == "text":
    return value if isinstance(value, str) else bytes(value).decode(errors="backslashreplace")
  number = np.asarray(value).item()
  if feature.kind == "label" and feature.names:
    return feature.names[number] if 0 <= number < len(feature.names) else None
  # In SQL NaN is larger than any number and would be chosen by "score > 5".
  return None if number != number else number


def _arrow_type(feature: Feature, arrow: Any) -> Any:
  if feature.kind == "text" or (feature.kind == "label" and feature.names):
    return arrow.string()
  if feature.dtype.kind == "b":
    return arrow.bool_()
  if feature.dtype.kind in "iu":
    return arrow.uint64() if feature.dtype == np.uint64 else arrow.int64()
  return arrow.float64() if feature.dtype == np.float64 else arrow.float32()


def _module(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError:
    raise ImportError(f'tables of episodes need {name}: pip install "ilx[data]"') from None
