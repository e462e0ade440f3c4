"""features.json, against TFDS' own feature classes."""

import json
import re
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ilx.data import features
from ilx.data.features import Feature, Sequence

_TREE = {
  "steps": Sequence(
    {
      "observation": {
        "state": Feature("tensor", (17,), np.dtype(np.float32)),
        "image": Feature("image", (8, 8, 3), np.dtype(np.uint8), "png"),
        "pixels": Feature("tensor", (4, 4), np.dtype(np.uint8), "bytes"),
      },
      "action": Feature("tensor", (), np.dtype(np.int32)),
      "is_last": Feature("tensor", (), np.dtype(bool)),
      "note": Feature("text", (), np.dtype(object)),
    }
  ),
}


def test_tfds_reads_what_is_written(tmp_path):
  features.write(tmp_path / "features.json", _TREE)
  found = tfds.features.FeaturesDict.from_config(str(tmp_path))
  expected = tfds.features.FeaturesDict(
    {
      "steps": tfds.features.Dataset(
        {
          "observation": {
            "state": tfds.features.Tensor(shape=(17,), dtype=np.float32),
            "image": tfds.features.Image(shape=(8, 8, 3), dtype=np.uint8, encoding_format="png"),
            "pixels": tfds.features.Tensor(shape=(4, 4), dtype=np.uint8, encoding="bytes"),
          },
          "action": tfds.features.Tensor(shape=(), dtype=np.int32),
          "is_last": tfds.features.Tensor(shape=(), dtype=np.bool_),
          "note": tfds.features.Text(),
        }
      )
    }
  )
  assert repr(found) == repr(expected)
  assert found.get_serialized_info() == expected.get_serialized_info()


def test_what_is_written_reads_back(tmp_path):
  features.write(tmp_path / "features.json", _TREE)
  assert features.read(tmp_path / "features.json") == _TREE


def _tfds_features():
  return tfds.features.FeaturesDict(
    {
      "steps": tfds.features.Dataset(
        {
          "observation": tfds.features.Tensor(shape=(2, None), dtype=np.float64, encoding="zlib"),
          "reward": tfds.features.Scalar(np.float32),
          "label": tfds.features.ClassLabel(num_classes=3),
          "text": tfds.features.Tensor(shape=(), dtype=np.str_),
          "list": tfds.features.Sequence(np.int64),
          "image": tfds.features.Image(),
        }
      ),
      "id": np.int64,
    }
  )


_EXPECTED = {
  "steps": Sequence(
    {
      "observation": Feature("tensor", (2, None), np.dtype(np.float64), "zlib"),
      "reward": Feature("tensor", (), np.dtype(np.float32)),
      "label": Feature("label", (), np.dtype(np.int64), num_classes=3),
      "text": Feature("text", (), np.dtype(object)),
      "list": Sequence(Feature("tensor", (), np.dtype(np.int64))),
      "image": Feature("image", (None, None, 3), np.dtype(np.uint8), "png"),
    }
  ),
  "id": Feature("tensor", (), np.dtype(np.int64)),
}


def test_reads_what_tfds_writes(tmp_path):
  _tfds_features().save_config(str(tmp_path))
  assert features.read(tmp_path / "features.json") == _EXPECTED


def test_reads_the_older_layout_of_type_and_content(tmp_path):
  (tmp_path / "features.json").write_text(json.dumps(_tfds_features().to_json()))
  assert features.read(tmp_path / "features.json") == _EXPECTED


def _tensor(**content):
  return {"pythonClassName": "x.Tensor", "tensor": {"shape": {}, "dtype": "float32", **content}}


@pytest.mark.parametrize(
  ("field", "problem"),
  [
    ({"pythonClassName": "my.code.Smell", "smell": {}}, r"it is a my\.code\.Smell, which is not supported"),
    (_tensor(dtype="bfloat17"), "dtype bfloat17 is not supported"),
    (_tensor(dtype="complex64"), "dtype complex64 is not supported"),
    (_tensor(encoding="lz4"), "encoding 'lz4' is not supported"),
  ],
)
def test_what_is_not_supported_leaves_the_rest_readable(tmp_path, field, problem):
  path = tmp_path / "features.json"
  fields = {"a": field, "b": _tensor()}
  path.write_text(json.dumps({"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": fields}}))
  found = features.read(path)
  assert found["b"] == Feature("tensor", (), np.dtype(np.float32))
  assert found["a"].kind == "unknown"
  assert re.search(problem, found["a"].problem)
  with pytest.raises(ValueError, match="cannot write a unknown"):
    features.write(tmp_path / "copy.json", found)


def test_flatten_joins_names():
  names = [name for name, _ in features.flatten(_TREE["steps"].feature)]
  assert names == ["observation/state", "observation/image", "observation/pixels", "action", "is_last", "note"]


@pytest.mark.parametrize(
  ("field", "problem"),
  [
    ({"tensor": {}}, "field 'a' names no class"),
    (3, "field 'a' is not an object"),
    (_tensor(dtype=3), "field 'a' .*dtype is 3"),
    (_tensor(shape={"dimensions": ["x"]}), "field 'a' "),
    (_tensor(shape=3), "field 'a' .*malformed"),
    ({"pythonClassName": "x.Dataset", "sequence": {}}, "field 'a' .*malformed"),
  ],
)
def test_errors_name_file_and_field(tmp_path, field, problem):
  path = tmp_path / "features.json"
  path.write_text(json.dumps({"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": {"a": field}}}))
  with pytest.raises(ValueError, match=problem) as error:
    features.read(path)
  assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[" * 100_000, '{"pythonClassName": "x.Text"}'])
def test_no_features_at_all(tmp_path, text):
  path = tmp_path / "features.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=str(path)):
    features.read(path)


def test_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"features\.json is missing"):
    features.read(tmp_path / "features.json")


def test_no_module_named_in_the_file_is_imported(tmp_path):
  path = tmp_path / "features.json"
  path.write_text(json.dumps({"pythonClassName": "antigravity.FeaturesDict", "featuresDict": {"features": {}}}))
  assert features.read(path) == {}
  assert "antigravity" not in sys.modules


def _every_class():
  f = tfds.features
  return f.FeaturesDict(
    {
      "box": f.BBoxFeature(),
      "label": f.ClassLabel(names=["left", "right"]),
      "inside": {"kind/of": f.ClassLabel(names=["a", "b", "c"])},
      "mask": f.LabeledImage(labels=4, shape=(8, 8, 1)),
      "video": f.Video(shape=(None, 8, 8, 3)),
      "clip": f.Video(shape=(5, 8, 8, 1), dtype=np.uint16),
      "sound": f.Audio(shape=(None, 2), dtype=np.int16),
      "file": f.Audio(lazy_decode=True),
      "optional": f.Scalar(np.float32, optional=True),
      "words": f.Translation(languages=["en", "de"]),
      "more": f.TranslationVariableLanguages(),
      "pair": f.Sequence(f.Sequence(np.float16), length=2),
      "text": f.Tensor(shape=(3,), dtype=np.str_),
    }
  )


def test_every_class_of_tfds(tmp_path):
  def number(name, *shape, **more):
    return Feature("tensor", shape, np.dtype(name), **more)

  text = Feature("text", (), np.dtype(object))
  _every_class().save_config(str(tmp_path))
  found = features.read(tmp_path / "features.json")
  assert found.pop("file").problem == "audio that is stored as files is not supported"
  assert found == {
    "box": number(np.float32, 4),
    "label": Feature("label", (), np.dtype(np.int64), num_classes=2, names=("left", "right")),
    "inside": {"kind/of": Feature("label", (), np.dtype(np.int64), num_classes=3, names=("a", "b", "c"))},
    "mask": Feature("image", (8, 8, 1), np.dtype(np.uint8), "png", num_classes=4),
    "video": Sequence(Feature("image", (8, 8, 3), np.dtype(np.uint8), "png")),
    "clip": Sequence(Feature("image", (8, 8, 1), np.dtype(np.uint16), "png"), 5),
    "sound": number(np.int16, None, 2),
    "optional": number(np.float32, optional=True),
    "words": {"de": text, "en": text},
    "more": Sequence({"language": text, "translation": text}),
    "pair": Sequence(Sequence(number(np.float16)), 2),
    "text": Feature("text", (3,), np.dtype(object)),
  }


def test_names_of_classes_are_written(tmp_path):
  tree = {"a": Sequence({"b/c": Feature("label", (), np.dtype(np.int64), num_classes=2, names=("x", "y"))})}
  features.write(tmp_path / "features.json", tree)
  assert features.read(tmp_path / "features.json") == tree
  assert tfds.features.FeaturesDict.from_config(str(tmp_path))["a"]["b/c"].names == ["x", "y"]


def test_the_oldest_layout(tmp_path):
  """{"type", "content"} with contents of their own, as TFDS wrote them until 2021."""
  path = tmp_path / "features.json"
  prefix = "tensorflow_datasets.core.features."

  def node(name, content):
    return {"type": prefix + name, "content": content}

  tree = node(
    "features_dict.FeaturesDict",
    {
      "features": node("tensor_feature.Tensor", {"shape": [2, None], "dtype": "float32", "encoding": "zlib"}),
      "steps": node(
        "sequence_feature.Sequence", {"feature": node("text_feature.Text", {"use_encoder": False}), "length": None}
      ),
      "image": node("image_feature.Image", {"shape": [4, 4, 3], "dtype": "uint8", "encoding_format": "jpeg"}),
      "label": node("class_label_feature.ClassLabel", {"num_classes": 7}),
      "ids": node("text_feature.Text", {"use_encoder": True}),
    },
  )
  path.write_text(json.dumps(tree))
  found = features.read(path)
  assert found.pop("ids").kind == "unknown"
  assert found == {
    "features": Feature("tensor", (2, None), np.dtype(np.float32), "zlib"),
    "steps": Sequence(Feature("text", (), np.dtype(object))),
    "image": Feature("image", (4, 4, 3), np.dtype(np.uint8), "jpeg"),
    "label": Feature("label", (), np.dtype(np.int64), num_classes=7),
  }


def test_sequences_in_sequences_are_read_by_tfds(tmp_path):
  number = Feature("tensor", (2,), np.dtype(np.float32))
  tree = {"steps": Sequence({"a": Sequence(number), "b": Sequence({"c": number}, 3)}), "d": Sequence(number, 4)}
  features.write(tmp_path / "features.json", tree)
  found = tfds.features.FeaturesDict.from_config(str(tmp_path))
  assert isinstance(found["steps"], tfds.features.Dataset)
  assert type(found["steps"]["a"]) is tfds.features.Sequence
  assert found["steps"]["a"].feature.shape == (2,)
  assert found["d"].shape == (4, 2)
  assert features.read(tmp_path / "features.json") == tree
