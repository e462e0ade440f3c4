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
  """A policy as ``ilx.evaluate`` plays it; B environments at once, any B.

  Attributes:
    act: ``(params, carry, (observation, reward, is_first), key) -> (action, carry)``, the triple being an ``ilx.Step``:
      observations a tree like the data's, ``[B, ...]``; rewards float32 ``[B]``; is_first bool ``[B]``. With the key
      None the action is the mode, with a key (threefry's, JAX's default) a sample. Actions are in the environment's
      units. The carry resets itself where ``is_first``.
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

  @jax.jit
  def act(params: Any, carry: Any, step: tuple[Any, Any, Any], key: Any = None) -> tuple[Any, Any]:
    observation, reward, is_first = step
    given = _leaves(spec, observation, jax.tree_util, jax.numpy.asarray)
    inputs = params, carry, given, jax.numpy.asarray(reward, np.float32), jax.numpy.asarray(is_first, bool)
    if key is None:
      action, carry = programs["act"].call(*inputs)
    else:
      data = jax.random.key_data(key) if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) else key
      if data.shape != (2,):
        raise ValueError(f"key has {data.shape} numbers; expected one of jax.random.key(seed, impl='threefry2x32')")
      action, carry = programs["sample"].call(*inputs, data)
    return _nested(spec["action"], action), carry

  def carry(batch_size: int) -> dict[str, Any]:
    return programs["carry"].call(np.zeros(batch_size, np.int8))

  return Policy(act, carry, params, spec)


def numpy_policy(folder: str | os.PathLike) -> Policy:
  """The policy of a folder, computed by numpy; jax is not needed. It plays modes, not samples.

  Raises:
    ValueError: where a file is missing, damaged or not of an exported policy; and where the policy is no MLP.
  """
  folder = pathlib.Path(folder)
  spec = read_spec(folder)
  if spec["numpy"] is None:
    raise ValueError(
      f"{folder} is no MLP on flat observations with one action, which is all that numpy plays; play its StableHLO "
      "with load, which needs jax"
    )
  params = _read_params(folder, spec)
  try:
    _check_layers(spec, params)
  except (IndexError, KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{folder / SPEC} describes layers that are not those of its parameters: {error}") from None

  def act(params: Any, carry: Any, step: tuple[Any, Any, Any], key: Any = None) -> tuple[Any, Any]:
    if key is not None:
      raise ValueError("key: numpy plays modes alone; give None, or sample with load, which needs jax")
    given = _leaves(spec, step[0], None, np.asarray)
    return _from_unit(params, _forward(spec, params, given)), carry

  return Policy(act, lambda batch_size: {}, params, spec)


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


def _leaves(spec: Mapping[str, Any], observation: Any, tree: Any, as_array: Callable[..., Any]) -> dict[str, Any]:
  """The leaves of a batch of observations by name, checked. ``tree``: ``jax.tree_util``; None for dicts and tuples."""
  if tree:
    paths = tree.tree_leaves_with_path(observation)
    found = {tree.keystr(path, simple=True, separator="/") or "observation": x for path, x in paths}
  else:
    found = _flat(observation) if isinstance(observation, Mapping | tuple) else {"observation": observation}
  if set(found) != set(spec["observation"]):
    raise ValueError(f"the observation has {sorted(found)}; the policy's has {sorted(spec['observation'])}")
  found = {name: as_array(x) for name, x in found.items()}
  for name, leaf in spec["observation"].items():
    x = found[name]
    if x.ndim == 0 or list(x.shape[1:]) != leaf["shape"]:
      raise ValueError(f"observation {name!r} is {list(x.shape)}; expected {['B', *leaf['shape']]}")
    if not np.can_cast(x.dtype, leaf["dtype"], "same_kind"):
      raise ValueError(f"observation {name!r} is {x.dtype}; expected {leaf['dtype']}")
  return {name: found[name].astype(leaf["dtype"]) for name, leaf in spec["observation"].items()}


def _flat(tree: Mapping[str, Any] | tuple[Any, ...], prefix: str = "") -> dict[str, Any]:
  if isinstance(tree, tuple):
    tree = dict(zip(getattr(tree, "_fields", range(len(tree))), tree, strict=True))
  found = {}
  for name, x in tree.items():
    found |= _flat(x, f"{prefix}{name}/") if isinstance(x, Mapping | tuple) else {f"{prefix}{name}": x}
  return found


def _nested(action: Mapping[str, Any], found: Mapping[str, Any], name: str = "") -> Any:
  if "parts" not in action:
    return found[name or "action"]
  return {key: _nested(part, found, f"{name}/{key}" if name else key) for key, part in action["parts"].items()}


def _check_layers(spec: Mapping[str, Any], params: Mapping[str, np.ndarray]) -> None:
  """Raises where the layers cannot be computed."""
  if not spec["limit"] > 0:
    raise ValueError(f"limit is {spec['limit']}")
  width = sum(math.prod(leaf["shape"]) for leaf in spec["observation"].values())
  for operation, *prefix in spec["numpy"]:
    if operation == "dense":
      (inputs, outputs), bias = params[f"{prefix[0]}/kernel"].shape, params[f"{prefix[0]}/bias"].shape
      if inputs != width or bias != (outputs,):
        raise ValueError(f"{prefix[0]} takes {inputs} numbers, there are {width}")
      width = outputs
    elif operation == "layer_norm":
      if any(params[f"{prefix[0]}/{name}"].shape != (width,) for name in ("scale", "bias")):
        raise ValueError(f"{prefix[0]} is not of {width} numbers")
    elif operation not in _OPERATIONS:
      raise ValueError(f"unknown operation {operation!r}")


def _forward(spec: Mapping[str, Any], params: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> np.ndarray:
  parts = []
  for name, x in given.items():
    # A leaf that is the whole observation has its name; so may one of several parts (gymnasium's GoalEnv).
    of, scaled = f"/{name}" if f"observation/mean/{name}" in params else "", x.astype(np.float32)
    if f"observation/mean{of}" in params:
      scaled = (scaled - params[f"observation/mean{of}"]) / params[f"observation/std{of}"]
      scaled = np.clip(scaled, -spec["limit"], spec["limit"])
    elif x.dtype == np.uint8:
      scaled = scaled / np.float32(255.0)
    parts.append(scaled.reshape(len(x), -1))
  x = np.concatenate(parts, axis=-1)
  for operation, *prefix in spec["numpy"]:
    if operation == "dense":
      x = x @ params[f"{prefix[0]}/kernel"] + params[f"{prefix[0]}/bias"]
    elif operation == "layer_norm":
      x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.float32(1e-6))
      x = x * params[f"{prefix[0]}/scale"] + params[f"{prefix[0]}/bias"]
    else:
      x = _OPERATIONS[operation](x)
  return x


def _from_unit(params: Mapping[str, np.ndarray], action: np.ndarray) -> np.ndarray:
  if "action/low" not in params:
    return action
  low, high = params["action/low"], params["action/high"]
  quantiles = params.get("action/quantiles")
  if quantiles is None:
    found = low + np.float32(0.5) * (action + 1) * (high - low)
  else:
    quantiles = quantiles.reshape(len(quantiles), -1)
    place = np.clip(0.5 * (action + 1), 0, 1) * (len(quantiles) - 1)
    columns = [np.interp(place[:, i], np.arange(len(quantiles)), quantiles[:, i]) for i in range(quantiles.shape[1])]
    found = np.stack(columns, -1).astype(np.float32)
  found = np.clip(found, low, high)
  return found[:, 0] if low.ndim == 0 else found
