"""Random damage: what disks, networks and bad programs do to files, and what somebody might do on purpose."""

import copy
import json
import random
from typing import Any

# Numbers that lengths and shapes should not be.
_NUMBERS = (0, 1, -1, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63), 2**64 - 1)
_VALUES = (None, True, "", "0", "x" * 300, [], {}, [[]], 1e308, -0.5, *_NUMBERS)


def blob(rng: random.Random, seeds: list[bytes]) -> bytes:
  """One of the seeds with one to eight changes."""
  content = bytearray(rng.choice(seeds))
  for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
    _CHANGES[rng.randrange(len(_CHANGES))](rng, content, seeds)
  return bytes(content)


def _flip(rng: random.Random, content: bytearray, seeds: list[bytes]) -> None:
  if content:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, content: bytearray, seeds: list[bytes]) -> None:
  if content:
    content[rng.randrange(len(content))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _number(rng: random.Random, content: bytearray, seeds: list[bytes]) -> None:
  size = rng.choice((2, 4, 8))
  place = rng.randrange(len(content) + 1)
  value = rng.choice(_NUMBERS) % 256**size
  content[place : place + size] = value.to_bytes(size, "little")


def _varint(rng: random.Random, content: bytearray, seeds: list[bytes]) -> None:
  place = rng.randrange(len(content) + 1)
  content[place : place + rng.randrange(3)] = b"\xff" * rng.randrange(1, 11) + bytes([rng.randrange(128)])


def _cut(rng: random.Random, content: bytearray, seeds: list[bytes]) -> None:
  start = rng.randrange(len(content) + 1)
  del content[start : start + rng.choice((1, 2, 4, 16, len(content)))]


def _insert(rng: random.Random, content: bytearray, seeds: list[bytes]) -> None:
  place = rng.randrange(len(content) + 1)
  content[place:place] = rng.randbytes(rng.choice((1, 2, 8, 64)))


def _repeat(rng: random.Random, content: bytearray, seeds: list[bytes]) -> None:
  start = rng.randrange(len(content) + 1)
  piece = content[start : start + rng.choice((1, 4, 32, 256))]
  content[start:start] = piece * rng.choice((1, 2, 8))


def _splice(rng: random.Random, content: bytearray, seeds: list[bytes]) -> None:
  other = rng.choice(seeds)
  start, place = rng.randrange(len(other) + 1), rng.randrange(len(content) + 1)
  length = rng.choice((4, 32, len(other)))
  content[place : place + length] = other[start : start + length]


_CHANGES = (_flip, _flip, _set, _number, _varint, _cut, _insert, _repeat, _splice)


def document(rng: random.Random, seeds: list[Any]) -> bytes:
  """A JSON document: one of the seeds with values replaced, removed, or its text damaged."""
  if rng.random() < 0.3:
    return blob(rng, [json.dumps(seed).encode() for seed in seeds])
  content = json.loads(json.dumps(rng.choice(seeds)))
  for _ in range(rng.choice((1, 1, 2, 4))):
    content = _tree(rng, content, seeds)
  return json.dumps(content).encode()


def _tree(rng: random.Random, node: Any, seeds: list[Any]) -> Any:
  """Goes down a random way and changes what is there."""
  if isinstance(node, dict) and node and rng.random() < 0.9:
    key = rng.choice(list(node))
    if (chance := rng.random()) < 0.1:
      del node[key]
    elif chance < 0.15:
      node[rng.choice(("", "steps", "/", "..", key + "x"))] = node.pop(key)
    else:
      node[key] = _tree(rng, node[key], seeds)
    return node
  if isinstance(node, list) and node and rng.random() < 0.9:
    place = rng.randrange(len(node))
    if (chance := rng.random()) < 0.1:
      del node[place]
    elif chance < 0.2:
      node.insert(place, copy.deepcopy(rng.choice(_VALUES)))
    else:
      node[place] = _tree(rng, node[place], seeds)
    return node
  return copy.deepcopy(rng.choice((*_VALUES, str(rng.choice(_NUMBERS)), node)))
