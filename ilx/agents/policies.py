"""What agents without memory share: a policy's params, how it is made and how it acts."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ilx.agents import checks
from ilx.networks import compound, encoders, heads, mlp, scaling
from ilx.networks.distributions import Distribution
from ilx.parallel import replicas
from ilx.types import Spec, Step, Tree

# Numbers in one observation, from which on flattening pictures is warned of.
_MANY = 50_000
# How many standard deviations a mean may be away from 0; float32 has 7 digits, and of the rest 2 should be left.
_FAR = 1e5
# Bytes below it are taken for flags, choices or counts.
_SMALL = 16


class Params(NamedTuple):
  """All that play needs.

  Attributes:
    network: the policy network's variables: what is learnt.
    observation: standardisation of observations, or None.
    action: bounds of continuous actions, None for discrete ones; dicts for an action of several parts.
  """

  network: Any
  observation: scaling.ObservationScale | None
  action: scaling.ActionScale | dict[str, Tree] | None


class State(NamedTuple):
  """All that learning changes, where nothing but a policy is learnt.

  Attributes:
    params: what play needs: `Params`, or an agent's own.
    optimizer: the optax state.
    step: int32 ``[]``, updates made.
    key: of the randomness in updates to come.
  """

  params: Any
  optimizer: Any
  step: jax.Array
  key: jax.Array


def make(
  spec: Spec,
  *,
  head: str | None = None,
  hidden: Sequence[int] = (256, 256),
  encoder: str | Callable[..., nn.Module] = "auto",
  encoder_options: Mapping[str, Any] | None = None,
  head_options: Mapping[str, Any] | None = None,
) -> heads.Policy:
  """The policy network of a spec: an encoder, an MLP, a head.

  Args:
    spec: of the task.
    head: see ``heads.make``.
    hidden: widths of the MLP.
    encoder: of pictures, see ``encoders.make``.
    encoder_options: its options, see ``encoders.make``.
    head_options: options of the head, see ``heads.make``.

  Raises:
    ValueError: where head or encoder are unknown or do not fit.

  Warns:
    UserWarning: where an MLP would have to look at very many numbers, or at what may be pictures but is not uint8.
  """
  widths = tuple(hidden) if np.iterable(hidden) and not isinstance(hidden, str) else (None,)
  if not all(isinstance(width, int | np.integer) and width > 0 for width in widths):
    raise ValueError(f"hidden={hidden!r} must be widths of layers, such as (256, 256)")
  encoder_module = make_encoder(spec, encoder, encoder_options)
  head_module = heads.make(spec.action, head, **(head_options or {}))
  return heads.Policy(mlp.MLP(widths), head_module, encoder_module)


def make_encoder(
  spec: Spec,
  encoder: str | Callable[..., nn.Module],
  options: Mapping[str, Any] | None = None,
  *,
  dtype: Any = jnp.float32,
  remat: bool = False,
) -> encoders.Encoder:
  """The encoder of a spec's observations, see ``encoders.make``; raises and warns as ``make``."""
  made = encoders.make(spec.observation, encoder, options, dtype=dtype, remat=remat)
  for leaf, x in zip(made.leaves, jax.tree.leaves(spec.observation), strict=True):
    if encoder != "flat" and leaf.encoder is None and len(leaf.shape) > 2 and encoders.has_sides(leaf.shape):
      warnings.warn(
        f"observation {leaf.name!r} is {x.dtype} {list(leaf.shape)}: pictures are uint8, others are flattened and "
        "standardised number by number; store it as uint8, leave it out, or choose encoder='flat'",
        stacklevel=4,
      )
  numbers = sum(math.prod(leaf.shape) for leaf in made.leaves if leaf.encoder is None)
  if numbers > _MANY:
    warnings.warn(
      f"an observation has {numbers:,} numbers, which the network sees as one flat row: it will learn slowly and "
      "generalise badly; choose fewer or smaller pictures, or an encoder (pictures are uint8)",
      stacklevel=4,
    )
  if far := _far(spec):
    warnings.warn(
      f"{', '.join(far)}: so far from 0, beside how much they vary, numbers lose their digits in float32, in which "
      "networks compute; subtract an offset when recording (of clocks: where they began), or leave them out",
      stacklevel=4,
    )
  return made


def warn_of_small_bytes(spec: Spec) -> None:
  """Warns where bytes, which are divided by 255 without statistics, are small numbers, such as flags or choices."""
  if spec.statistics is None:
    return
  leaves = jax.tree_util.tree_leaves_with_path(spec.observation)
  for (path, leaf), most in zip(leaves, jax.tree.leaves(spec.statistics.max), strict=True):
    largest = np.max(most, initial=0)
    if leaf.dtype == np.uint8 and not encoders.is_picture(leaf) and largest < _SMALL:
      warnings.warn(
        f"{checks.name_of(path)}: bytes up to {largest:g}, which without standardisation are divided by 255, as "
        "pictures are; store flags as bool and numbers as float32, or standardise (normalize_states=True)",
        stacklevel=3,
      )


def _far(spec: Spec) -> list[str]:
  """The leaves that float32 cannot tell the values of; pictures and what hardly varies are scaled otherwise."""
  if spec.statistics is None:
    return []
  leaves = jax.tree_util.tree_leaves_with_path(spec.observation)
  moments = zip(jax.tree.leaves(spec.statistics.mean), jax.tree.leaves(spec.statistics.std), strict=True)
  return [
    checks.name_of(path)
    for (path, leaf), (mean, std) in zip(leaves, moments, strict=True)
    if not encoders.is_picture(leaf) and np.any((std > scaling.STD_FLOOR) & (np.abs(mean) > _FAR * std))
  ]


def init(network: Any, spec: Spec, key: jax.Array, batch: Any) -> Params:
  """Fresh params; of the batch only shapes and dtypes are used."""
  scale = scaling.observation_scale(spec)
  one = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), batch.observation)
  return Params(
    network=network.init(key, scaling.standardise(scale, one)),
    observation=scale,
    action=scaling.action_scale(spec.action),
  )


def descend(
  state: State, optimizer: optax.GradientTransformation, loss: jax.Array, gradient: Any
) -> tuple[State, dict[str, jax.Array]]:
  """The end of an update: the optimizer's step against the gradient of the network's variables, and the metrics."""
  gradient = replicas.mean(gradient)
  network, optimizer_state = step(optimizer, gradient, state.optimizer, state.params.network)
  metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
  return State(state.params._replace(network=network), optimizer_state, state.step + 1, state.key), metrics


def step(
  optimizer: optax.GradientTransformation, gradient: Any, optimizer_state: Any, variables: Any
) -> tuple[Any, Any]:
  """The optimizer's step against a gradient: the variables and the optimizer's state after it."""
  updates, optimizer_state = optimizer.update(gradient, optimizer_state, variables)
  return optax.apply_updates(variables, updates), optimizer_state


def make_act(network: Any) -> Callable[[Params, Tree, Step, jax.Array | None], tuple[Tree, Tree]]:
  """``Agent.act`` of a policy without memory."""

  def act(params: Params, carry: Tree, step: Step, key: jax.Array | None) -> tuple[Tree, Tree]:
    dist: Distribution = network.apply(params.network, scaling.standardise(params.observation, step.observation))
    action = dist.mode() if key is None else dist.sample(key)
    return scaling.from_unit(params.action, action), carry

  act.network = network  # ilx.export asks what it is
  return act


def make_log_prob(network: Any) -> Callable[[Params, Tree, Step, Tree], tuple[Tree, Tree]]:
  """``Agent.log_prob`` of a policy without memory."""

  def log_prob(params: Params, carry: Tree, step: Step, action: Tree) -> tuple[Tree, Tree]:
    dist: Distribution = network.apply(params.network, scaling.standardise(params.observation, step.observation))
    return compound.log_probs(dist, scaling.to_unit(params.action, action)), carry

  return log_prob
