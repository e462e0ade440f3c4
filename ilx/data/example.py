"""The wire format of ``tf.train.Example``, without TensorFlow or protobuf.

An Example maps names to lists of floats, of integers or of byte strings. On the wire (proto3, little endian)::

  Example   { 1: Features }                 Feature   { 1: BytesList | 2: FloatList | 3: Int64List }
  Features  { 1: entry { 1: name, 2: Feature } ... }   each list { 1: values }, numbers packed or one by one

Packed floats already have the layout of an array, and integers below 128 (flags, most discrete actions) that of
a uint8 array, so both are views into the buffer: a whole episode costs a few microseconds per field.

Source: https://protobuf.dev/programming-guides/encoding and tensorflow/core/example/{example,feature}.proto.
"""

from collections.abc import Container, Mapping

import numpy as np

_FLOAT = np.dtype("<f4")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def parse(buffer: bytes, wanted: Container[str] | None = None) -> dict[str, np.ndarray | list[bytes]]:
  """The lists of one serialised Example by name.

  Args:
    buffer: one serialised Example.
    wanted: names of the lists to return; the others are passed over. All by default.

  Returns:
    Floats as float32 ``[n]``; integers as int64 ``[n]``, or as uint8 ``[n]`` where all are in [0, 128); byte
    strings as a list. Packed floats and the uint8 arrays are read-only views into ``buffer``, not always
    aligned. A feature without a list is an empty list.

  Raises:
    ValueError: where the bytes are no Example; names the feature and the offset. Takes no memory beyond a small
      multiple of the buffer.
  """
  if not isinstance(buffer, bytes):
    buffer = bytes(buffer)
  features: dict[str, np.ndarray | list[bytes]] = {}
  name = ""
  offset, start, size = 0, 0, len(buffer)
  try:
    while offset < size:
      tag, start, offset = _field(buffer, offset, size)
      if tag != 0x0A:
        continue
      entry, entries_end = start, offset
      while entry < entries_end:
        tag, start, entry = _field(buffer, entry, entries_end)
        if tag == 0x0A:
          if usual := _usual_entry(buffer, start, entry):
            name, kind, begin = usual
            if wanted is None or name in wanted:
              if kind == 0x12:
                features[name] = np.frombuffer(buffer, _FLOAT, (entry - begin) // 4, begin)
              else:
                features[name] = _unpack_varints(buffer, begin, entry)
            continue
          name, span = "", (start, start)
          inside, entry_end = start, entry
          while inside < entry_end:
            tag, start, inside = _field(buffer, inside, entry_end)
            if tag == 0x0A:
              name = buffer[start:inside].decode()
            elif tag == 0x12:
              span = (start, inside)
            else:  # protobuf's libraries pass over the whole entry, without a word
              raise _MalformedError(start, f"field {tag >> 3} of wire type {tag & 7} beside a name and a value")
          if wanted is None or name in wanted:
            features[name] = _feature(buffer, *span)
  except _MalformedError as error:
    place, problem = error.args
    raise ValueError(f"malformed tf.train.Example: feature {name!r}, byte {place} of {size}: {problem}") from None
  except UnicodeDecodeError:
    raise ValueError(f"malformed tf.train.Example: byte {start} of {size}: a feature's name is not UTF-8") from None
  return features


def serialize(features: Mapping[str, np.ndarray | list[bytes]]) -> bytes:
  """One serialised Example, numbers packed, features in the order of their names (the same bytes every time).

  Args:
    features: by name: float arrays (stored as float32), integer or bool arrays (stored as int64), of any shape,
      flattened in C order; or lists of byte strings.

  Raises:
    TypeError: where a value is none of these.
  """
  entries = []
  for name in sorted(features):
    value = features[name]
    if isinstance(value, list):
      feature = _message(0x0A, b"".join(_message(0x0A, item) for item in value))
    else:
      value = np.asarray(value)
      if value.dtype.kind == "f":
        packed, tag = np.ascontiguousarray(value, "<f4").tobytes(), 0x12
      elif value.dtype.kind in "iub":
        packed, tag = _pack_varints(value.reshape(-1)), 0x1A
      else:
        raise TypeError(f"feature {name!r}: an Example has no {value.dtype}; floats, integers, bools and bytes only")
      feature = _message(tag, _message(0x0A, packed) if packed else b"")
    entries.append(_message(0x0A, _message(0x0A, name.encode()) + _message(0x12, feature)))
  return _message(0x0A, b"".join(entries))


class _MalformedError(Exception):
  """(offset, problem)."""


def _usual_entry(buffer: bytes, start: int, end: int) -> tuple[str, int, int] | None:
  """(name, kind, where its values start) of an entry with one packed list of numbers that reaches to its end.

  So every writer lays them out: 0A <n> name 12 <length> (12 or 1A) <length> 0A <length> values. None for what is not
  just so, which ``_field`` reads step by step.
  """
  if end - start < 12:
    return None
  at = start + 2 + buffer[start + 1]
  if at + 9 > end or buffer[start] != 0x0A or buffer[start + 1] > 0x7F or buffer[at] != 0x12:
    return None
  name_end, kind = at, 0
  for level in range(3):
    length = buffer[at + 1]
    at += 2
    if length > 0x7F:
      # Of two or three bytes; longer ones are rare.
      length += (buffer[at] - 1) << 7
      at += 1
      if buffer[at - 1] > 0x7F:
        length += (buffer[at] - 1) << 14
        at += 1
        if buffer[at - 1] > 0x7F:
          return None
    if at + length != end or length < 4:
      return None
    if level == 0:
      kind = buffer[at]
      if kind != 0x12 and kind != 0x1A:
        return None
    elif level == 1 and buffer[at] != 0x0A:
      return None
  if kind == 0x12 and length & 3:
    return None
  return buffer[start + 2 : name_end].decode(), kind, at


def _field(buffer: bytes, offset: int, end: int) -> tuple[int, int, int]:
  """The tag of the field at ``offset`` and where its content starts and ends, within ``end``."""
  tag = buffer[offset]
  if tag & 0x87 == _BYTES and offset + 2 < end:
    # By far the most frequent case, written out: a length of one or two bytes.
    length, high = buffer[offset + 1], buffer[offset + 2]
    if length < 0x80:
      start = offset + 2
    elif high < 0x80:
      length += (high - 1) << 7
      start = offset + 3
    else:
      length, start = _varint(buffer, offset + 1, end)
    stop = start + length
  else:
    tag, start = _varint(buffer, offset, end)
    wire = tag & 7
    if wire == _VARINT:
      stop = _varint(buffer, start, end)[1]
    elif wire == _BYTES:
      length, start = _varint(buffer, start, end)
      stop = start + length
    elif wire == _FIXED32:
      stop = start + 4
    elif wire == _FIXED64:
      stop = start + 8
    else:
      raise _MalformedError(offset, f"wire type {wire} is not used here")
  if tag < 8:
    raise _MalformedError(offset, "field number 0")
  if stop > end:
    raise _MalformedError(offset, f"a field of {stop - start} bytes in {end - start}")
  return tag, start, stop


def _varint(buffer: bytes, offset: int, end: int) -> tuple[int, int]:
  """The unsigned integer at ``offset`` and the offset behind it."""
  value = shift = 0
  for place in range(offset, end if end < offset + 10 else offset + 10):
    byte = buffer[place]
    if byte < 0x80:
      return (value | byte << shift) & 0xFFFFFFFFFFFFFFFF, place + 1
    value |= (byte & 0x7F) << shift
    shift += 7
  raise _MalformedError(offset, "an integer without end")


def _feature(buffer: bytes, offset: int, end: int) -> np.ndarray | list[bytes]:
  """The list of a Feature message; of several kinds the last one counts, several of one kind are joined."""
  kind, parts = 0, []
  while offset < end:
    tag, start, offset = _field(buffer, offset, end)
    if tag & 7 != _BYTES or not 1 <= tag >> 3 <= 3:
      continue
    if tag >> 3 != kind:
      kind, parts = tag >> 3, []
    if kind == 1:
      parts.extend(_bytes_values(buffer, start, offset))
    elif kind == 2:
      parts.extend(_float_values(buffer, start, offset))
    else:
      parts.extend(_int_values(buffer, start, offset))
  if kind < 2:
    return parts
  if len(parts) == 1:
    return parts[0]
  return np.concatenate(parts) if parts else np.empty(0, np.float32 if kind == 2 else np.int64)


def _bytes_values(buffer: bytes, offset: int, end: int) -> list[bytes]:
  values = []
  while offset < end:
    tag, start, offset = _field(buffer, offset, end)
    if tag == 0x0A:
      values.append(buffer[start:offset])
  return values


def _float_values(buffer: bytes, offset: int, end: int) -> list[np.ndarray]:
  # One by one, every value is a tag and four bytes.
  if (end - offset) % 5 == 0 and offset < end and buffer[offset] == 0x0D:
    table = np.frombuffer(buffer, np.uint8, end - offset, offset).reshape(-1, 5)
    if np.all(table[:, 0] == 0x0D):
      return [table[:, 1:].copy().view("<f4")[:, 0]]
  parts = []
  while offset < end:
    tag, start, offset = _field(buffer, offset, end)
    if tag == 0x0A:
      if (offset - start) % 4:
        raise _MalformedError(start, f"{offset - start} bytes of floats, not a multiple of 4")
      parts.append(np.frombuffer(buffer, "<f4", (offset - start) // 4, start))
    elif tag == 0x0D:
      parts.append(np.frombuffer(buffer, "<f4", 1, start))
  return parts


def _int_values(buffer: bytes, offset: int, end: int) -> list[np.ndarray]:
  parts, loose = [], []
  while offset < end:
    tag, start, offset = _field(buffer, offset, end)
    if tag == 0x08:
      loose.append(_varint(buffer, start, offset)[0])
    elif tag == 0x0A:
      if loose:
        parts, loose = [*parts, np.array(loose, np.uint64).view(np.int64)], []
      parts.append(_unpack_varints(buffer, start, offset))
  if loose:
    parts.append(np.array(loose, np.uint64).view(np.int64))
  return parts


def _unpack_varints(buffer: bytes, offset: int, end: int) -> np.ndarray:
  """Base-128 integers, all at once: the k-th byte of each adds its seven bits at 7k."""
  content = np.frombuffer(buffer, np.uint8, end - offset, offset)
  if buffer[offset:end].isascii():  # every integer is one byte
    return content
  if content[-1] >= 0x80:
    raise _MalformedError(end - 1, "an integer without end")
  last = np.flatnonzero(content < 0x80)
  first = np.concatenate([[0], last[:-1] + 1])
  width = last - first
  if width.max() > 9:
    raise _MalformedError(offset + int(first[width.argmax()]), "an integer of more than 10 bytes")
  values = (content[first] & 0x7F).astype(np.uint64)
  for k in range(1, int(width.max()) + 1):
    longer = np.flatnonzero(width >= k)
    values[longer] |= (content[first[longer] + k] & np.uint64(0x7F)).astype(np.uint64) << np.uint64(7 * k)
  return values.view(np.int64)


def _pack_varints(values: np.ndarray) -> bytes:
  if values.dtype == bool or (values.size and values.min() >= 0 and values.max() < 0x80):
    return values.astype(np.uint8).tobytes()
  values = values.astype(np.int64).view(np.uint64)
  table = np.empty((values.size, 10), np.uint8)
  used = np.ones((values.size, 10), bool)
  for k in range(10):
    rest = values >> np.uint64(7 * k)
    table[:, k] = (rest & np.uint64(0x7F)).astype(np.uint8) | np.where(rest >= 0x80, 0x80, 0).astype(np.uint8)
    if k:
      used[:, k] = rest > 0
  return table[used].tobytes()


def _message(tag: int, content: bytes) -> bytes:
  length = len(content)
  head = bytearray([tag])
  while length >= 0x80:
    head.append(length & 0x7F | 0x80)
    length >>= 7
  head.append(length)
  return bytes(head) + content
