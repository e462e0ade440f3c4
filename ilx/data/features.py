"""``features.json``: what each field of a TFDS dataset is, read and written as plain JSON.

TFDS' own reader imports the modules that the file names; a dataset must not choose what code runs, so the classes
are recognised by name here and nothing is imported.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ilx.data import files

_PREFIX = "tensorflow_datasets.core.features."
# Where each class keeps its content.
_CONTENT = {
  "FeaturesDict": "featuresDict",
  "Dataset": "sequence",
  "Sequence": "sequence",
  "Tensor": "tensor",
  "Scalar": "tensor",
  "Text": "text",
  "Image": "image",
  "LabeledImage": "image",
  "Video": "video",
  "ClassLabel": "classLabel",
  "BBoxFeature": "boundingBox",
  "Audio": "audio",
  "Translation": "translation",
  "TranslationVariableLanguages": "translation",
}
_NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DTYPES = {name: np.dtype(name) for name in ("bool", *_NUMBERS)}
_DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
_STRINGS = ("string", "object", "str")
_OBJECT = np.dtype(object)


@dataclasses.dataclass(frozen=True)
class Feature:
  """One field.

  Attributes:
    kind: "tensor", "text" (strings, any Tensor of strings too), "image" (PNG or JPEG files), "label" (a class, as
      int64) or "unknown" (of a class or type that is not read; the rest of the dataset is).
    shape: of one value; None where it varies.
    dtype: of one value; ``object`` for text.
    encoding: how tensors are stored: "none" (lists of numbers), "bytes" (raw) or "zlib"; of images: "png", "jpeg".
    optional: whether a record may lack it.
    num_classes: of a label, or of a picture whose pixels are labels.
    names: of the classes; empty where they have none.
    problem: why an unknown field is not read.
  """

  kind: str
  shape: tuple[int | None, ...]
  dtype: np.dtype
  encoding: str = "none"
  optional: bool = False
  num_classes: int | None = None
  names: tuple[str, ...] = ()
  problem: str = ""

  @property
  def has_own_shape(self) -> bool:
    """Whether every value is stored with its shape: as "<name>/shape" and "<name>/value"."""
    return self.kind == "tensor" and self.shape.count(None) > 1


@dataclasses.dataclass(frozen=True)
class Sequence:
  """A field repeated, over time or within a step.

  Attributes:
    feature: a ``Feature``, a ``Sequence`` or a dict of them.
    length: how often; None where it varies.
  """

  feature: Any
  length: int | None = None


Features = Feature | Sequence | dict[str, Any]


def flatten(features: Features, prefix: str = "") -> Iterator[tuple[str, Feature | Sequence]]:
  """Names joined by "/" and leaves of a tree of dicts; a ``Sequence`` is a leaf."""
  if isinstance(features, dict):
    for key, feature in features.items():
      yield from flatten(feature, f"{prefix}/{key}" if prefix else key)
  else:
    yield prefix, features


def read(path: Path) -> dict[str, Features]:
  """The tree in a ``features.json``, with the names of classes from the files beside it.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is not understood; names file and field.
  """
  try:
    features = _read(files.read_json(path), path, (), path.parent)
  except RecursionError:
    raise ValueError(f"{path}: too many features one inside the other") from None
  if not isinstance(features, dict):
    raise ValueError(f"{path}: the top level must be a FeaturesDict")
  return features


def write(path: Path, features: Mapping[str, Features]) -> None:
  """Writes a ``features.json`` that TFDS reads, and files of class names beside it; the same bytes every time."""
  files.write_text(path, json.dumps(to_json(dict(features)), indent=2, sort_keys=True) + "\n")
  for key, feature in _labels(dict(features), ()):
    files.write_text(path.parent / _names_file(key), "\n".join(feature.names) + "\n")


def to_json(feature: Features, inside: bool = False) -> dict[str, Any]:
  """The JSON of TFDS' Feature message; ``inside`` a sequence or not.

  Raises:
    ValueError: for an unknown feature, and a label without a number of classes.
  """
  if isinstance(feature, dict):
    content = {"features": {key: to_json(value, inside) for key, value in feature.items()}}
    return {"pythonClassName": f"{_PREFIX}features_dict.FeaturesDict", "featuresDict": content}
  if isinstance(feature, Sequence):
    length = "-1" if feature.length is None else str(feature.length)
    content = {"feature": to_json(feature.feature, True), "length": length}
    # Both are stored alike. A Dataset gives its steps one by one, and cannot be inside another.
    is_dataset = isinstance(feature.feature, dict) and not inside
    name = "dataset_feature.Dataset" if is_dataset else "sequence_feature.Sequence"
    return {"pythonClassName": f"{_PREFIX}{name}", "sequence": content}
  shape = {"dimensions": [str(-1 if size is None else size) for size in feature.shape]}
  if feature.kind == "tensor" or (feature.kind == "text" and feature.shape):
    dtype = "string" if feature.kind == "text" else feature.dtype.name
    content = {"shape": shape, "dtype": dtype, "encoding": feature.encoding}
    if feature.optional:
      content["optional"] = True
    return {"pythonClassName": f"{_PREFIX}tensor_feature.Tensor", "tensor": content}
  if feature.kind == "image":
    content = {"shape": shape, "dtype": feature.dtype.name, "encodingFormat": feature.encoding}
    return {"pythonClassName": f"{_PREFIX}image_feature.Image", "image": content}
  if feature.kind == "text":
    return {"pythonClassName": f"{_PREFIX}text_feature.Text", "text": {}}
  if feature.kind == "label" and feature.num_classes is not None:
    content = {"numClasses": str(feature.num_classes)}
    return {"pythonClassName": f"{_PREFIX}class_label_feature.ClassLabel", "classLabel": content}
  raise ValueError(f"features: cannot write a {feature.kind}{feature.problem and ': '}{feature.problem}")


def from_json(content: Any, source: str = "features") -> Features:
  """The inverse of ``to_json``; ``source`` is named in errors."""
  return _read(content, source, (), None)


def _labels(features: Features, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Feature]]:
  """Fields whose classes have names."""
  if isinstance(features, dict):
    for name, feature in features.items():
      yield from _labels(feature, (*key, name))
  elif isinstance(features, Sequence):
    yield from _labels(features.feature, key)
  elif features.names:
    yield key, features


def _names_file(key: tuple[str, ...]) -> str:
  return "-".join(part.replace("/", ".") for part in key) + ".labels.txt"


def _names(folder: Path | None, key: tuple[str, ...]) -> tuple[str, ...]:
  path = folder and folder / _names_file(key)
  if not path or not os.path.isfile(path):  # also of a name that is too long
    return ()
  try:
    return tuple(line.strip() for line in path.read_text().split("\n") if line.strip())
  except ValueError as error:
    raise ValueError(f"{path} is no list of class names: {error}") from None


def _read(node: Any, path: Any, key: tuple[str, ...], folder: Path | None) -> Features:
  where = f"{path}: field {'/'.join(key)!r}" if key else f"{path}"
  if not isinstance(node, dict):
    raise ValueError(f"{where} is not an object with a class and its content")
  # Before 2022 TFDS wrote {"type", "content"}, at first with a content of its own.
  class_name = node.get("pythonClassName", node.get("type"))
  if not isinstance(class_name, str):
    raise ValueError(f"{where} names no class (pythonClassName)")
  kind = class_name.rsplit(".", 1)[-1]
  if kind not in _CONTENT:
    return _unknown(f"it is a {class_name}, which is not supported; supported: {', '.join(_CONTENT)}")
  content = node.get(_CONTENT[kind], node.get("content", {}))
  try:
    if isinstance(content, str):
      content = json.loads(content)
    if kind == "FeaturesDict":
      is_message = "pythonClassName" in node or "proto_cls" in node
      children = content.get("features", {}) if is_message else content
      return {str(name): _read(child, path, (*key, name), folder) for name, child in children.items()}
    if kind in ("Dataset", "Sequence"):
      length = int(-1 if content.get("length") is None else content["length"])
      return Sequence(_read(content["feature"], path, key, folder), None if length < 0 else length)
    return _leaf(kind, content, _names(folder, key))
  except (AttributeError, KeyError, TypeError, OverflowError) as error:
    raise ValueError(f"{where} ({kind}) is malformed: {error}") from None
  except ValueError as error:
    if str(error).startswith((f"{path}", f"{folder}")):
      raise
    raise ValueError(f"{where} ({kind}): {error}") from None


def _leaf(kind: str, content: dict[str, Any], names: tuple[str, ...]) -> Features:
  """A field that holds no others, and those that stand for a fixed arrangement of them."""
  if kind == "Text":
    if content.get("use_encoder"):
      return _unknown("it is text as numbers of a vocabulary, which TFDS has given up, too")
    return Feature("text", (), _OBJECT)
  if kind == "ClassLabel":
    return Feature("label", (), _DTYPES["int64"], num_classes=_classes(content), names=names)
  if kind == "Translation":
    return {language: Feature("text", (), _OBJECT) for language in sorted(content["languages"])}
  if kind == "TranslationVariableLanguages":
    return Sequence({name: Feature("text", (), _OBJECT) for name in ("language", "translation")})
  if kind == "BBoxFeature":
    return Feature("tensor", (4,), _DTYPES["float32"])
  given = content.get("shape") or {}
  sizes = given if isinstance(given, list) else given.get("dimensions", ())
  shape = tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)
  dtype = content.get("dtype") or {"Image": "uint8", "LabeledImage": "uint8", "Video": "uint8"}.get(kind)
  if not isinstance(dtype, str):
    raise ValueError(f"dtype is {dtype!r}")
  optional = bool(content.get("optional", False))
  if dtype in _STRINGS:
    return Feature("text", shape, _OBJECT, optional=optional)
  if dtype not in _DTYPES:
    return _unknown(f"dtype {dtype} is not supported")
  if kind in ("Image", "LabeledImage", "Video"):
    encoding = content.get("encodingFormat") or content.get("encoding_format") or "png"
    if kind == "Video":
      frames, *shape = shape or (None, None, None, 3)
      return Sequence(Feature("image", tuple(shape), _DTYPES[dtype], encoding), frames)
    shape = shape or (None, None, 1 if kind == "LabeledImage" else 3)
    classes = _classes(content.get("label") or {}) if kind == "LabeledImage" else None
    return Feature("image", shape, _DTYPES[dtype], encoding, num_classes=classes, names=names)
  if content.get("lazyDecode") or content.get("lazy_decode"):
    return _unknown("audio that is stored as files is not supported")
  encoding = str(content.get("encoding") or "none").lower()
  if encoding not in ("none", "bytes", "zlib"):
    return _unknown(f"encoding {encoding!r} is not supported")
  return Feature("tensor", shape, _DTYPES[dtype], encoding, optional)


def _classes(content: dict[str, Any]) -> int | None:
  number = content.get("numClasses", content.get("num_classes"))
  return None if number is None else int(number)


def _unknown(problem: str) -> Feature:
  return Feature("unknown", (), _OBJECT, problem=problem)
