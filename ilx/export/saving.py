"""Writes a trained policy as a folder: parameters, programs, and what they are."""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from ilx.export import layers, play
from ilx.networks import scaling
from ilx.types import Action, Agent, Continuous, Discrete, Spec, Step, Tree

PLATFORMS = ("cpu", "cuda", "tpu")
_KNOWN = (*PLATFORMS, "rocm")
# What is in a folder, and what importing its play.py leaves there.
_FILES = {play.SPEC, play.PARAMS, "act.stablehlo", "sample.stablehlo", "carry.stablehlo", "play.py", "__pycache__"}


def save(
  agent: Agent,
  params: Tree,
  spec: Spec,
  folder: str | os.PathLike,
  *,
  about: Mapping[str, Any] | None = None,
  env_id: str | None = None,
  env_kwargs: Mapping[str, Any] | None = None,
  action_names: Sequence[str] | Mapping[str, Any] | None = None,
  platforms: Sequence[str] = PLATFORMS,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes a policy to a folder that `ilx.export.load`, or the play.py in it without ilx, plays.

  The folder: ``policy.json`` (observations, action, carry, parameters, checksums), ``params.safetensors``,
  ``act.stablehlo`` (the mode), ``sample.stablehlo``, ``carry.stablehlo``, for any batch size, and ``play.py``. It takes
  its name when it is complete. What a killed save has left beside it, the next save there clears away; a policy that
  was about to be replaced it first puts back. JAX promises to read the programs for six months of its releases;
  parameters stay readable, and so do MLPs by numpy.

  Args:
    agent: only ``act`` and ``carry`` are saved, and how many frames its view stacks.
    params: what ``act`` takes, such as ``state.params``; of one seed.
    spec: that the agent was made with.
    folder: to write, or a link to it; its parent must exist.
    about: JSON values to keep beside, such as the agent's name and hyper-parameters.
    env_id, env_kwargs: the task, where it is known.
    action_names: of the action's dimensions, of each of several choices, or of all that one choice is among; of several
      parts a dict like the action, of those that have names. They are in the spec, as ``names`` of each part.
    platforms: for which the programs are compiled, of "cpu", "cuda", "rocm" and "tpu".
    overwrite: replaces an exported policy that is there; anything else is never replaced.

  Returns:
    The folder.

  Raises:
    ValueError: where the folder exists, params are not the agent's, names are not as many as the action needs, or the
      policy cannot be lowered for a platform.
  """
  folder = pathlib.Path(os.path.abspath(folder))
  if not platforms or set(platforms) - set(_KNOWN):
    raise ValueError(f"platforms={list(platforms)}: choose of {', '.join(_KNOWN)}")
  # A link stays one: what it leads to is written.
  target = pathlib.Path(os.path.realpath(folder))
  _recover(target)
  _check_target(target, overwrite)
  action = _action(spec.action, action_names)
  params = jax.tree.map(_canonical, params)
  arrays = dict(_named(params, "params"))
  programs, carry, observation = _lower(agent, params, spec, tuple(platforms))
  description = {
    "format": play.FORMAT,
    "format_version": play.VERSION,
    "ilx": _version(),
    "jax": jax.__version__,
    "agent": dict(about or {}),
    "env_id": env_id,
    "env_kwargs": dict(env_kwargs or {}),
    "platforms": list(platforms),
    "observation": observation,
    "action": action,
    "carry": carry,
    "params": {name: _described(x) for name, x in arrays.items()},
    "limit": scaling.LIMIT,
    "frame_stack": int(getattr(agent.view, "frame_stack", 0)),
    "numpy": layers.of(agent),
  }
  from safetensors.numpy import save as to_bytes

  files = {play.PARAMS: to_bytes({name: np.ascontiguousarray(x).reshape(x.shape) for name, x in arrays.items()})}
  files |= {f"{name}.stablehlo": bytes(program.serialize()) for name, program in programs.items()}
  sums = {name: {"bytes": len(x), "sha256": hashlib.sha256(x).hexdigest()} for name, x in files.items()}
  try:
    text = json.dumps(description | {"files": sums}, indent=2, allow_nan=False)
  except (TypeError, ValueError) as error:
    raise ValueError(f"about and env_kwargs must be JSON values: {error}") from None
  files |= {play.SPEC: text.encode(), "play.py": pathlib.Path(play.__file__).read_bytes()}
  _write(target, files)
  return folder


def _lower(
  agent: Agent, params: Tree, spec: Spec, platforms: tuple[str, ...]
) -> tuple[dict[str, export.Exported], dict[str, Any], dict[str, Any]]:
  """The programs, and the shapes of the carry and of one observation."""
  (batch,) = export.symbolic_shape("b")
  observation = {
    name: jax.ShapeDtypeStruct((batch, *x.shape), jax.dtypes.canonicalize_dtype(x.dtype))
    for name, x in _named(spec.observation, "observation")
  }
  names = dict.fromkeys(name for name, _ in _named(params, "params"))
  params = dict(zip(names, jax.tree.leaves(params), strict=True)), jax.tree.structure(params)
  carry = jax.eval_shape(lambda: agent.carry(2))
  carry_names, carry_tree = [name for name, _ in _named(carry, "carry")], jax.tree.structure(carry)
  observation_tree = jax.tree.structure(spec.observation)

  def fresh(like: jax.Array) -> dict[str, jax.Array]:
    return dict(zip(carry_names, jax.tree.leaves(agent.carry(like.shape[0])), strict=True))

  def act(params_, carry, observation_, reward, is_first, key=None):
    leaves = [observation_[name] for name in observation]
    step = Step(jax.tree.unflatten(observation_tree, leaves), reward, is_first)
    given = jax.tree.unflatten(params[1], [params_[name] for name in names])
    carry = jax.tree.unflatten(carry_tree, [carry[name] for name in carry_names])
    key = None if key is None else jax.random.wrap_key_data(key, impl="threefry2x32")
    action, carry = agent.act(given, carry, step, key)
    return dict(_named(action, "action")), dict(_named(carry, "carry"))

  programs = {"carry": _export(fresh, platforms, jax.ShapeDtypeStruct((batch,), jnp.int8))}
  shapes = jax.tree.unflatten(programs["carry"].out_tree, programs["carry"].out_avals)
  shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in shapes.items()}
  step = jax.ShapeDtypeStruct((batch,), jnp.float32), jax.ShapeDtypeStruct((batch,), bool)
  arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params[0])
  programs["act"] = _export(act, platforms, arrays, shapes, observation, *step)
  key = jax.ShapeDtypeStruct((2,), jnp.uint32)
  programs["sample"] = _export(act, platforms, arrays, shapes, observation, *step, key)
  singles = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in observation.items()}
  return programs, *({name: _described(x) for name, x in tree.items()} for tree in (shapes, singles))


def _export(program: Callable[..., Any], platforms: tuple[str, ...], *inputs: Any) -> export.Exported:
  try:
    return export.export(jax.jit(program), platforms=platforms)(*inputs)
  except Exception as error:  # what tracing, lowering and shapes may raise
    raise ValueError(f"the policy cannot be lowered for {', '.join(platforms)}: {error}") from error


def _named(tree: Tree, root: str) -> Iterator[tuple[str, Any]]:
  """The leaves by their paths; of a tree that is one leaf by ``root``."""
  seen = set()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path, simple=True, separator="/") or root
    if name in seen:
      raise ValueError(f"{root} has two leaves of the name {name!r}; rename one")
    seen.add(name)
    yield name, leaf


def _canonical(x: Any) -> np.ndarray:
  """As JAX would take it: a number in a place of an array, or float64, would not be what the programs were made for."""
  x = np.asarray(x)
  return x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)


def _described(x: Any) -> dict[str, Any]:
  return {"shape": [n if isinstance(n, int) else str(n) for n in x.shape], "dtype": str(np.dtype(x.dtype))}


def _action(action: Action, names: Any, where: str = "action_names") -> dict[str, Any]:
  if isinstance(action, Mapping):
    if not isinstance(names, Mapping | None) or (names and set(names) - set(action)):
      raise ValueError(f"{where} is {names!r}; expected a dict of some of the parts {', '.join(action)}")
    named = names or {}
    return {"parts": {name: _action(part, named.get(name), f"{where}[{name!r}]") for name, part in action.items()}}
  found: dict[str, Any]
  if isinstance(action, Continuous):
    found = {"kind": "continuous", "low": action.low.tolist(), "high": action.high.tolist()}
  elif isinstance(action, Discrete):
    found = {"kind": "discrete", "num_actions": int(action.num_actions)}
  else:
    found = {"kind": "multi_discrete", "num_actions": list(action.num_actions)}
  if names is None:
    return found
  count = action.num_actions if isinstance(action, Discrete) else action.size
  listed = isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(name, str) for name in names)
  if not listed or len(names) != count:
    raise ValueError(f"{where} is {names!r}; expected a list of {count} names")
  return found | {"names": list(names)}


def _version() -> str:
  import ilx

  return ilx.__version__


def _check_target(folder: pathlib.Path, overwrite: bool) -> None:
  if not folder.parent.is_dir():
    raise ValueError(f"{folder.parent} is no folder; make it first")
  if not os.path.lexists(folder):
    return
  if not overwrite:
    raise ValueError(f"{folder} exists; choose another folder, or overwrite it")
  try:
    play.read_spec(folder)
  except ValueError as error:
    raise ValueError(f"{folder} is no exported policy, so it is not overwritten: {error}") from None
  if others := sorted(set(os.listdir(folder)) - _FILES):
    raise ValueError(f"{folder} holds {', '.join(others)}, too, so it is not overwritten; move that elsewhere first")


def _recover(folder: pathlib.Path) -> None:
  """Clears away what killed saves to a folder have left, and puts back what one of them had moved out of its way."""
  pattern = re.compile(rf"\.{re.escape(folder.name)}\.(new|old)-[0-9a-f]{{8}}")
  try:
    left = [path for path in folder.parent.iterdir() if pattern.fullmatch(path.name) and not path.is_symlink()]
    left = [path for path in left if path.is_dir() and not set(os.listdir(path)) - _FILES]
  except OSError:  # there is none, or another process has just been here
    return
  for path in left:
    with contextlib.suppress(FileNotFoundError), _held(path) as alone:
      if not alone:
        continue
      if ".old-" in path.name and not os.path.lexists(folder) and _is_whole(path):
        path.rename(folder)
      else:
        shutil.rmtree(path, ignore_errors=True)


def _is_whole(folder: pathlib.Path) -> bool:
  try:
    files = play.read_spec(folder)["files"].items()
    return all((folder / name).stat().st_size == file["bytes"] for name, file in files)
  except (OSError, ValueError):
    return False


@contextlib.contextmanager
def _held(folder: pathlib.Path) -> Iterator[bool]:
  """Keeps `_recover` of other processes off a folder; whether none of them holds it, False where none can tell."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      alone = True
    except OSError:
      alone = False
    yield alone
  finally:
    os.close(descriptor)


def _write(folder: pathlib.Path, files: Mapping[str, bytes]) -> None:
  """Under another name first; what is there makes room when all is written."""
  mark = uuid.uuid4().hex[:8]
  new, old = (folder.with_name(f".{folder.name}.{what}-{mark}") for what in ("new", "old"))
  with contextlib.ExitStack() as stack:
    try:
      new.mkdir()
      stack.enter_context(_held(new))
      for name, content in files.items():
        with (new / name).open("wb") as file:
          file.write(content)
          file.flush()
          os.fsync(file.fileno())
      if os.path.lexists(folder):
        stack.enter_context(_held(folder))
        folder.rename(old)
      try:
        new.rename(folder)
      except OSError:
        if old.exists():
          old.rename(folder)
        raise
    finally:
      shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
