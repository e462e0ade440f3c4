"""What a compiled program sends between devices, read from XLA's text of it (HLO)."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "s8": 8, "u8": 8, "bf16": 16, "f16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "f64": 64}
_COMPUTATION = re.compile(r"^(ENTRY )?%?(\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


class Collective(NamedTuple):
  """One instruction that all devices of a group take part in.

  Attributes:
    kind: one of ``KINDS``.
    bytes: of the arrays as a whole: an all-gather's results, an all-reduce's, a reduce-scatter's arguments.
    widened: the same, were every float of 16 bits one of 32, as on CPUs.
    group: the devices of the first group.
    times: how often it is run: the product of the lengths of the loops around it, 1 for one of unknown length.
    sliced: of an all-reduce, whether each device uses only a part of the result; compilers for GPUs and TPUs make it a
      reduce-scatter, which sends half as much.
  """

  kind: str
  bytes: int
  widened: int
  group: tuple[int, ...]
  times: int
  sliced: bool


class _Instruction(NamedTuple):
  name: str
  type: str
  opcode: str
  rest: str  # arguments and attributes


def collectives(text: str) -> list[Collective]:
  """All of them, of the program's entry and of what it calls.

  Raises:
    ValueError: for text that is no HLO module, and for what would be counted wrongly: asynchronous collectives and
      unknown ways to write groups and types.
  """
  computations, entry = _computations(text)
  return list(_walk(computations, entry, 1))


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  computations: dict[str, list[_Instruction]] = {}
  entry, current = "", None
  for line in text.splitlines():
    if found := _COMPUTATION.match(line):
      current = computations.setdefault(found[2], [])
      entry = found[2] if found[1] else entry
    elif line.startswith("}"):
      current = None
    elif current is not None and (found := _INSTRUCTION.match(line)):
      current.append(_Instruction(*found.groups()))
  if not entry:
    raise ValueError("the text has no ENTRY: it is no HLO module")
  return computations, entry


def _walk(computations: dict[str, list[_Instruction]], name: str, times: int) -> Iterator[Collective]:
  for one in computations[name]:
    if one.opcode.removesuffix("-start") in KINDS:
      if one.opcode.endswith("-start"):
        raise ValueError(f"{one.name}: asynchronous collectives are not read")
      sliced = one.opcode == "all-reduce" and _is_sliced(computations[name], one.name)
      arrays = one.type if one.opcode != "reduce-scatter" else _types(computations[name], one.rest)
      yield Collective(one.opcode, _bytes(arrays), _bytes(arrays, 32), _group(one), times, sliced)
    elif one.opcode == "while":
      yield from _walk(computations, _called(one, "body"), times * _trips(computations, one))
    elif one.opcode in ("call", "fusion"):
      yield from _walk(computations, _called(one, "to_apply|calls"), times)
    elif one.opcode == "conditional":
      for branch in re.findall(r"%([^\s,{}]+)", re.search(r"branch_computations=\{(.*?)\}", one.rest)[1]):
        yield from _walk(computations, branch, times)


def _called(one: _Instruction, attribute: str) -> str:
  return re.search(rf"(?:{attribute})=%?([^\s,]+)", one.rest)[1]


def _trips(computations: dict[str, list[_Instruction]], loop: _Instruction) -> int:
  """As the compiler knows; else of a loop that counts from 0 to a constant; 1 of one whose length is an argument."""
  if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
    return int(known[1])
  condition = computations[_called(loop, "condition")]
  constants = {
    one.name: int(found[1]) for one in condition if (found := re.match(r"(-?\d+)\)", one.rest)) and "[]" in one.type
  }
  compared = [one for one in condition if one.opcode == "compare" and "direction=LT" in one.rest]
  limits = [constants[name] for one in compared for name in re.findall(r"%([^\s,)]+)", one.rest) if name in constants]
  return limits[0] if len(limits) == 1 else 1


def _is_sliced(instructions: list[_Instruction], name: str) -> bool:
  """Whether nothing but slices is taken of it, be it reshaped before."""
  users = [one for one in instructions if re.search(rf"%{re.escape(name)}[,)]", one.rest)]
  follows = ("bitcast", "convert", "copy", "reshape", "transpose")
  return bool(users) and all(
    one.opcode == "dynamic-slice" or (one.opcode in follows and _is_sliced(instructions, one.name)) for one in users
  )


def _types(instructions: list[_Instruction], rest: str) -> str:
  """Of the arguments."""
  types = {one.name: one.type for one in instructions}
  return " ".join(types[name] for name in re.findall(r"%([^\s,)]+)", rest.split(")")[0]))


def _bytes(types: str, least_bits: int = 0) -> int:
  found = 0
  for dtype, shape in _ARRAY.findall(types):
    if dtype not in _BITS:
      raise ValueError(f"the type {dtype} is not known")
    bits = max(_BITS[dtype], least_bits) if dtype in ("bf16", "f16") else _BITS[dtype]
    found += bits // 8 * math.prod(int(n) for n in shape.split(",") if n)
  return found


def _group(one: _Instruction) -> tuple[int, ...]:
  """Three ways to write groups: all of them, as a permuted range, and by axes of a mesh."""
  if found := re.search(r"replica_groups=\{\{([\d,]+)\}", one.rest):
    return tuple(map(int, found[1].split(",")))
  if found := re.search(r"replica_groups=\[([\d,]+)\](<=\S+?),? ", one.rest + " "):
    sizes = _numbers(found[1])
    return tuple(_range(found[2]).reshape(sizes)[0].tolist())
  if found := re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\]T?.*?)\))? ?\{(.*?)\}", one.rest):
    axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
    named = re.findall(r"'(\w+)'", found[3])
    if ":" not in found[3] and set(named) <= set(axes):
      count = math.prod(axes.values())
      devices = (_range(f"<={found[2]}") if found[2] else np.arange(count)).reshape(tuple(axes.values()))
      index = tuple(slice(None) if name in named else 0 for name in axes)
      return tuple(devices[index].reshape(-1).tolist())
  raise ValueError(f"{one.name}: the groups are written in an unknown way: {one.rest[:300]}")


def _range(text: str) -> np.ndarray:
  """``<=[4,2]T(1,0)``: 0 to 7, shaped, transposed, and flat again."""
  found = re.match(r"<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
  devices = np.arange(math.prod(_numbers(found[1]))).reshape(_numbers(found[1]))
  return (devices.transpose(_numbers(found[2])) if found[2] else devices).reshape(-1)


def _numbers(text: str) -> tuple[int, ...]:
  return tuple(map(int, text.split(",")))
