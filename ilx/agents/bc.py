"""Behaviour cloning: maximum likelihood of the demonstrated actions (Pomerleau 1991)."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ilx.data.views import Transitions
from ilx.networks import heads, mlp, scaling
from ilx.types import Agent, Discrete, Spec, Step, Transition, Tree

HEADS = ("deterministic", "tanh_gaussian", "categorical")
# Numbers in one observation, from which on flattening pictures is warned of.
_MANY = 50_000


class Params(NamedTuple):
  """All that play needs.

  Attributes:
    network: the policy network's variables: what is learnt.
    observation: standardisation of observations, or None.
    action: bounds of continuous actions, or None.
  """

  network: Any
  observation: scaling.ObservationScale | None
  action: scaling.ActionScale | None


class State(NamedTuple):
  """All that learning changes.

  Attributes:
    params: `Params`.
    optimizer: the optax state.
    step: int32 ``[]``, updates made.
    key: of the randomness in updates to come.
  """

  params: Params
  optimizer: Any
  step: jax.Array
  key: jax.Array


def bc(
  spec: Spec,
  *,
  head: str | None = None,
  hidden: Sequence[int] = (256, 256),
  network: Any = None,
  optimizer: optax.GradientTransformation | None = None,
  frame_stack: int = 0,
) -> Agent:
  """Behaviour cloning of single steps. Observations are flattened and joined, pictures too.

  Minimises ``-E log pi(action | observation)``, actions scaled to [-1, 1]. With the deterministic head that is
  ``1/2 |action - pi(observation)|^2``.

  Args:
    spec: observations, actions, and the statistics by which observations are standardised.
    head: "deterministic" (default) or "tanh_gaussian" for continuous actions, "categorical" for discrete ones.
    hidden: widths of the MLP torso.
    network: instead of head and hidden, any object with ``init(key, features [F])`` and
      ``apply(variables, features [..., F])`` returning a `ilx.networks.distributions.Distribution`.
    optimizer: default ``optax.adam(3e-4)``.
    frame_stack: as in `Transitions`; the spec is then of stacked frames (``ilx.data.spec(..., frame_stack=...)``).

  Returns:
    An agent that learns from `Transitions`; only their observations and actions are used.

  Raises:
    ValueError: for a head that is unknown or does not fit the spec's actions, and for observations that are no numbers.

  Warns:
    UserWarning: where an MLP would have to look at very many numbers.

  Example:
    >>> spec = Spec(jax.ShapeDtypeStruct((4,), jnp.float32), Discrete(2))
    >>> agent = bc(spec)
    >>> batch = Transition(jnp.ones((8, 4)), jnp.ones(8, jnp.int32), jnp.ones(8), jnp.ones(8), jnp.ones((8, 4)))
    >>> state = agent.init(jax.random.key(0), batch)
    >>> for _ in range(50):
    ...   state, metrics = jax.jit(agent.update)(state, batch)
    >>> step = Step(batch.observation, batch.reward, jnp.zeros(8, bool))
    >>> action, carry = agent.act(state.params, agent.carry(8), step, None)
    >>> action.tolist()
    [1, 1, 1, 1, 1, 1, 1, 1]
  """
  _check_observation(spec, warn=network is None)
  network = _policy(spec, head, hidden) if network is None else network
  optimizer = optax.adam(3e-4) if optimizer is None else optimizer

  def init(key: jax.Array, batch: Transition) -> State:
    key, network_key = jax.random.split(key)
    scale = scaling.observation_scale(spec.statistics)
    one = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), batch.observation)
    params = Params(
      network=network.init(network_key, scaling.features(scale, one, spec)),
      observation=scale,
      action=scaling.action_scale(spec.action),
    )
    return State(params, optimizer.init(params.network), jnp.zeros((), jnp.int32), key)

  def loss(variables: Any, params: Params, batch: Transition) -> jax.Array:
    dist = network.apply(variables, scaling.features(params.observation, batch.observation, spec))
    return -jnp.mean(dist.log_prob(scaling.to_unit(params.action, batch.action)))

  def update(state: State, batch: Transition) -> tuple[State, dict[str, jax.Array]]:
    params = state.params
    value, gradient = jax.value_and_grad(loss)(params.network, params, batch)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, params.network)
    params = params._replace(network=optax.apply_updates(params.network, updates))
    metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
    return State(params, optimizer_state, state.step + 1, state.key), metrics

  def act(params: Params, carry: Tree, step: Step, key: jax.Array | None) -> tuple[jax.Array, Tree]:
    dist = network.apply(params.network, scaling.features(params.observation, step.observation, spec))
    action = dist.mode() if key is None else dist.sample(key)
    return scaling.from_unit(params.action, action), carry

  return Agent(
    init=init, update=update, act=act, carry=lambda batch_size: (), view=Transitions(frame_stack=frame_stack)
  )


def _check_observation(spec: Spec, warn: bool) -> None:
  numbers = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(spec.observation):
    name = "/".join(["observation", *filter(None, [jax.tree_util.keystr(path, simple=True, separator="/")])])
    if np.dtype(leaf.dtype).kind not in "fiub":
      raise ValueError(f"bc: {name} is {np.dtype(leaf.dtype)}; expected numbers. Choose other fields, or encode texts")
    numbers += math.prod(leaf.shape)
  if not numbers:
    raise ValueError("bc: the observation has no numbers")
  if warn and numbers > _MANY:
    warnings.warn(
      f"bc: an observation has {numbers:,} numbers, which the MLP sees as one flat row: it will learn slowly and "
      "generalise badly; choose fewer or smaller pictures, or give bc(..., network=...) an encoder",
      stacklevel=3,
    )


def _policy(spec: Spec, head: str | None, hidden: Sequence[int]) -> heads.Policy:
  discrete = isinstance(spec.action, Discrete)
  head = head or ("categorical" if discrete else "deterministic")
  if head not in HEADS:
    raise ValueError(f"bc: head is {head!r}; choose one of {', '.join(HEADS)}")
  if discrete != (head == "categorical"):
    raise ValueError(f"bc: head {head!r} does not fit the actions of the spec, {spec.action}")
  if discrete:
    last = heads.CategoricalHead(spec.action.num_actions)
  elif head == "tanh_gaussian":
    last = heads.TanhGaussianHead(spec.action.size)
  else:
    last = heads.DeterministicHead(spec.action.size)
  return heads.Policy(mlp.MLP(tuple(hidden)), last)
