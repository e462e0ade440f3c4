"""Behaviour cloning with history: a causal transformer over the steps so far."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ilx.agents import checks, policies
from ilx.agents.policies import Params, State
from ilx.data.windows import Windows
from ilx.networks import actions as actions_lib
from ilx.networks import compound, context, scaling
from ilx.networks import heads as heads_lib
from ilx.networks.distributions import Distribution
from ilx.networks.history import HistoryPolicy
from ilx.networks.transformer import Transformer
from ilx.parallel import replicas
from ilx.types import Agent, Array, Spec, Step, Tree, Window


class Carry(NamedTuple):
  """What is remembered between two steps of play.

  Attributes:
    context: keys and values of the steps so far.
    previous: the token ``[B, D]`` of the action played last; None where actions are no tokens.
  """

  context: context.Context
  previous: jax.Array | None


def bc_transformer(
  spec: Spec,
  *,
  length: int = 20,
  actions: bool = False,
  head: str | None = None,
  head_options: Mapping[str, Any] | None = None,
  layers: int = 3,
  heads: int = 4,
  width: int = 128,
  dropout: float = 0.1,
  attention_dropout: float = 0.0,
  positions: Literal["rotary", "learnt"] = "rotary",
  encoder: str | Callable[..., Any] = "auto",
  encoder_options: Mapping[str, Any] | None = None,
  dtype: Any = jnp.float32,
  remat: Literal["full", "dots"] | None = None,
  optimizer: optax.GradientTransformation | None = None,
  frame_stack: int = 0,
) -> Agent:
  """Behaviour cloning of every step of a window, given the steps before it in the window.

  Minimises ``-E log pi(a_t | o_0, ..., o_t)`` over the real steps of windows that start anywhere. At play the context
  is of at most ``length`` steps, see `ilx.networks.context`.

  Past actions are no tokens unless asked for. What an expert does mostly resembles what it just did, so that a network
  that sees the last action learns to repeat it: the likelihood rises and the policy, which then follows its own
  mistakes, gets worse (de Haan et al. 2019, "Causal Confusion in Imitation Learning"). They help where the past
  actions say what observations do not, as in data of several behaviours.

  Args:
    spec: observations, actions, and the statistics by which observations are standardised.
    length: T, steps in a window and, at most, in the context at play.
    actions: whether past actions are tokens too: ``pi(a_t | o_0, a_0, ..., o_t)``.
    head: as of ``bc``.
    head_options: as of ``bc``.
    layers, heads, width: of the transformer.
    dropout: of tokens and of what attention and MLPs add to them.
    attention_dropout: of attention weights.
    positions: "rotary" or "learnt".
    encoder: as of ``bc``.
    encoder_options: as of ``bc``.
    dtype: of the computation of the transformer and of encoders of pictures.
    remat: what the backward pass computes again, see `ilx.networks.transformer.Transformer`; not None: pictures, too,
      are encoded again, see `ilx.networks.encoders.Encoder`.
    optimizer: default ``optax.adamw(3e-4)`` with a weight decay of 0.01, of gradients clipped to a norm of 1.
    frame_stack: as in `Windows`; the spec is then of stacked frames (``ilx.data.spec(..., frame_stack=...)``).

  Returns:
    An agent that learns from `Windows`.

  Raises:
    ValueError: for hyper-parameters out of range, a head that is unknown or does not fit the spec's actions, and
      observations that are no numbers.
  """
  checks.check_spec(spec)
  if positions not in ("rotary", "learnt"):
    raise ValueError(f"positions={positions!r}; choose 'rotary' or 'learnt'")
  tokens_per_step = 2 if actions else 1
  transformer = Transformer(
    layers=layers,
    heads=heads,
    width=width,
    dropout=dropout,
    attention_dropout=attention_dropout,
    positions=positions,
    max_length=length * tokens_per_step,
    dtype=dtype,
    remat=remat,
  )
  head_module = heads_lib.make(spec.action, head, **(head_options or {}))
  network = HistoryPolicy(
    transformer,
    head_module,
    policies.make_encoder(spec, encoder, encoder_options, dtype=dtype, remat=remat is not None),
    actions,
    dropout,
  )
  optimizer = _default_optimizer() if optimizer is None else optimizer

  def inputs(params: Params, batch: Window) -> tuple[Tree, jax.Array, Tree]:
    """Standardised observations, features of actions, and the actions to predict."""
    action = scaling.to_unit(params.action, batch.action)
    observation = scaling.standardise(params.observation, batch.observation)
    return observation, actions_lib.features(spec.action, action), action

  def init(key: jax.Array, batch: Window) -> State:
    key, network_key = jax.random.split(key)
    params = Params(None, scaling.observation_scale(spec), scaling.action_scale(spec.action))
    one = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), batch)
    observation, features, _ = inputs(params, one)
    params = params._replace(network=network.init(network_key, observation, features))
    return State(params, optimizer.init(params.network), jnp.zeros((), jnp.int32), key)

  def loss(variables: Any, params: Params, batch: Window, key: jax.Array) -> jax.Array:
    observation, features, action = inputs(params, batch)
    dist = network.apply(variables, observation, features, deterministic=False, rngs={"dropout": key})
    return masked_mean(-dist.log_prob(action), batch.mask)

  def update(state: State, batch: Window) -> tuple[State, dict[str, jax.Array]]:
    params, key = state.params, jax.random.fold_in(state.key, state.step)
    value, gradient = jax.value_and_grad(loss)(params.network, params, batch, key)
    return policies.descend(state, optimizer, value, gradient)

  def look(params: Params, carry: Carry, step: Step) -> tuple[Distribution, context.Context]:
    """The distribution of the next action, and the context after this step."""
    observation = scaling.standardise(params.observation, step.observation)
    given = observation, carry.previous, step.is_first, carry.context, length
    return network.apply(params.network, *given, method="play")

  def remember(params: Params, memory: context.Context, action: Tree) -> Carry:
    if not actions:
      return Carry(memory, None)
    # As the data would have it: what is played, within the bounds.
    played = actions_lib.features(spec.action, scaling.to_unit(params.action, action))
    return Carry(memory, network.apply(params.network, played, method="embed"))

  def act(params: Params, carry: Carry, step: Step, key: jax.Array | None) -> tuple[Tree, Carry]:
    dist, memory = look(params, carry, step)
    action = scaling.from_unit(params.action, dist.mode() if key is None else dist.sample(key))
    return action, remember(params, memory, action)

  def log_prob(params: Params, carry: Carry, step: Step, action: Tree) -> tuple[Tree, Carry]:
    dist, memory = look(params, carry, step)
    return compound.log_probs(dist, scaling.to_unit(params.action, action)), remember(params, memory, action)

  def carry(batch_size: int) -> Carry:
    memory = context.make(transformer, batch_size, steps=length, tokens_per_step=tokens_per_step)
    return Carry(memory, jnp.zeros((batch_size, width), jnp.float32) if actions else None)

  # On the right, padding needs no mask in the network: what is causal does not see it.
  view = Windows(length, padding="right", frame_stack=frame_stack)
  agent = Agent(init=init, update=update, act=act, carry=carry, view=view, log_prob=log_prob)
  return checks.checked(spec, agent, axes=2)


def masked_mean(x: Array, mask: Array) -> jax.Array:
  """The mean of ``x [B, T]`` over the steps where ``mask`` (bool) is true."""
  return jnp.sum(jnp.where(mask, x, 0.0)) / replicas.mean(jnp.sum(mask))


def _default_optimizer() -> optax.GradientTransformation:
  return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-4, weight_decay=1e-2))
