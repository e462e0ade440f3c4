"""Plays an exported policy with jax, flatbuffers, numpy and safetensors alone; a copy lies in every exported folder.

import play  # with the folder on sys.path
policy = play.load("policy")
carry, first = policy.carry(16), np.ones(16, bool)
action, carry = policy.act(policy.params, carry, (observation, np.zeros(16, np.float32), first), None)
"""

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

FORMAT, VERSION = "ilx policy", 1
SPEC, PARAMS, PROGRAMS = "policy.json", "params.safetensors", ("act", "sample", "carry")
# Bytes of the JSON; a policy of ten thousand arrays has less.
_MOST = 16 << 20
_DTYPES = {
  **{"BOOL": "bool", "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
  **{f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}
_KINDS = ("continuous", "discrete", "multi_discrete")
# Layers without parameters.
_OPERATIONS = {
  "relu": lambda x: np.maximum(x, 0),
  "tanh": np.tanh,
  "argmax": lambda x: x.argmax(-1).astype(np.int32),
}


class Policy(NamedTuple):
  """A policy that acts in B environments at once, any B of at least 1.

  That of ``load`` is one which ``ilx.evaluate`` plays; ``jax.jit`` and ``jax.vmap`` take its ``act``, the latter acting
  one by one. That of ``numpy_policy`` is called as it is: nothing of jax can compile it.

  Attributes:
    act: ``(params, carry, (observation, reward, is_first), key) -> (action, carry)``, the triple being an ``ilx.Step``:
      observations a tree like the data's, ``[B, ...]``; rewards float32 ``[B]``; is_first bool ``[B]``; of arrays or
      nested lists. (``numpy_policy``, which has no memory, takes None for both of the latter.) With the key None the
      action is the mode, with a key (threefry's, JAX's default) a sample. Actions are in the environment's units, in
      dicts where ``spec["action"]`` has parts. The carry resets itself where ``is_first``. Raises ValueError where an
      input is not what the policy was trained on, or of another B.
    carry: ``batch_size -> carry``, the memory before a first step: a dict of arrays by name.
    params: a dict of arrays by name.
    spec: what policy.json says.
  """

  act: Callable[..., tuple[Any, Any]]
  carry: Callable[[int], dict[str, Any]]
  params: dict[str, Any]
  spec: dict[str, Any]


def load(folder: str | os.PathLike) -> Policy:
  """The policy of a folder, as compiled by jax, for the platforms of ``spec["platforms"]``.

  Nothing of ilx is needed, nor is Python code read from the folder. It may be trusted as far as the programs in it are.

  Raises:
    ValueError: where a file is missing, damaged or not of an exported policy; names it.
  """
  import jax

  folder = pathlib.Path(folder)
  spec = read_spec(folder)
  params = {name: jax.numpy.asarray(x) for name, x in _read_params(folder, spec).items()}
  programs = {name: _read_program(folder, spec, name) for name in PROGRAMS}
  # vmap has no rule for exported programs; where a carry has its batch axis is theirs to know, so they run one by one.
  mode, sample = (jax.custom_batching.sequential_vmap(programs[name].call) for name in ("act", "sample"))

  def as_array(x: Any) -> Any:
    return x if isinstance(x, jax.Array | np.ndarray | np.generic) else jax.numpy.asarray(x)

  @jax.jit
  def run(params: Any, carry: Any, inputs: tuple[Any, ...], data: Any) -> tuple[Any, Any]:
    action, carry = mode(params, carry, *inputs) if data is None else sample(params, carry, *inputs, data)
    return _nested(spec["action"], action), carry

  def act(params: Any, carry: Any, step: tuple[Any, Any, Any], key: Any = None) -> tuple[Any, Any]:
    inputs = _inputs(spec, step, jax.tree_util, as_array)
    _check_carry(spec, carry, len(inputs[1]))
    if key is None:
      return run(params, carry, inputs, None)
    data = jax.random.key_data(key) if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    if data.shape != (2,):
      raise ValueError(f"key has {data.shape} numbers; expected one of jax.random.key(seed, impl='threefry2x32')")
    return run(params, carry, inputs, data)

  def carry(batch_size: int) -> dict[str, Any]:
    return programs["carry"].call(np.zeros(_checked_size(batch_size), np.int8))

  return Policy(act, carry, params, spec)


def numpy_policy(folder: str | os.PathLike) -> Policy:
  """The policy of a folder, computed by numpy; jax is not needed. It plays modes, not samples.

  It is for machines without jax and calls from Python; ``ilx.evaluate`` compiles what it plays, so give it ``load``'s.

  Raises:
    ValueError: where a file is missing, damaged or not of an exported policy; and where the policy is no MLP, or has a
      head other than "deterministic", "gaussian", "tanh_gaussian" and "categorical", in any part of its action.
  """
  folder = pathlib.Path(folder)
  spec = read_spec(folder)
  if spec["numpy"] is None:
    raise ValueError(
      f"{folder} is no MLP on flat observations with heads that numpy plays (deterministic, gaussian, tanh_gaussian, "
      "categorical); play its StableHLO with load, which needs jax"
    )
  params = _read_params(folder, spec)
  try:
    _check_numpy(spec, params)
  except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
    raise ValueError(f"{folder / SPEC} describes layers that are not those of its parameters: {error}") from None

  def act(params: Any, carry: Any, step: tuple[Any, Any, Any], key: Any = None) -> tuple[Any, Any]:
    if key is not None:
      raise ValueError("key: numpy plays modes alone; give None, or sample with load, which needs jax")
    given, _, _ = _inputs(spec, step, None, np.asarray)
    found = _forward(spec["numpy"], params, _features(spec, params, given))
    return _from_unit(spec["action"], params, found), carry

  def carry(batch_size: int) -> dict[str, Any]:
    _checked_size(batch_size)
    return {}

  return Policy(act, carry, params, spec)


def read_spec(folder: pathlib.Path) -> dict[str, Any]:
  """What policy.json says, checked; raises ValueError where it is none."""
  path = folder / SPEC
  try:
    size = path.stat().st_size
    if size > _MOST:
      raise ValueError(f"it has {size:,} bytes, at most {_MOST:,} are read")
    spec = json.loads(path.read_bytes())
    if not isinstance(spec, dict) or spec.get("format") != FORMAT:
      raise ValueError(f'it has no "format": "{FORMAT}"')
    if spec["format_version"] != VERSION:
      raise ValueError(f"it is of version {spec['format_version']!r} of the format, this program reads {VERSION}")
    for tree in ("params", "carry", "observation"):
      for name, leaf in spec[tree].items():
        known = leaf["dtype"] in _DTYPES.values() and isinstance(leaf["shape"], list)
        if not known or (tree != "carry" and not all(type(n) is int and 0 <= n < 2**48 for n in leaf["shape"])):
          raise ValueError(f"{tree} {name!r} is {leaf}")
    _check_action(spec["action"])
    for name in (PARAMS, *(f"{program}.stablehlo" for program in PROGRAMS)):
      if type(spec["files"][name]["bytes"]) is not int or not isinstance(spec["files"][name]["sha256"], str):
        raise ValueError(f"files {name!r} is {spec['files'][name]}")
    if not isinstance(spec["numpy"], list | None):
      raise ValueError("numpy is no list")
    # Of folders written before it was there, the number of frames is unknown.
    if type(spec.setdefault("frame_stack", 0)) is not int or spec["frame_stack"] < 0:
      raise ValueError(f"frame_stack is {spec['frame_stack']!r}")
  except OSError as error:
    raise ValueError(f"{path} cannot be read, so {folder} is no exported policy: {error.strerror}") from None
  except KeyError as error:
    raise ValueError(f"{path} is damaged or of no exported policy: it has no {error}") from None
  except (AttributeError, RecursionError, TypeError, ValueError) as error:
    raise ValueError(f"{path} is damaged or of no exported policy: {error}") from None
  return spec


def _check_action(action: Mapping[str, Any]) -> None:
  if "parts" in action:
    for part in action["parts"].values():
      _check_action(part)
  elif action["kind"] not in _KINDS:
    raise ValueError(f"action is {action['kind']!r}")


def _check_file(folder: pathlib.Path, spec: Mapping[str, Any], name: str) -> pathlib.Path:
  """The path of a file that is the one that was written."""
  path, expected = folder / name, spec["files"][name]
  try:
    size = path.stat().st_size
    if size != expected["bytes"]:
      raise ValueError(f"{path} has {size:,} bytes where {SPEC} says {expected['bytes']:,}: it is damaged")
    with path.open("rb") as file:
      if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
        raise ValueError(f"{path} has not the checksum that {SPEC} says: it is damaged")
  except OSError as error:
    raise ValueError(f"{path} cannot be read: {error.strerror}") from None
  return path


def _read_params(folder: pathlib.Path, spec: Mapping[str, Any]) -> dict[str, np.ndarray]:
  import safetensors

  path, expected = _check_file(folder, spec, PARAMS), spec["params"]
  try:
    with safetensors.safe_open(path, framework="np") as file:
      if set(file.keys()) != set(expected):
        raise ValueError("its arrays have other names")
      for name, leaf in expected.items():
        found = file.get_slice(name)
        if (found.get_shape(), _DTYPES.get(found.get_dtype())) != (leaf["shape"], leaf["dtype"]):
          raise ValueError(f"{name} is {found.get_dtype()} {found.get_shape()}")
      return {name: file.get_tensor(name) for name in expected}
  except (OSError, ValueError, safetensors.SafetensorError) as error:
    raise ValueError(f"{path} is damaged or not of this {SPEC}: {error}") from None


def _read_program(folder: pathlib.Path, spec: Mapping[str, Any], name: str) -> Any:
  from jax import export

  path = _check_file(folder, spec, f"{name}.stablehlo")
  try:
    program = export.deserialize(bytearray(path.read_bytes()))
  except Exception as error:  # whatever the parser of damaged bytes raises
    raise ValueError(f"{path} is no program that this jax can read: {type(error).__name__}: {error}") from None
  step = [(["b"], "float32"), (["b"], "bool")]
  observation = [(["b", *leaf["shape"]], leaf["dtype"]) for _, leaf in sorted(spec["observation"].items())]
  params, carry = ([(x["shape"], x["dtype"]) for _, x in sorted(spec[tree].items())] for tree in ("params", "carry"))
  expected = {"carry": [(["b"], "int8")], "act": [*params, *carry, *observation, *step]}
  expected["sample"] = [*expected["act"], ([2], "uint32")]
  texts = [([str(n) for n in shape], dtype) for shape, dtype in expected[name]]
  if [([str(n) for n in x.shape], str(x.dtype)) for x in program.in_avals] != texts:
    raise ValueError(f"{path} takes other arrays than {SPEC} says: it is of another policy")
  return program


def _checked_size(batch_size: int) -> int:
  if batch_size < 1:
    raise ValueError(f"batch_size is {batch_size}; at least 1")
  return batch_size


def _inputs(spec: Mapping[str, Any], step: Any, tree: Any, as_array: Callable[..., Any]) -> tuple[Any, Any, Any]:
  """The leaves of a batch of observations by name, rewards and is_first, all checked.

  ``tree``: ``jax.tree_util``; None for dicts, tuples and lists.
  """
  observation, reward, is_first = step
  given = _leaves(spec, observation, tree, as_array)
  batch_size = None
  for name, leaf in spec["observation"].items():
    of, x = f"observation {name!r}", given[name]
    if x.ndim == 0 or list(x.shape[1:]) != leaf["shape"]:
      raise ValueError(f"{of} is {list(x.shape)}; expected {['B', *leaf['shape']]}{_of_frames(spec)}")
    if len(x) == 0:
      raise ValueError(f"{of} is of no environment: {list(x.shape)}; expected a batch of at least 1")
    if len(x) != (batch_size or len(x)):
      raise ValueError(f"{of} is of {len(x)} environments, other parts of the observation are of {batch_size}")
    batch_size = len(x)
    if x.dtype == np.uint8 and "float" in leaf["dtype"]:
      raise ValueError(f"{of} is uint8; expected {leaf['dtype']}: pictures of bytes are divided by 255, of floats not")
    given[name] = _cast(of, x, leaf["dtype"])
  if tree is None and reward is None and is_first is None:
    return given, None, None  # what numpy plays looks at neither
  rewards = _cast("reward", _array("reward", reward, as_array), "float32")
  firsts = _array("is_first", is_first, as_array)
  for name, x in (("reward", rewards), ("is_first", firsts)):
    if x.shape != (batch_size,):
      raise ValueError(f"{name} is {list(x.shape)}; expected {[batch_size]}, as many as observations")
  return given, rewards, firsts.astype(bool)


def _of_frames(spec: Mapping[str, Any]) -> str:
  if not spec["frame_stack"]:
    return ""
  return (
    f"; the policy was trained on stacks of {spec['frame_stack']} frames, the newest last, where the episode's first "
    "frame is repeated in place of those before it"
  )


def _array(name: str, x: Any, as_array: Callable[..., Any], dtype: str = "float32") -> Any:
  try:
    if isinstance(x, list) and np.issubdtype(dtype, np.integer):
      x = np.asarray(x)  # int64, where jax would have int32
    return as_array(x)
  except (OverflowError, TypeError, ValueError) as error:
    if type(error).__name__ == "TracerArrayConversionError":  # jax's, which need not be there
      raise ValueError(
        "numpy cannot play inside of a program that jax compiles, as ilx.evaluate and jax.jit do; play with load"
      ) from None
    raise ValueError(f"{name} is no array of numbers: {error}") from None


def _cast(name: str, x: Any, dtype: str) -> Any:
  integers = np.issubdtype(x.dtype, np.integer) and np.issubdtype(dtype, np.integer)
  if not (integers or np.can_cast(x.dtype, dtype, "same_kind")):
    raise ValueError(f"{name} is {x.dtype}; expected {dtype}")
  if integers and not np.can_cast(x.dtype, dtype) and x.size:
    limits = np.iinfo(dtype)
    try:
      low, high = (int(end) for end in (np.min(x), np.max(x)))
    except TypeError:  # what jax traces has no numbers yet
      low, high = limits.min, limits.max
    if low < limits.min or high > limits.max:
      raise ValueError(f"{name} has numbers from {low} to {high}; expected {dtype}")
  return x if x.dtype == dtype else x.astype(dtype)


def _check_carry(spec: Mapping[str, Any], carry: Any, batch_size: int) -> None:
  if not isinstance(carry, Mapping):
    raise ValueError(f"carry is a {type(carry).__name__}; expected what the policy's carry(batch_size) or act returned")
  if set(carry) != set(spec["carry"]):
    raise ValueError(f"carry has {sorted(carry)}; the policy's has {sorted(spec['carry'])}")
  for name, leaf in spec["carry"].items():
    shape = np.shape(carry[name])
    if leaf["shape"][:1] == ["b"] and shape[:1] != (batch_size,):
      raise ValueError(f"carry {name!r} is {list(shape)}; the observation is of {batch_size} environments")


def _leaves(spec: Mapping[str, Any], observation: Any, tree: Any, as_array: Callable[..., Any]) -> dict[str, Any]:
  """The leaves of a tree of observations by name. A list is an array, or part of the tree where the policy's has it."""
  for lists in (False, True):
    if tree:
      paths = tree.tree_leaves_with_path(observation, is_leaf=None if lists else lambda x: isinstance(x, list))
      found = {tree.keystr(path, simple=True, separator="/") or "observation": x for path, x in paths}
    else:
      found = _flat(observation, (Mapping, tuple, list) if lists else (Mapping, tuple))
    if set(found) == set(spec["observation"]):
      return {
        name: _array(f"observation {name!r}", found[name], as_array, leaf["dtype"])
        for name, leaf in spec["observation"].items()
      }
    if not lists:
      names = sorted(found)
  raise ValueError(f"the observation has {names}; the policy's has {sorted(spec['observation'])}")


def _flat(tree: Any, nodes: tuple[type, ...], prefix: str = "") -> dict[str, Any]:
  if not isinstance(tree, nodes):
    return {prefix or "observation": tree}
  if not isinstance(tree, Mapping):
    tree = dict(zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True))
  found = {}
  for name, x in tree.items():
    found |= _flat(x, nodes, f"{prefix}/{name}" if prefix else str(name))
  return found


def _nested(action: Mapping[str, Any], found: Mapping[str, Any], name: str = "") -> Any:
  if "parts" not in action:
    return found[name or "action"]
  return {key: _nested(part, found, f"{name}/{key}" if name else key) for key, part in action["parts"].items()}


def _check_numpy(spec: Mapping[str, Any], params: Mapping[str, np.ndarray]) -> None:
  """Raises where the layers cannot be computed, or end in another action."""
  if not spec["limit"] > 0:
    raise ValueError(f"limit is {spec['limit']}")
  width = 0
  for name, leaf in spec["observation"].items():
    for of in _scaled_by(name, params):
      if params[of].shape not in ((), tuple(leaf["shape"])):
        raise ValueError(f"{of} is {params[of].shape}")
    width += math.prod(leaf["shape"])
  _check_layers(spec["numpy"], width, spec["action"], params, "action")


def _check_layers(
  layers: list[list[Any]], width: int, action: Mapping[str, Any], params: Mapping[str, np.ndarray], name: str
) -> None:
  """Raises where layers do not lead from ``width`` numbers to the action, which has the name ``name``."""
  ends = "nothing"
  for operation, *given in layers:
    if ends in ("argmax", "choices", "parts"):
      raise ValueError(f"{operation!r} comes after {ends!r}")
    ends = operation
    if operation == "dense":
      (inputs, outputs), bias = params[f"{given[0]}/kernel"].shape, params[f"{given[0]}/bias"].shape
      if inputs != width or bias != (outputs,):
        raise ValueError(f"{given[0]} takes {inputs} numbers, there are {width}")
      width = outputs
    elif operation == "layer_norm":
      if any(params[f"{given[0]}/{of}"].shape != (width,) for of in ("scale", "bias")):
        raise ValueError(f"{given[0]} is not of {width} numbers")
    elif operation == "choices":
      sizes = given[0]
      if not all(type(n) is int and n > 0 for n in sizes) or len(sizes) * max(sizes) != width:
        raise ValueError(f"choices among {sizes} are not of {width} numbers")
    elif operation == "parts":
      if set(given[0]) != set(action["parts"]):
        raise ValueError(f"parts {sorted(given[0])} are not those of {name}")
      for part, theirs in given[0].items():
        _check_layers(theirs, width, action["parts"][part], params, f"{name}/{part}")
    elif operation not in _OPERATIONS:
      raise ValueError(f"unknown operation {operation!r}")
  if ("parts" in action) != (ends == "parts"):
    raise ValueError(f"{name} ends in {ends!r}")
  if "parts" not in action:
    fits = {
      "continuous": lambda: ends not in ("argmax", "choices") and width == np.size(action["low"]),
      "discrete": lambda: ends == "argmax" and width == action["num_actions"],
      "multi_discrete": lambda: ends == "choices" and layers[-1][1] == action["num_actions"],
    }
    if not fits[action["kind"]]():
      raise ValueError(f"{name} is {action['kind']}, its layers end in {ends!r} of {width} numbers")
    if action["kind"] == "continuous" and f"{name}/low" in params:
      _check_bounds(action, params, name)


def _check_bounds(action: Mapping[str, Any], params: Mapping[str, np.ndarray], name: str) -> None:
  shape = np.shape(action["low"])
  for of in ("low", "high"):
    if params[f"{name}/{of}"].shape != shape:
      raise ValueError(f"{name}/{of} is {params[f'{name}/{of}'].shape}, the action {shape}")
  quantiles = params.get(f"{name}/quantiles")
  if quantiles is not None and (quantiles.shape[:1] < (2,) or quantiles.shape[1:] != shape):
    raise ValueError(f"{name}/quantiles is {quantiles.shape}, the action {shape}")


def _scaled_by(name: str, params: Mapping[str, np.ndarray]) -> tuple[str, ...]:
  """The names of the mean and the standard deviation of a leaf of the observation, if it has some."""
  # A leaf that is the whole observation has its name; so may one of several parts (gymnasium's GoalEnv).
  of = f"/{name}" if f"observation/mean/{name}" in params else ""
  return (f"observation/mean{of}", f"observation/std{of}") if f"observation/mean{of}" in params else ()


def _features(spec: Mapping[str, Any], params: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> np.ndarray:
  """Standardised, flattened observations, side by side: ``[B, F]``."""
  parts = []
  for name, x in given.items():
    scale, scaled = _scaled_by(name, params), x.astype(np.float32)
    if scale:
      scaled = np.clip((scaled - params[scale[0]]) / params[scale[1]], -spec["limit"], spec["limit"])
    elif x.dtype == np.uint8:
      scaled = scaled / np.float32(255.0)
    parts.append(scaled.reshape(len(x), -1))
  return np.concatenate(parts, axis=-1)


def _forward(layers: list[list[Any]], params: Mapping[str, np.ndarray], x: np.ndarray) -> Any:
  for operation, *given in layers:
    if operation == "dense":
      x = x @ params[f"{given[0]}/kernel"] + params[f"{given[0]}/bias"]
    elif operation == "layer_norm":
      x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.float32(1e-6))
      x = x * params[f"{given[0]}/scale"] + params[f"{given[0]}/bias"]
    elif operation == "choices":
      sizes = np.array(given[0])
      x = x.reshape(len(x), len(sizes), -1)
      x = np.where(np.arange(x.shape[-1]) < sizes[:, None], x, -np.inf).argmax(-1).astype(np.int32)
    elif operation == "parts":
      return {name: _forward(part, params, x) for name, part in given[0].items()}
    else:
      x = _OPERATIONS[operation](x)
  return x


def _from_unit(action: Mapping[str, Any], params: Mapping[str, np.ndarray], x: Any, name: str = "action") -> Any:
  """The network's action in the environment's units; ``name``: what those of its bounds begin with."""
  if "parts" in action:
    return {of: _from_unit(part, params, x[of], f"{name}/{of}") for of, part in action["parts"].items()}
  if action["kind"] != "continuous" or f"{name}/low" not in params:
    return x
  low, high, quantiles = params[f"{name}/low"], params[f"{name}/high"], params.get(f"{name}/quantiles")
  if quantiles is None:
    found = low + np.float32(0.5) * (x + 1) * (high - low)
  else:
    quantiles = quantiles.reshape(len(quantiles), -1)
    columns = [_at_rank(quantiles[:, i], 0.5 * (x[:, i] + 1)) for i in range(quantiles.shape[1])]
    found = np.stack(columns, -1).astype(np.float32)
  found = np.clip(found, low, high)
  return found[:, 0] if low.ndim == 0 else found


def _at_rank(quantiles: np.ndarray, rank: np.ndarray) -> np.ndarray:
  """Between two of the rising quantiles linear; among equal ones the value whose rank is nearest."""
  last = len(quantiles) - 1
  place = np.clip(rank, 0, 1) * last
  before = np.minimum(place.astype(int), last)
  low, high = quantiles[before], quantiles[np.minimum(before + 1, last)]
  start, end = np.searchsorted(quantiles, low), np.searchsorted(quantiles, low, "right") - 1
  values = np.stack([low, quantiles[np.maximum(start - 1, 0)], quantiles[np.minimum(end + 1, last)]])
  starts, ends = np.searchsorted(quantiles, values), np.searchsorted(quantiles, values, "right") - 1
  nearest = np.take_along_axis(values, np.abs(0.5 * (starts + ends) - place).argmin(0)[None], 0)[0]
  below, above = (ends[k] - starts[k] for k in (0, 2))
  linear = (high > low) & (place > before) & (np.abs(below - above) <= 2) & (np.minimum(below, above) == 0)
  return np.where(linear, low + (place - before) * (high - low), nearest)
