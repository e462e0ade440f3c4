"""What agents are made for and given, looked at while they are traced: compiled programs have nothing of it.

Shapes that do not fit would be broadcast, item against item, or refused by something that knows of no observation; and
pictures are bytes that are divided by 255, so that the same picture as floats would be another one.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ilx.parallel import placement
from ilx.types import Action, Agent, Array, Chunk, Continuous, Discrete, Spec, Step, Transition, Tree, Window

# Fields of one number an item.
_NUMBERS = ("reward", "discount", "returns_to_go", "time_step", "mask", "next_is_last")
# Names in an error; an array given as nested lists has a leaf for every number.
_NAMES = 8


def check_spec(spec: Spec) -> None:
  """Raises where an agent cannot be made for ``spec``.

  Raises:
    TypeError: where it is no ``Spec``.
    ValueError: where an observation has no numbers, or leaves that are none.
  """
  if not isinstance(spec, Spec):
    raise TypeError(f"expected an ilx.Spec, got {type(spec).__name__}; make one with ilx.data.spec(episodes)")
  numbers = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(spec.observation):
    if not hasattr(leaf, "dtype"):
      raise ValueError(
        f"{name_of(path)} of the spec is {leaf!r}; expected jax.ShapeDtypeStruct(shape, dtype) of one step "
        "(ilx.data.spec)"
      )
    if _kind(leaf) is None:
      raise ValueError(
        f"{name_of(path)} is {np.dtype(leaf.dtype)}; expected numbers. Choose other fields, or encode texts"
      )
    numbers += math.prod(leaf.shape)
  if not numbers:
    raise ValueError("the observation has no numbers")


def checked(spec: Spec, agent: Agent, axes: int = 1, action_axes: int | None = None) -> Agent:
  """The agent, whose functions raise ValueError, naming the field, where they are given what it was not made for.

  ``act`` and ``log_prob`` want observations ``[B, ...]`` with the spec's tree, shapes and kinds of numbers, and rewards
  and ``is_first`` of as many environments (or one for all); ``init`` and ``update`` see `check_batch`. Bytes and floats
  are never taken for each other, as bytes may be divided by 255; all other numbers are, and integers that are to be
  bytes, or are and should not be, become what they should be.

  Args:
    spec: that the agent was made for.
    agent: to be looked after; ``act`` keeps its attributes.
    axes, action_axes: of its batches, see `check_batch`.
  """
  frames = getattr(agent.view, "frame_stack", 0)

  @functools.wraps(agent.init)
  def init(key: jax.Array, batch: Tree) -> Any:
    check_batch(spec, batch, axes, action_axes)
    return agent.init(key, batch)

  @functools.wraps(agent.update)
  def update(state: Any, batch: Tree) -> tuple[Any, dict[str, jax.Array]]:
    check_batch(spec, batch, axes, action_axes)
    return agent.update(state, batch)

  @functools.wraps(agent.act)
  def act(params: Tree, carry: Tree, step: Step, key: jax.Array | None) -> tuple[Tree, Tree]:
    return agent.act(params, carry, _as_learnt(spec, step, frames), key)

  if agent.log_prob is None:
    return agent._replace(init=init, update=update, act=act)

  @functools.wraps(agent.log_prob)
  def log_prob(params: Tree, carry: Tree, step: Step, action: Tree) -> tuple[Tree, Tree]:
    return agent.log_prob(params, carry, _as_learnt(spec, step, frames), action)

  return agent._replace(init=init, update=update, act=act, log_prob=log_prob)


def check_batch(spec: Spec, batch: Any, axes: int = 1, action_axes: int | None = None) -> None:
  """Raises ValueError, naming the field, where a batch is not what the spec says.

  That is where items are not of its shapes, or bytes where it has none, or fields have different numbers of items.

  Args:
    spec: what items are to be.
    batch: a `Transition`, `Window`, `Chunk`, or anything with fields of these names; others are not looked at.
    axes: how many leading axes of the batch there are.
    action_axes: the same of actions and of their mask, where these have others.
  """
  kind = Chunk if action_axes else Window if axes > 1 else Transition
  other = ""  # of which a part may well fit, such as one step of a window
  if isinstance(batch, (Transition, Window, Chunk)) and not isinstance(batch, kind):
    other = f"; the batch is a {type(batch).__name__}, not a {kind.__name__}: take it by the agent's own view"
  of_action = jax.tree.map(lambda part: jax.ShapeDtypeStruct(_shape(part), jnp.float32), spec.action)
  number = jax.ShapeDtypeStruct((), jnp.float32)
  items = {"observation": spec.observation, "next_observation": spec.observation, "action": of_action}
  items |= {"next_action": of_action} | dict.fromkeys(_NUMBERS, number)
  sizes: dict[str, tuple[list[int], int]] = {}
  for field, item in items.items():
    if getattr(batch, field, None) is None:
      continue
    behind = action_axes if action_axes and field in ("action", "mask") else axes
    expected, found = _leaves(item, field), _leaves(getattr(batch, field), field)
    for name in expected | found:
      has, wants = (
        list(np.shape(of[name]))[skip:] if name in of else "none" for of, skip in ((found, behind), (expected, 0))
      )
      if has != wants:
        stacked = (
          "; are frames stacked in both alike (ilx.data.spec(..., frame_stack=k) and the agent's frame_stack=k)?"
          if item is spec.observation and "none" not in (has, wants) and abs(len(has) - len(wants)) == 1
          else ""
        )
        raise ValueError(f"{name}: an item of the batch has {has}, the spec {wants}{other or stacked}")
      if item is spec.observation and _is_bytes(found[name]) != _is_bytes(expected[name]):
        raise ValueError(f"{name}: the batch has {found[name].dtype}, the spec {expected[name].dtype}")
    sizes |= {name: (list(np.shape(x))[:behind], behind) for name, x in found.items()}
    if item is of_action:
      for name, part in _leaves(spec.action, field).items():
        if not isinstance(part, Continuous) and jnp.issubdtype(jnp.result_type(found[name]), jnp.floating):
          raise ValueError(f"{name}: the batch has {found[name].dtype}, but choices are integers or bools")
  first = max(sizes, key=lambda name: len(sizes[name][0]), default="")
  for name, (size, behind) in sizes.items():
    if len(size) < behind or size != sizes[first][0][:behind]:
      raise ValueError(f"{name}: the batch has {size} items; of {first} it has {sizes[first][0]}")


def name_of(path: tuple[Any, ...], field: str = "observation") -> str:
  """``observation/image``; an observation of one part is ``observation``."""
  return "/".join(filter(None, [field, placement.name_of(path)]))


def _as_learnt(spec: Spec, step: Step, frames: int) -> Step:
  """The step, checked, with its observation in the spec's tree; raises ValueError in the words of `ilx.export.play`."""
  expected, found = (_leaves(tree, "") for tree in (spec.observation, step.observation))
  if found.keys() != expected.keys():
    raise ValueError(f"the observation has {_listed(found)}; the policy's has {_listed(expected)}")
  named = [(f"observation {name!r}" if name else "observation", found[name], leaf) for name, leaf in expected.items()]
  leaves = [_leaf_as_learnt(of, x, leaf, frames) for of, x, leaf in named]
  size = leaves[0].shape[0]
  for of, x, _ in named:
    if x.shape[0] != size:
      raise ValueError(f"{of} is of {x.shape[0]} environments, other parts of the observation are of {size}")
  each = {of: getattr(step, of) for of in ("reward", "is_first")}
  for of, x in each.items():
    if np.shape(x) not in ((), (size,)):
      raise ValueError(f"{of} is {list(np.shape(x))}; expected {[size]}, as many as observations")
  # One for all, and numbers that are no arrays, are allowed; most agents do without reward.
  each = {of: x if x is None else jnp.broadcast_to(jnp.asarray(x), (size,)) for of, x in each.items()}
  return step._replace(observation=jax.tree.unflatten(jax.tree.structure(spec.observation), leaves), **each)


def _leaf_as_learnt(of: str, x: Any, leaf: jax.ShapeDtypeStruct, frames: int) -> Array:
  shape = np.shape(x)
  if not shape or shape[1:] != tuple(leaf.shape):
    stacked = f"; the policy was trained on stacks of {frames} frames, the newest last" if frames else ""
    raise ValueError(f"{of} is {list(shape)}; expected {['B', *leaf.shape]}{stacked}")
  mixed, kinds = _is_bytes(x) != _is_bytes(leaf), (_kind(x), _kind(leaf))
  if None in kinds or (mixed and jnp.floating in kinds):
    raise ValueError(f"{of} is {x.dtype}; expected {leaf.dtype}")
  if mixed and _is_bytes(leaf) and not isinstance(x, jax.core.Tracer) and np.size(x):
    low, high = int(np.min(x)), int(np.max(x))
    if low < 0 or high > 255:
      raise ValueError(f"{of} has numbers from {low} to {high}; expected {leaf.dtype}")
  return x.astype(leaf.dtype) if mixed else x


def _leaves(tree: Tree, field: str) -> dict[str, Any]:
  return {name_of(path, field): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _listed(names: Any) -> list[str]:
  listed = sorted(name or "observation" for name in names)
  return listed if len(listed) <= _NAMES else [*listed[:_NAMES], "..."]


def _shape(action: Action) -> tuple[int, ...]:
  """Of one action of a kind."""
  return action.low.shape if isinstance(action, Continuous) else () if isinstance(action, Discrete) else (action.size,)


def _kind(leaf: Any) -> Any:
  """Floating, integer or bool; None of what is no number."""
  kinds = (jnp.floating, jnp.integer, jnp.bool_)
  return next((kind for kind in kinds if jnp.issubdtype(leaf.dtype, kind)), None)


def _is_bytes(leaf: Any) -> bool:
  return leaf.dtype == np.uint8
