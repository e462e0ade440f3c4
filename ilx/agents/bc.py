"""Behaviour cloning: maximum likelihood of the demonstrated actions (Pomerleau 1991)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ilx.agents import checks, policies
from ilx.agents.policies import Params, State
from ilx.data.views import Transitions
from ilx.networks import scaling
from ilx.types import Agent, Spec, Transition

# Given beside a network it would be of no effect.
_HIDDEN = (256, 256)


def bc(
  spec: Spec,
  *,
  head: str | None = None,
  head_options: Mapping[str, Any] | None = None,
  hidden: Sequence[int] = _HIDDEN,
  encoder: str | Callable[..., Any] = "auto",
  encoder_options: Mapping[str, Any] | None = None,
  network: Any = None,
  optimizer: optax.GradientTransformation | None = None,
  frame_stack: int = 0,
) -> Agent:
  """Behaviour cloning of single steps.

  Minimises ``-E log pi(action | observation)``, actions scaled to [-1, 1]. With the deterministic head that is
  ``1/2 |action - pi(observation)|^2``.

  Args:
    spec: observations, actions, and the statistics by which observations are standardised.
    head: of continuous actions "deterministic" (default), "gaussian", "tanh_gaussian", "gaussian_mixture" or
      "discretised"; of discrete ones "categorical". Parts of an action are independent, given the observation: the
      head is that of all continuous ones.
    head_options: options of the head by name, such as ``{"bins": 64}``; see ``ilx.networks.heads.make``.
    hidden: widths of the MLP torso.
    encoder: of pictures, one of ``ilx.networks.encoders.PICTURES`` or a class of modules; other leaves are flattened
      and joined.
    encoder_options: options of the encoder by name, such as ``{"width": 2, "dtype": "bfloat16"}`` of "impala"; see
      ``ilx.networks.encoders.make``.
    network: instead of head, encoder and the torso of ``hidden``, any object with ``init(key, observation [O])`` and
      ``apply(variables, observation [..., O])``, of standardised observations (a tree where the spec has one), that
      returns a `ilx.networks.distributions.Distribution`.
    optimizer: default ``optax.adam(3e-4)``.
    frame_stack: as in `Transitions`; the spec is then of stacked frames (``ilx.data.spec(..., frame_stack=...)``).

  Returns:
    An agent that learns from `Transitions`; only their observations and actions are used.

  Raises:
    ValueError: for a head or an option that is unknown or does not fit the spec's actions or stands beside a network,
      and for observations that are no numbers.

  Warns:
    UserWarning: where an MLP would have to look at very many numbers.

  Example:
    >>> from ilx.types import Discrete, Step
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
  checks.check_spec(spec)
  if network is None:
    network = policies.make(
      spec, head=head, head_options=head_options, hidden=hidden, encoder=encoder, encoder_options=encoder_options
    )
  elif head is not None or head_options or tuple(hidden) != _HIDDEN or encoder != "auto" or encoder_options:
    raise ValueError("bc: network stands instead of head, hidden and encoder and their options; leave these out")
  optimizer = optax.adam(3e-4) if optimizer is None else optimizer

  def init(key: jax.Array, batch: Transition) -> State:
    key, network_key = jax.random.split(key)
    params = policies.init(network, spec, network_key, batch)
    return State(params, optimizer.init(params.network), jnp.zeros((), jnp.int32), key)

  def loss(variables: Any, params: Params, batch: Transition) -> jax.Array:
    dist = network.apply(variables, scaling.standardise(params.observation, batch.observation))
    return -jnp.mean(dist.log_prob(scaling.to_unit(params.action, batch.action)))

  def update(state: State, batch: Transition) -> tuple[State, dict[str, jax.Array]]:
    params = state.params
    value, gradient = jax.value_and_grad(loss)(params.network, params, batch)
    return policies.descend(state, optimizer, value, gradient)

  agent = Agent(
    init=init,
    update=update,
    act=policies.make_act(network),
    carry=lambda batch_size: (),
    view=Transitions(frame_stack=frame_stack),
    log_prob=policies.make_log_prob(network),
  )
  return checks.checked(spec, agent)
