"""Decision transformer (Chen et al. 2021, "Decision Transformer: Reinforcement Learning via Sequence Modeling")."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ilx import ranges
from ilx.agents import checks, policies
from ilx.agents.policies import State
from ilx.data.windows import Windows
from ilx.networks import actions, compound, context, scaling
from ilx.networks import heads as heads_lib
from ilx.networks.decision_transformer import DecisionTransformer
from ilx.networks.distributions import Deterministic, Distribution
from ilx.networks.transformer import Transformer
from ilx.parallel import replicas
from ilx.types import Agent, Array, Spec, Step, Tree, Window


class Params(NamedTuple):
  """All that play needs.

  Attributes:
    network: the variables of `DecisionTransformer`: what is learnt.
    observation: standardisation of observations, or None.
    action: bounds of continuous actions, None for discrete ones; dicts for an action of several parts.
    target_return: float32 ``[]``, the return to ask for at play, where the carry asks for none itself.
  """

  network: Any
  observation: scaling.ObservationScale | None
  action: scaling.ActionScale | dict[str, Tree] | None
  target_return: jax.Array


class Carry(NamedTuple):
  """What is remembered between two steps of play.

  Attributes:
    context: keys and values of the tokens, and how many steps the episode has had.
    previous: float32 ``[B, D]``, the token of the action played last.
    earned: float32 ``[B]``, rewards of the episode so far.
    target_return: float32 ``[B]``, the return to ask for; NaN: the one in params. See `with_target_return`.
  """

  context: context.Context
  previous: jax.Array
  earned: jax.Array
  target_return: jax.Array


def with_target_return(carry: Carry, target_return: Array | float) -> Carry:
  """A carry that asks for other returns than params: a number, or ``[B]`` of one for each slot; NaN: as params do.

  It holds from the next step on, for all episodes to come. One for each slot wants slots that step together:
  ``ilx.evaluate(..., batch_size=...)`` asks for the carry of one, which it gives to all.

  Example:
    >>> policy = Policy(agent.act, lambda size: with_target_return(agent.carry(size), 6000.0))  # doctest: +SKIP
    >>> ilx.evaluate(policy, state.params, "HalfCheetah-v5")  # doctest: +SKIP
  """
  target = jnp.asarray(target_return, jnp.float32)
  if target.shape not in ((), carry.target_return.shape):
    raise ValueError(f"target_return has shape {target.shape}; expected one number or {carry.target_return.shape}")
  return carry._replace(target_return=jnp.broadcast_to(target, carry.target_return.shape))


def dt(
  spec: Spec,
  *,
  target_return: float,
  return_scale: float = 1000.0,
  length: int = 20,
  layers: int = 3,
  heads: int = 1,
  width: int = 128,
  dropout: float = 0.1,
  attention_dropout: float = 0.1,
  activation: Literal["relu", "gelu"] = "relu",
  max_episode_steps: int = 1000,
  head: str | None = None,
  head_options: Mapping[str, Any] | None = None,
  encoder: str | Callable[..., Any] = "auto",
  encoder_options: Mapping[str, Any] | None = None,
  dtype: Any = jnp.float32,
  remat: Literal["full", "dots"] | None = None,
  optimizer: optax.GradientTransformation | None = None,
  frame_stack: int = 0,
) -> Agent:
  """Imitates the actions of the data given the return that was still to come, and plays by asking for a high one.

  An update minimises `action_loss` over windows of the data that start anywhere, as the authors' implementation does
  (its Gym part, whose numbers the defaults are). At play the return asked for shrinks by the rewards received, and the
  context is of at most ``length`` steps: see `ilx.networks.context`, whose cache gives the actions that computing the
  whole context anew would give.

  Args:
    spec: observations, actions, and the statistics by which observations are standardised.
    target_return: to ask for at play; about an expert's, in the paper. It stands in params (``Params.target_return``),
      and `with_target_return` sets others for each environment.
    return_scale: by which returns are divided; such that the data's come out at about 1 to 10.
    length: K, steps of a context.
    layers, heads, width: of the transformer.
    dropout: of tokens and of what attention and MLPs add to them.
    attention_dropout: of attention weights.
    activation: "relu" or "gelu".
    max_episode_steps: how many steps have an embedding of their own; all later ones share the last of them.
    head: as of ``bc``; "deterministic" is the paper's.
    head_options: as of ``bc``.
    encoder: as of ``bc``.
    encoder_options: as of ``bc``.
    dtype: of the computation of the transformer and of encoders of pictures.
    remat: what the backward pass computes again, see `ilx.networks.transformer.Transformer`; not None: pictures, too,
      are encoded again, see `ilx.networks.encoders.Encoder`.
    optimizer: default AdamW at 1e-4, reached linearly within 10,000 updates, with a weight decay of 1e-4, of gradients
      clipped to a global norm of 0.25.
    frame_stack: as in `Windows`; the spec is then of stacked frames (``ilx.data.spec(..., frame_stack=...)``).

  Returns:
    An agent that learns from `Windows`.

  Raises:
    ValueError: for hyper-parameters out of range, a head that is unknown or does not fit the spec's actions, and
      observations that are no numbers.

  Example:
    >>> from ilx.testing import fake_episodes
    >>> from ilx.types import Discrete
    >>> spec = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2))
    >>> agent = dt(spec, target_return=1.0, return_scale=1.0, length=4, width=8, layers=1)
    >>> step = Step(jnp.ones((3, 2)), jnp.zeros(3), jnp.ones(3, bool))
    >>> window = agent.view.take(agent.view.prepare(fake_episodes(spec)), jnp.arange(8))
    >>> state = jax.jit(agent.init)(jax.random.key(0), window)
    >>> carry = with_target_return(agent.carry(3), jnp.arange(3.0))
    >>> action, carry = jax.jit(agent.act)(state.params, carry, step, None)
    >>> action.shape
    (3,)
  """
  checks.check_spec(spec)
  ranges.finite(target_return=target_return, return_scale=return_scale)
  ranges.above_0(return_scale=return_scale)
  ranges.at_least_1(max_episode_steps=max_episode_steps)
  ranges.from_0_to_below_1(dropout=dropout)
  if activation not in _ACTIVATIONS:
    raise ValueError(f"activation={activation!r} must be one of {', '.join(_ACTIVATIONS)}")
  transformer = Transformer(
    layers=layers,
    heads=heads,
    width=width,
    dropout=dropout,
    attention_dropout=attention_dropout,
    activation=_ACTIVATIONS[activation],
    positions=None,
    dtype=dtype,
    remat=remat,
  )
  head_module = heads_lib.make(spec.action, head, **(head_options or {}))
  encoder_module = policies.make_encoder(spec, encoder, encoder_options, dtype=dtype, remat=remat is not None)
  network = DecisionTransformer(transformer, head_module, encoder_module, max_episode_steps, dropout)
  optimizer = _default_optimizer() if optimizer is None else optimizer

  def inputs(params: Params, window: Window) -> tuple[Any, ...]:
    """Of the network, for windows ``[B, T]``; and the actions to predict."""
    action = scaling.to_unit(params.action, window.action)
    observation = scaling.standardise(params.observation, window.observation)
    features = actions.features(spec.action, action)
    return (observation, features, window.returns_to_go / return_scale, window.time_step), action

  def init(key: jax.Array, batch: Window) -> State:
    key, network_key = jax.random.split(key)
    scales = scaling.observation_scale(spec), scaling.action_scale(spec.action)
    params = Params(None, *scales, jnp.full((), target_return, jnp.float32))
    one = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), batch)
    params = params._replace(network=network.init(network_key, *inputs(params, one)[0]))
    return State(params, optimizer.init(params.network), jnp.zeros((), jnp.int32), key)

  def loss(variables: Any, params: Params, batch: Window, key: jax.Array) -> jax.Array:
    given, action = inputs(params, batch)
    dist = network.apply(variables, *given, deterministic=False, rngs={"dropout": key})
    return action_loss(dist, action, batch.mask)

  def update(state: State, batch: Window) -> tuple[State, dict[str, jax.Array]]:
    params, key = state.params, jax.random.fold_in(state.key, state.step)
    value, gradient = jax.value_and_grad(loss)(params.network, params, batch, key)
    return policies.descend(state, optimizer, value, gradient)

  def look(params: Params, carry: Carry, step: Step) -> tuple[Distribution, context.Context, jax.Array]:
    """The distribution of the next action, the context after this step, and what the episode has earned."""
    earned = jnp.where(step.is_first, 0.0, carry.earned + step.reward.astype(jnp.float32))
    target = jnp.where(jnp.isnan(carry.target_return), params.target_return, carry.target_return)
    observation = scaling.standardise(params.observation, step.observation)
    given = observation, carry.previous, (target - earned) / return_scale, step.is_first, carry.context
    return *network.apply(params.network, *given, length, method="play"), earned

  def remember(params: Params, carry: Carry, memory: context.Context, earned: jax.Array, action: Tree) -> Carry:
    # As the data would have it: what is played, within the bounds.
    played = actions.features(spec.action, scaling.to_unit(params.action, action))
    previous = network.apply(params.network, played, memory.step - 1, method="embed")
    return Carry(memory, previous, earned, carry.target_return)

  def act(params: Params, carry: Carry, step: Step, key: jax.Array | None) -> tuple[Tree, Carry]:
    dist, memory, earned = look(params, carry, step)
    action = scaling.from_unit(params.action, dist.mode() if key is None else dist.sample(key))
    return action, remember(params, carry, memory, earned, action)

  def log_prob(params: Params, carry: Carry, step: Step, action: Tree) -> tuple[Tree, Carry]:
    dist, memory, earned = look(params, carry, step)
    found = compound.log_probs(dist, scaling.to_unit(params.action, action))
    return found, remember(params, carry, memory, earned, action)

  def carry(batch_size: int) -> Carry:
    memory = context.make(transformer, batch_size, steps=length, tokens_per_step=3)
    earned, target = jnp.zeros(batch_size, jnp.float32), jnp.full(batch_size, jnp.nan, jnp.float32)
    return Carry(memory, jnp.zeros((batch_size, width), jnp.float32), earned, target)

  # On the right, padding needs no mask in the network: what is causal does not see it.
  view = Windows(length, padding="right", frame_stack=frame_stack)
  agent = Agent(init=init, update=update, act=act, carry=carry, view=view, log_prob=log_prob)
  return checks.checked(spec, agent, axes=2)


def action_loss(dist: Distribution, action: Tree, mask: Array) -> jax.Array:
  """The mean over the steps where ``mask`` (bool ``[B, T]``) is true; ``action``: ``[B, T, A]`` or int32 ``[B, T]``.

  Of points the squared error, averaged over the action's dimensions too; of other distributions the negative
  log-likelihood.
  """
  if isinstance(dist, Deterministic):
    error = jnp.mean(jnp.square(action - dist.location), axis=-1)
  else:
    error = -dist.log_prob(action)
  return jnp.sum(jnp.where(mask, error, 0.0)) / replicas.mean(jnp.sum(mask))


_ACTIVATIONS = {"relu": nn.relu, "gelu": nn.gelu}


def _default_optimizer() -> optax.GradientTransformation:
  rate = optax.linear_schedule(1e-8, 1e-4, 9_999)  # the first update is not lost
  return optax.chain(optax.clip_by_global_norm(0.25), optax.adamw(rate, weight_decay=1e-4))
