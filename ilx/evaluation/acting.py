"""Policies as environments ask them: a compiled function with a memory, and actions that environments may have."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ilx.parallel import compiling
from ilx.types import Action, Agent, Array, Continuous, Discrete, MultiDiscrete, Spec, Step, Tree

# Of slots (int ``[n]``) and what they see, to their actions; remembers what it has to.
Actor = Callable[[np.ndarray, Step], Tree]


class Policy(NamedTuple):
  """The two functions of an ``Agent`` that play needs; wherever a policy is asked for, an agent will do."""

  act: Callable[[Tree, Tree, Step, jax.Array | None], tuple[jax.Array, Tree]]
  carry: Callable[[int], Tree]


def random_policy(spec: Spec) -> Policy:
  """Actions drawn uniformly, within the bounds or over the choices; has no mode, so play it with ``sample=True``."""

  def act(params: Tree, carry: Tree, step: Step, key: jax.Array | None) -> tuple[Tree, Tree]:
    del params
    if key is None:
      raise ValueError("The random policy has no mode: play it with sample=True")
    (batch_size,) = step.reward.shape
    parts, treedef = jax.tree.flatten(spec.action)
    keys = [key] if len(parts) == 1 else jax.random.split(key, len(parts))
    drawn = [_uniform(key, part, batch_size) for key, part in zip(keys, parts, strict=True)]
    return jax.tree.unflatten(treedef, drawn), carry

  return Policy(act=act, carry=lambda batch_size: ())


def together(policy: Agent | Policy, params: Tree, num_envs: int, key: jax.Array | None) -> Actor:
  """Acts for all slots at once; ``key`` is None for the mode, and the noise is that of the how-many-eth step it is."""
  act, carry, steps = _compiled(policy.act, key is not None), policy.carry(num_envs), 0

  def actor(slots: np.ndarray, step: Step) -> Tree:
    nonlocal carry, steps
    del slots
    action, carry = act(params, carry, step, key, steps)
    steps += 1
    return action

  return actor


def apart(policy: Agent | Policy, params: Tree, num_envs: int, key: jax.Array | None) -> Actor:
  """Acts for whichever slots ask, each with a memory and noise of its own: their order changes nothing but rounding."""
  act, counts = _compiled_apart(policy.act, key is not None), np.zeros(num_envs, np.int32)
  carry = jax.tree.map(lambda x: jnp.repeat(x[None], num_envs, axis=0), policy.carry(1))

  def actor(slots: np.ndarray, step: Step) -> Tree:
    nonlocal carry
    action, carry = act(params, carry, slots, step, key, counts[slots])
    counts[slots] += 1
    return action

  return actor


def on_one_device(params: Tree) -> Tree:
  """Acting is a small program in a host loop: it must not wait for the collectives of a mesh.

  The device is that of ``jax.default_device`` where the caller has set one, else the first of this process.
  """
  device = jax.config.jax_default_device or jax.local_devices()[0]
  if isinstance(device, str):  # of a platform
    device = jax.local_devices(backend=device)[0]

  def place(x: Array) -> Array:
    if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1:
      if x.is_fully_replicated:
        x = x.addressable_data(0)
      elif x.is_fully_addressable:
        x = np.asarray(x)
      else:
        raise ValueError(f"params: an array {x.shape} is sharded over several hosts; replicate it before evaluation")
    return jax.device_put(x, device)

  return jax.tree.map(place, params)


def checked(action: Tree, spec: Action, num_envs: int) -> Tree:
  """The actions as environments may have them: EnvPool clamps nothing and does not check choices.

  MuJoCo clamps actions in the physics but not in the control cost, so they are clipped here.

  Raises:
    ValueError: where they have a wrong shape, are out of range or NaN.
  """
  return jax.tree.map(lambda part, x: _checked(np.asarray(x), part, num_envs), spec, action)


def _checked(action: np.ndarray, spec: Continuous | Discrete | MultiDiscrete, num_envs: int) -> np.ndarray:
  size = spec.low.shape if isinstance(spec, Continuous) else np.shape(spec.num_actions)
  expected = (num_envs, *size)
  if action.shape != expected:
    raise ValueError(f"The policy's actions have shape {action.shape}; the environment takes {expected}")
  if isinstance(spec, Continuous):
    if np.isnan(action).any():
      slot = int(np.argmax(np.isnan(action).reshape(num_envs, -1).any(axis=1)))
      raise ValueError(f"The policy produced NaN actions (slot {slot}: {action[slot]}); look at its parameters")
    return np.clip(action.astype(np.float32, copy=False), spec.low, spec.high)
  if not np.issubdtype(action.dtype, np.integer):
    raise ValueError(f"The policy's actions are {action.dtype}; the environment takes integers")
  illegal = (action < 0) | (action >= np.asarray(spec.num_actions))
  if illegal.any():
    most = np.broadcast_to(spec.num_actions, action.shape)[illegal][0] - 1
    raise ValueError(f"The policy chose action {action[illegal][0]}; the environment has 0 to {most}")
  return action


@functools.lru_cache(maxsize=64)
def _compiled(act: Callable, sample: bool) -> Callable:
  def policy(params: Tree, carry: Tree, step: Step, key: jax.Array | None, time_step: int) -> tuple[Tree, Tree]:
    return act(params, carry, step, jax.random.fold_in(key, time_step) if sample else None)

  return jax.jit(policy, compiler_options=compiling.options())


@functools.lru_cache(maxsize=64)
def _compiled_apart(act: Callable, sample: bool) -> Callable:
  def one(params: Tree, carry: Tree, step: Step, key: jax.Array | None) -> tuple[Tree, Tree]:
    action, carry = act(params, carry, jax.tree.map(lambda x: x[None], step), key)
    return jax.tree.map(lambda x: x[0], action), carry

  def policy(
    params: Tree, carry: Tree, slots: jax.Array, step: Step, key: jax.Array | None, counts: jax.Array
  ) -> tuple[Tree, Tree]:
    keys = None
    if sample:
      keys = jax.vmap(lambda slot, count: jax.random.fold_in(jax.random.fold_in(key, slot), count))(slots, counts)
    own = jax.tree.map(lambda x: x[slots], carry)
    action, own = jax.vmap(one, in_axes=(None, 0, 0, 0 if sample else None))(params, own, step, keys)
    return action, jax.tree.map(lambda x, new: x.at[slots].set(new), carry, own)

  return jax.jit(policy, donate_argnums=1, compiler_options=compiling.options())


def _uniform(key: jax.Array, part: Continuous | Discrete | MultiDiscrete, batch_size: int) -> jax.Array:
  if isinstance(part, Continuous):
    low, high = jnp.asarray(part.low), jnp.asarray(part.high)
    return jax.random.uniform(key, (batch_size, *low.shape), minval=low, maxval=high)
  return jax.random.randint(key, (batch_size, *np.shape(part.num_actions)), 0, jnp.asarray(part.num_actions))
