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

from ilx.networks import compound, encoders, heads, mlp, scaling
from ilx.networks.distributions import Distribution
from ilx.parallel import placement, replicas
from ilx.types import Spec, Step, Tree

# Numbers in one observation, from which on flattening pictures is warned of.
_MANY = 50_000


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
  encoder: str = "auto",
  head_options: Mapping[str, Any] | None = None,
) -> heads.Policy:
  """The policy network of a spec: an encoder, an MLP, a head.

  Args:
    spec: of the task.
    head: see ``heads.make``.
    hidden: widths of the MLP.
    encoder: of pictures, see ``encoders.make``.
    head_options: options of the head, see ``heads.make``.

  Raises:
    ValueError: where head or encoder are unknown or do not fit, and for observations that are no numbers.

  Warns:
    UserWarning: where an MLP would have to look at very many numbers.
  """
  if isinstance(hidden, str) or not all(isinstance(width, int | np.integer) and width > 0 for width in hidden):
    raise ValueError(f"hidden={hidden!r} must be widths of layers, such as (256, 256)")
  encoder_module = make_encoder(spec, encoder)
  head_module = heads.make(spec.action, head, **(head_options or {}))
  return heads.Policy(mlp.MLP(tuple(hidden)), head_module, encoder_module)


def make_encoder(spec: Spec, encoder: str) -> nn.Module:
  """The encoder of a spec's observations, see ``encoders.make``; raises and warns as ``make``."""
  check_observation(spec)
  made = encoders.make(spec.observation, encoder)
  numbers = sum(math.prod(leaf.shape) for leaf in made.leaves if leaf.encoder is None)
  if numbers > _MANY:
    warnings.warn(
      f"an observation has {numbers:,} numbers, which the network sees as one flat row: it will learn slowly and "
      "generalise badly; choose fewer or smaller pictures, or an encoder (pictures are uint8)",
      stacklevel=4,
    )
  return made


def check_observation(spec: Spec) -> None:
  """Raises ValueError where an observation has no numbers, or leaves that are none."""
  numbers = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(spec.observation):
    name = _name(path)
    if np.dtype(leaf.dtype).kind not in "fiub":
      raise ValueError(f"{name} is {np.dtype(leaf.dtype)}; expected numbers. Choose other fields, or encode texts")
    numbers += math.prod(leaf.shape)
  if not numbers:
    raise ValueError("the observation has no numbers")


def check_batch(spec: Spec, observation: Tree, axes: int = 1) -> None:
  """Raises ValueError where observations are not the spec's behind ``axes`` leading axes.

  They would be broadcast: learnt from, item against item, or refused by something that knows of neither.
  """

  def shapes(tree: Tree, axes: int) -> dict[str, tuple[int, ...]]:
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): tuple(leaf.shape[axes:]) for path, leaf in paths}

  expected, found = shapes(spec.observation, 0), shapes(observation, axes)
  for name in expected | found:
    if expected.get(name) != found.get(name):
      has, wants = (str(list(of[name])) if name in of else "none" for of in (found, expected))
      raise ValueError(
        f"{name}: an item of the batch has {has}, the spec {wants}; are frames stacked in both alike "
        "(ilx.data.spec(..., frame_stack=k) and the agent's frame_stack=k)?"
      )


def init(network: Any, spec: Spec, key: jax.Array, observation: Tree) -> Params:
  """Fresh params; of the batch of observations ``[B, O]`` only shapes and dtypes are used."""
  check_batch(spec, observation)
  scale = scaling.observation_scale(spec)
  one = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), observation)
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


def _name(path: tuple[Any, ...]) -> str:
  """``observation/image``; an observation of one part is ``observation``."""
  return "/".join(filter(None, ["observation", placement.name_of(path)]))


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
