"""Records of game logs, one after the other, from JSON lines, JSON, CSV, TSV, Parquet, Avro, YAML or XML files."""

import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ilx.data.convert import checks, lines

# What ``lookup`` gives where there is no such value.
ABSENT = object()

_FORMATS = {
  ".jsonl": "jsonl",
  ".ndjson": "jsonl",
  ".json": "json",
  ".csv": "csv",
  ".tsv": "tsv",
  ".parquet": "parquet",
  ".avro": "avro",
  ".yaml": "yaml",
  ".yml": "yaml",
  ".xml": "xml",
}

# The largest file that is read as a whole, in bytes.
_WHOLE = 1 << 30

Record = dict[str, Any]


def records(
  path: str | os.PathLike,
  format: str | None = None,
  at: str | None = None,
  columns: Sequence[str] | None = None,
  *,
  delimiter: str | None = None,
  encoding: str | None = None,
) -> Iterator[tuple[str, Record]]:
  """(where, record) for every record of a file; ``where`` is its line or number, from 1.

  All but JSON, and YAML with one list, are read piece by piece.

  Args:
    path: the file.
    format: one of "jsonl", "json", "csv", "tsv", "parquet", "avro", "yaml", "xml"; by default as its name ends.
    at: the path to the records within the file; see ``mapping.Events``.
    columns: paths that will be looked up; Parquet reads no others.
    delimiter: between the values of CSV, "," by default.
    encoding: of CSV and TSV, UTF-8 by default.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is damaged or of an unknown format; names the file and the record.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing")
  format = kind(path, format)
  if format is None:
    raise ValueError(f"{path}: format unknown; its name ends in none of {', '.join(_FORMATS)}: say 'format'")
  if at is not None and format not in ("json", "yaml", "xml"):
    raise ValueError(f"{path}: 'records' says where they are in JSON, YAML and XML; {format} has nothing but records")
  if (delimiter or encoding) and format not in ("csv", "tsv"):
    raise ValueError(f"{path}: 'delimiter' and 'encoding' are for CSV and TSV, not for {format}")
  readers: dict[str, Callable[..., Iterator[tuple[str, Record]]]] = {
    "jsonl": lambda: lines.objects(path),
    "json": lambda: _listed(_json(path), at, path),
    "csv": lambda: lines.separated(path, delimiter or ",", encoding or "utf-8-sig"),
    "tsv": lambda: lines.separated(path, delimiter or "\t", encoding or "utf-8-sig"),
    "parquet": lambda: _parquet(path, columns),
    "avro": lambda: _avro(path),
    "yaml": lambda: _yaml(path, at),
    "xml": lambda: _xml(path, at),
  }
  for where, record in readers[format]():
    if not isinstance(record, dict):
      raise ValueError(f"{path}, {where}: is {checks.shown(record)}; expected an object with named values")
    yield where, record


def kind(path: str | os.PathLike, format: str | None = None) -> str | None:
  """The format of a file, by its name unless it is given; None where that says nothing."""
  return format or _FORMATS.get(pathlib.Path(path).suffix.lower())


def lookup(record: Any, path: str) -> Any:
  """The value at "a.b.0" or "a/b" in nested dicts and lists, or ``ABSENT``; whole keys go before paths."""
  if isinstance(record, dict) and path in record:
    found = record[path]
  else:
    found = record
    for part in _parts(path):
      if isinstance(found, dict):
        found = found.get(part, found.get(f"@{part}", ABSENT))
      elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
        found = found[int(part)]
      else:
        return ABSENT
  # An XML element with attributes and a text.
  return found["#text"] if isinstance(found, dict) and "#text" in found else found


@functools.lru_cache(maxsize=1024)
def _parts(path: str) -> list[str]:
  return re.split(r"[./]", path)


def _json(path: pathlib.Path) -> Any:
  if path.stat().st_size > _WHOLE:
    raise ValueError(f"{path}: is larger than {_WHOLE >> 20} MiB, and JSON is read as a whole; write JSON lines")
  try:
    return json.loads(path.read_text(encoding="utf-8-sig"))
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path}: no JSON: {error}") from None


def _listed(document: Any, at: str | None, path: pathlib.Path) -> Iterator[tuple[str, Any]]:
  """The records of a JSON or YAML document."""
  found = document if at is None else lookup(document, at)
  if not isinstance(found, list):
    what = "is no list" if at is None else f"has no list at {at!r}"
    raise ValueError(f"{path}: {what} of records; say where it is in 'records'")
  for number, record in enumerate(found, 1):
    yield f"record {number}", record


def _parquet(path: pathlib.Path, columns: Sequence[str] | None) -> Iterator[tuple[str, Any]]:
  from ilx.data.convert import parquet

  library = parquet.library()
  import pyarrow

  try:
    with library.ParquetFile(path) as file:
      names = file.schema_arrow.names
      if columns is not None:
        names = [n for n in names if any(c == n or re.split(r"[./]", c)[0] == n for c in columns)] or names
      number = 0
      for batch in parquet.batches(file, path, names):
        for record in batch.to_pylist():
          number += 1
          yield f"row {number}", record
  except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
    raise ValueError(f"{path}: no Parquet file that can be read: {error}") from None


def _avro(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
  try:
    import fastavro
  except ImportError:
    raise ImportError('Avro files need fastavro: pip install "ilx[data]"') from None
  number = 0
  with path.open("rb") as file:
    try:
      for number, record in enumerate(fastavro.reader(file), 1):
        yield f"record {number}", record
    except GeneratorExit:
      raise
    except Exception as error:  # a damaged file raises whatever its bytes lead to
      raise ValueError(f"{path}, record {number + 1}: no Avro that can be read: {error!r}") from None


def _yaml(path: pathlib.Path, at: str | None) -> Iterator[tuple[str, Any]]:
  try:
    import yaml
  except ImportError:
    raise ImportError('YAML files need pyyaml: pip install "ilx[data]"') from None

  # The safe loader in C where it was built: plain values alone, any other tag is an error.
  class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    def flatten_mapping(self, node: Any) -> None:
      """Merging, again and again, makes of few bytes a file without end."""
      if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
        raise yaml.constructor.ConstructorError(None, None, "merging by '<<' is not read", node.start_mark)
      super().flatten_mapping(node)

  with path.open("rb") as file:
    try:
      for number, document in enumerate(yaml.load_all(file, Loader), 1):
        if at is None and isinstance(document, dict):
          yield f"document {number}", document
        elif document is not None:
          yield from _listed(document, at, path)
    except (yaml.YAMLError, RecursionError) as error:
      raise ValueError(f"{path}: no YAML that can be read: {' '.join(str(error).split())}") from None


def _xml(path: pathlib.Path, at: str | None) -> Iterator[tuple[str, Any]]:
  try:
    import defusedxml
    import defusedxml.ElementTree as elements
  except ImportError:
    raise ImportError('XML files need defusedxml: pip install "ilx[data]"') from None
  wanted = None if at is None else re.split(r"[./]", at.strip("/"))
  tags: list[str] = []
  above: list[Any] = []
  number = 0
  try:
    for event, element in elements.iterparse(path, ("start", "end"), forbid_dtd=True):
      if event == "start":
        tags.append(element.tag)
        above.append(element)
        continue
      if tags == wanted or (wanted is None and len(tags) == 2):
        number += 1
        found = _element(element)
        yield f"record {number}", found if isinstance(found, dict) else {"#text": found}
      tags.pop()
      above.pop()
      # What lies within a record is needed until its end; all else, once read, is let go.
      if above and not _within(tags, wanted):
        above[-1].remove(element)
  except (elements.ParseError, defusedxml.DefusedXmlException, RecursionError) as error:
    raise ValueError(f"{path}, record {number + 1}: no XML that can be read: {error}") from None
  if not number and wanted is not None:
    raise ValueError(f"{path}: no elements at {'/'.join(wanted)!r}; say where they are in 'records'")


def _within(tags: list[str], wanted: list[str] | None) -> bool:
  return len(tags) >= 2 if wanted is None else tags[: len(wanted)] == wanted


def _element(element: Any) -> Any:
  """An element as a dict of "@attribute", children by their tags, and "#text"; a mere text where it has but that."""
  found: Record = {f"@{name}": value for name, value in element.attrib.items()}
  for child in element:
    value = _element(child)
    if child.tag not in found:
      found[child.tag] = value
    elif isinstance(found[child.tag], list):
      found[child.tag].append(value)
    else:
      found[child.tag] = [found[child.tag], value]
  text = (element.text or "").strip()
  if not found:
    return text
  return found | {"#text": text} if text else found
