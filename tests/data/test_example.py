"""The Example wire format, against protobuf's own serialiser and parser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow_datasets.proto import tf_example_pb2

from ilx.data import example

_VALUES = st.one_of(
  hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)),
  hnp.arrays(np.int64, st.integers(0, 40)),
  hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(0, 300)),
  st.lists(st.binary(max_size=200), max_size=6),
)
_FEATURES = st.dictionaries(st.text(max_size=20), _VALUES, max_size=6)


def _proto(features) -> tf_example_pb2.Example:
  result = tf_example_pb2.Example()
  for name, value in features.items():
    feature = result.features.feature[name]
    if isinstance(value, list):
      feature.bytes_list.value.extend(value)
      feature.bytes_list.SetInParent()
    elif value.dtype.kind == "f":
      feature.float_list.value.extend(value)
      feature.float_list.SetInParent()
    else:
      feature.int64_list.value.extend(value)
      feature.int64_list.SetInParent()
  return result


def _values(proto) -> dict:
  """By name, what a proto holds: a list of bytes, or an array."""
  result = {}
  for name, feature in proto.features.feature.items():
    kind = feature.WhichOneof("kind")
    values = getattr(feature, kind).value if kind else []
    dtype = {"float_list": np.float32, "int64_list": np.int64}.get(kind)
    result[name] = np.array(values, dtype) if dtype else list(values)
  return result


def _assert_same(found, expected):
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    if isinstance(value, list):
      assert found[name] == value
    else:
      assert found[name].dtype.kind in ("f" if value.dtype.kind == "f" else "iu")
      np.testing.assert_array_equal(found[name], value)


@settings(max_examples=150, deadline=None)
@given(_FEATURES)
def test_parses_what_protobuf_writes(features):
  _assert_same(example.parse(_proto(features).SerializeToString()), features)


@settings(max_examples=150, deadline=None)
@given(_FEATURES)
def test_protobuf_parses_what_is_written(features):
  _assert_same(_values(tf_example_pb2.Example.FromString(example.serialize(features))), features)


def test_floats_are_views_into_the_buffer():
  buffer = example.serialize({"x": np.arange(5, dtype=np.float32), "flag": np.array([True, False])})
  parsed = example.parse(buffer)
  for value in parsed.values():
    assert np.shares_memory(value, np.frombuffer(buffer, np.uint8))
    assert not value.flags.writeable
  assert parsed["flag"].dtype == np.uint8


def _message(field: int, content: bytes) -> bytes:
  assert len(content) < 128
  return bytes([field << 3 | 2, len(content)]) + content


def _wrap(feature: bytes, name: bytes = b"x") -> bytes:
  return _message(1, _message(1, _message(1, name) + _message(2, feature)))


@pytest.mark.parametrize(
  ("feature", "expected"),
  [
    (_message(2, b"\x0d\x00\x00\x80\x3f\x0d\x00\x00\x00\x40"), np.array([1, 2], np.float32)),  # floats one by one
    (_message(2, b"\x0d\x00\x00\x80\x3f\x0a\x04\x00\x00\x00\x40"), np.array([1, 2], np.float32)),  # and packed
    (_message(3, b"\x08\x05\x08\xac\x02"), np.array([5, 300])),  # integers one by one
    (_message(3, b"\x08\x05\x0a\x02\x06\x07\x08\x01"), np.array([5, 6, 7, 1])),
    (_message(3, _message(1, b"\x01")) + _message(3, _message(1, b"\x02")), np.array([1, 2])),  # one kind joins
    (_message(2, b"") + _message(3, _message(1, b"\x02")), np.array([2])),  # the last kind counts
    (b"\x20\x07" + _message(3, _message(1, b"\x02")) + _message(9, b"abc"), np.array([2])),  # unknown fields
    (b"", []),
  ],
)
def test_every_encoding_that_protobuf_accepts(feature, expected):
  buffer = _wrap(feature)
  _assert_same(_values(tf_example_pb2.Example.FromString(buffer)), {"x": expected})
  _assert_same(example.parse(buffer), {"x": expected})


def test_repeated_names_and_split_messages():
  one, two = (_wrap(_message(3, _message(1, bytes([value])))) for value in (1, 2))
  _assert_same(example.parse(one + two), {"x": np.array([2])})
  both = example.parse(one + _wrap(_message(3, _message(1, b"\x03")), b"y"))
  _assert_same(both, {"x": np.array([1]), "y": np.array([3])})


def test_extreme_integers():
  values = np.array([0, 127, 128, 2**31, 2**63 - 1, -1, -(2**63)])
  _assert_same(example.parse(example.serialize({"x": values})), {"x": values})


def test_same_bytes_whatever_the_order():
  first = example.serialize({"a": np.ones(2, np.float32), "b": [b"x"]})
  assert first == example.serialize({"b": [b"x"], "a": np.ones(2, np.float32)})


def test_serialize_refuses_what_has_no_list():
  with pytest.raises(TypeError, match=r"'x'.*complex"):
    example.serialize({"x": np.ones(2, complex)})


@pytest.mark.parametrize(
  ("buffer", "problem"),
  [
    (_wrap(_message(2, b"\x0a\x03abc")), "'x'.*not a multiple of 4"),
    (_wrap(_message(3, b"\x0a\x02\x01\x80")), "'x'.*integer without end"),
    (_wrap(_message(3, _message(1, b"\x80" * 11 + b"\x01"))), "'x'.*more than 10 bytes"),
    (_wrap(_message(2, b"\x0a\x08abcd")), "'x'.*field of 8 bytes in 4"),
    (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "byte 0 of 10"),
    (b"\x0b", "wire type 3"),
    (b"\x02\x00", "field number 0"),
    (_wrap(b"", b"\xff"), "not UTF-8"),
    (_message(1, _message(1, b"\x0a\x01x\x08\x01")), "'x'.*field 1 of wire type 0 beside a name and a value"),
  ],
)
def test_malformed_bytes_are_named(buffer, problem):
  with pytest.raises(ValueError, match=problem):
    example.parse(buffer)


_SEED = _proto(
  {
    "steps/observation": np.linspace(0, 1, 70).astype(np.float32),
    "steps/action": np.arange(-5, 300),
    "steps/is_last": np.zeros(10, np.int64),
    "text": [b"abc", b"", b"d" * 150],
  }
).SerializeToString(deterministic=True)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutated_bytes_parse_like_protobuf_or_raise(data):
  mutated = bytearray(_SEED)
  for _ in range(data.draw(st.integers(1, 3))):
    mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
  mutated = bytes(mutated[: data.draw(st.integers(0, len(mutated)))])
  try:
    found = example.parse(mutated)
  except ValueError:
    return
  try:
    expected = _values(tf_example_pb2.Example.FromString(mutated))
  except Exception:  # protobuf is stricter in places, such as tags above 2**29
    return
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    if isinstance(value, list):
      assert list(found[name]) == value
    else:
      np.testing.assert_array_equal(found[name], value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_crash(buffer):
  try:
    found = example.parse(buffer)
  except ValueError:
    return
  assert isinstance(found, dict)


@settings(max_examples=50, deadline=None)
@given(_FEATURES, st.sets(st.text(max_size=20)))
def test_only_what_is_wanted(features, others):
  wanted = {name for index, name in enumerate(sorted(features)) if index % 2} | others
  found = example.parse(example.serialize(features), wanted)
  _assert_same(found, {name: value for name, value in features.items() if name in wanted})


@pytest.mark.parametrize("size", [1, 3, 20, 31, 32, 127, 128, 4_000, 5_000, 16_000, 500_000, 600_000])
def test_lists_of_every_size(size):
  """Whose lengths take one to four bytes."""
  rng = np.random.default_rng(size)
  features = {
    "reals": rng.standard_normal(size).astype(np.float32),
    "small": rng.integers(0, 128, size),
    "large": rng.integers(-(2**62), 2**62, size),
  }
  _assert_same(example.parse(_proto(features).SerializeToString()), features)
  _assert_same(example.parse(example.serialize(features)), features)


@pytest.mark.parametrize("tail", [b"", b"\x0a", b"\x0a\x00", b"\x0a\x7f", b"\x0a\x02ab", b"\x0a\x02ab\x12\x00"])
def test_entries_cut_at_the_end_of_the_buffer(tail):
  record = b"\x0a" + bytes([len(tail) + 2]) + b"\x0a" + bytes([len(tail)]) + tail
  try:
    assert all(not len(values) for values in example.parse(record).values())
  except ValueError as error:
    message = str(error)
    assert message.startswith("malformed tf.train.Example")
