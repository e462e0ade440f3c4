"""``features.json``: what each field of a TFDS dataset is, read and written as plain JSON.

TFDS' own reader imports the modules that the file names; a dataset must not choose what code runs, so the classes
are recognised by name here and nothing is imported.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ilx.data import files

_PREFIX = "tensorflow_datasets.core.features."
_CONTENT = {
  "FeaturesDict": "featuresDict",
  "Dataset": "sequence",
  "Sequence": "sequence",
  "Tensor": "tensor",
  "Scalar": "tensor",
  "Text": "text",
  "Image": "image",
  "ClassLabel": "classLabel",
}


@dataclasses.dataclass(frozen=True)
class Feature:
  """One field.

  Attributes:
    kind: "tensor", "text" (byte strings, any Tensor of strings too), "image" (PNG or JPEG files) or "label".
    shape: of one value; None where it varies.
    dtype: of one value; ``object`` for text.
    encoding: how tensors are stored: "none" (lists of numbers), "bytes" (raw) or "zlib".
  """

  kind: str
  shape: tuple[int | None, ...]
  dtype: np.dtype
  encoding: str = "none"


@dataclasses.dataclass(frozen=True)
class Sequence:
  """A field repeated over time; ``feature`` is a ``Feature``, a ``Sequence`` or a dict of them."""

  feature: Any


Features = Feature | Sequence | dict[str, Any]


def flatten(features: Features, prefix: str = "") -> Iterator[tuple[str, Feature | Sequence]]:
  """Names joined by "/" and leaves of a tree of dicts; a ``Sequence`` is a leaf."""
  if isinstance(features, dict):
    for key, feature in features.items():
      yield from flatten(feature, f"{prefix}/{key}" if prefix else key)
  else:
    yield prefix, features


def read(path: Path) -> dict[str, Features]:
  """The tree in a ``features.json``.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is not understood; names file and field.
  """
  features = _read(files.read_json(path), path, "")
  if not isinstance(features, dict):
    raise ValueError(f"{path}: the top level must be a FeaturesDict")
  return features


def write(path: Path, features: Mapping[str, Features]) -> None:
  """Writes a ``features.json`` that TFDS reads; the same bytes for the same features."""
  files.write_text(path, json.dumps(to_json(dict(features)), indent=2, sort_keys=True) + "\n")


def to_json(feature: Features) -> dict[str, Any]:
  """The JSON of TFDS' Feature message; "label" is not written."""
  if isinstance(feature, dict):
    content = {"features": {key: to_json(value) for key, value in feature.items()}}
    return {"pythonClassName": f"{_PREFIX}features_dict.FeaturesDict", "featuresDict": content}
  if isinstance(feature, Sequence):
    content = {"feature": to_json(feature.feature), "length": "-1"}
    return {"pythonClassName": f"{_PREFIX}dataset_feature.Dataset", "sequence": content}
  shape = {"dimensions": [str(-1 if size is None else size) for size in feature.shape]}
  if feature.kind == "tensor":
    content = {"shape": shape, "dtype": feature.dtype.name, "encoding": feature.encoding}
    return {"pythonClassName": f"{_PREFIX}tensor_feature.Tensor", "tensor": content}
  if feature.kind == "image":
    content = {"shape": shape, "dtype": feature.dtype.name, "encodingFormat": feature.encoding}
    return {"pythonClassName": f"{_PREFIX}image_feature.Image", "image": content}
  if feature.kind == "text":
    return {"pythonClassName": f"{_PREFIX}text_feature.Text", "text": {}}
  raise ValueError(f"features: cannot write a {feature.kind}")


def from_json(content: Any, source: str = "features") -> Features:
  """The inverse of ``to_json``; ``source`` is named in errors."""
  return _read(content, source, "")


def _read(node: Any, path: Any, name: str) -> Features:
  where = f"{path}: field {name!r}" if name else f"{path}"
  if not isinstance(node, dict):
    raise ValueError(f"{where} is not an object with a class and its content")
  # Before 2022 TFDS wrote {"type", "content"}; the content is the same message.
  class_name = node.get("pythonClassName", node.get("type"))
  if not isinstance(class_name, str):
    raise ValueError(f"{where} names no class (pythonClassName)")
  kind = class_name.rsplit(".", 1)[-1]
  if kind not in _CONTENT:
    raise ValueError(f"{where} is a {class_name}, which is not supported; supported: {', '.join(_CONTENT)}")
  content = node.get(_CONTENT[kind], node.get("content", {}))
  try:
    if isinstance(content, str):
      content = json.loads(content)
    if kind == "FeaturesDict":
      children = content.get("features", {})
      return {key: _read(child, path, f"{name}/{key}" if name else key) for key, child in children.items()}
    if kind in ("Dataset", "Sequence"):
      return Sequence(_read(content["feature"], path, name))
    if kind == "Text":
      return Feature("text", (), np.dtype(object))
    if kind == "ClassLabel":
      return Feature("label", (), np.dtype(np.int64))
    dtype = content.get("dtype", "uint8" if kind == "Image" else "")
    shape = tuple(None if int(size) < 0 else int(size) for size in content.get("shape", {}).get("dimensions", ()))
    if dtype in ("string", "object"):
      return Feature("text", shape, np.dtype(object))
    dtype = np.dtype(dtype)
    if dtype.kind not in "fiub":
      raise ValueError(f"dtype {dtype} is not supported")
    if kind == "Image":
      return Feature("image", shape, dtype, content.get("encodingFormat", "png"))
    encoding = content.get("encoding", "none").lower()
    if encoding not in ("none", "bytes", "zlib"):
      raise ValueError(f"encoding {encoding!r} is not supported")
    return Feature("tensor", shape, dtype, encoding)
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(f"{where} ({kind}) is malformed: {error}") from None
  except ValueError as error:
    if str(error).startswith(f"{path}"):
      raise
    raise ValueError(f"{where} ({kind}): {error}") from None
