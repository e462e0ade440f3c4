"""Implicit Q-learning (Kostrikov, Nair and Levine 2021, "Offline Reinforcement Learning with Implicit Q-Learning")."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ilx import ranges
from ilx.agents import checks, policies
from ilx.agents.policies import Params
from ilx.data.views import Transitions
from ilx.networks import actions, critics, encoders, mlp, scaling
from ilx.parallel import replicas
from ilx.types import Agent, Continuous, Discrete, Spec, Transition

_HEADS = (None, "gaussian", "tanh_gaussian", "deterministic", "categorical")


class State(NamedTuple):
  """All that learning changes.

  Attributes:
    params: `Params` of the policy.
    value: variables of V.
    critic: variables of both Q.
    target: of both target Q.
    optimizer: the optax states of V, of both Q and of the policy.
    step: int32 ``[]``, updates made.
    key: of the randomness in updates to come.
  """

  params: Params
  value: Any
  critic: Any
  target: Any
  optimizer: tuple[Any, Any, Any]
  step: jax.Array
  key: jax.Array


def iql(
  spec: Spec,
  *,
  expectile: float = 0.7,
  temperature: float = 3.0,
  discount: float = 0.99,
  tau: float = 0.005,
  max_weight: float = 100.0,
  reward_scale: float = 1.0,
  reward_shift: float = 0.0,
  head: str | None = None,
  num_critics: int = 2,
  hidden: Sequence[int] = (256, 256),
  encoder: str | Callable[..., Any] = "auto",
  encoder_options: Mapping[str, Any] | None = None,
  dropout: float = 0.0,
  layer_norm: bool = False,
  optimizer: optax.GradientTransformation | None = None,
  policy_optimizer: optax.GradientTransformation | None = None,
  n_step: int = 1,
  frame_stack: int = 0,
) -> Agent:
  """Implicit Q-learning: values of the best actions in the data, without asking for the value of any other action.

  V regresses on the expectile of the smaller target Q (equation 5), both Q on ``r + discount V(s')`` (equation 6), and
  the policy imitates the data's actions with weights ``exp(temperature (Q - V))`` (equation 7; the paper's beta).

  An update follows the authors' implementation: first V; then the policy by the target Q and the new V; then both Q by
  the new V; then the targets. Other than there, weights begin as Flax's layers do (LeCun normal, not orthogonal), and
  observations are standardised where the spec has statistics.

  Args:
    spec: observations, actions, and the statistics by which observations are standardised.
    expectile: of Q over the data's actions that V is; 0.5 is the mean, 1 the maximum. The paper: 0.7, antmaze 0.9.
    temperature: beta, how sharply the policy prefers better actions; 0 is behaviour cloning. The paper: 3, antmaze 10,
      kitchen and adroit 0.5.
    discount: gamma.
    tau: of the targets' moving average.
    max_weight: where an action's weight is clipped.
    reward_scale, reward_shift: learns from ``reward_scale * reward + reward_shift``. The paper multiplies locomotion's
      rewards by ``1000 / (highest - lowest return of the data's episodes)`` and adds -1 to antmaze's.
    head: "gaussian" (default, the paper's), "tanh_gaussian" or "deterministic" for continuous actions, "categorical"
      for discrete ones.
    num_critics: how many Q there are, of which the smallest counts; the paper has two.
    hidden: widths of the MLP torsos of policy, V and Q.
    encoder: of pictures, one of ``ilx.networks.encoders.PICTURES`` or a class of modules; each network has its own.
      Other leaves are flattened and joined.
    encoder_options: as of ``bc``.
    dropout: in the policy's torso; the paper has 0.1 for kitchen and adroit.
    layer_norm: in the torsos of V and Q.
    optimizer: of V and Q, default ``optax.adam(3e-4)``.
    policy_optimizer: default ``optimizer``. The paper decays the policy's learning rate to zero by a cosine schedule.
    n_step: steps to the bootstrap, as in `Transitions`.
    frame_stack: as in `Transitions`; the spec is then of stacked frames (``ilx.data.spec(..., frame_stack=...)``).

  Returns:
    An agent that learns from `Transitions`.

  Raises:
    ValueError: for hyper-parameters out of range, a head that is unknown or does not fit the spec's actions, and
      observations that are no numbers.

  Warns:
    UserWarning: where an MLP would have to look at very many numbers.

  Example:
    >>> from ilx.types import Step
    >>> spec = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2))
    >>> agent = iql(spec, hidden=(32,), optimizer=optax.adam(1e-2))
    >>> observation, action = jnp.ones((8, 2)), jnp.array([0, 1] * 4)
    >>> batch = Transition(observation, action, 1.0 - action, jnp.zeros(8), observation)
    >>> state = agent.init(jax.random.key(0), batch)
    >>> for _ in range(50):
    ...   state, metrics = jax.jit(agent.update)(state, batch)
    >>> agent.act(state.params, agent.carry(8), Step(observation, batch.reward, jnp.zeros(8, bool)), None)[0].tolist()
    [0, 0, 0, 0, 0, 0, 0, 0]
  """
  checks.check_spec(spec)
  ranges.between_0_and_1(expectile=expectile)
  ranges.finite_at_least_0(temperature=temperature)
  ranges.above_0(max_weight=max_weight)
  ranges.from_0_to_1(discount=discount)
  ranges.above_0_to_1(tau=tau)
  ranges.from_0_to_below_1(dropout=dropout)
  ranges.finite(reward_scale=reward_scale, reward_shift=reward_shift)
  if n_step > 1 and (isinstance(reward_shift, jax.core.Tracer) or reward_shift):
    raise ValueError(
      f"reward_shift={reward_shift} with n_step={n_step}: sums of rewards cannot be shifted by the step; "
      "choose n_step=1 or shift the data's rewards"
    )
  if n_step > 1 and isinstance(discount, jax.core.Tracer):
    raise ValueError(f"discount is traced and n_step={n_step}: rewards are summed by it before it is known")
  if head not in _HEADS:
    raise ValueError(f"iql: head={head!r}; choose one of {', '.join(filter(None, _HEADS))}")
  if head is None and any(isinstance(part, Continuous) for part in jax.tree.leaves(spec.action)):
    head = "gaussian"
  policy = policies.make(spec, head=head, hidden=hidden, encoder=encoder, encoder_options=encoder_options)
  policy = policy.clone(torso=mlp.MLP(tuple(hidden), dropout=dropout))
  torso, encode = (
    mlp.MLP(tuple(hidden), layer_norm=layer_norm),
    encoders.make(spec.observation, encoder, encoder_options),
  )
  num_actions = spec.action.num_actions if isinstance(spec.action, Discrete) else 0
  value_network = critics.Critic(torso, encode)
  critic_network = critics.Ensemble(critics.Critic(torso, encode, num_actions), num_critics)
  optimizer = optax.adam(3e-4) if optimizer is None else optimizer
  policy_optimizer = optimizer if policy_optimizer is None else policy_optimizer

  def q_values(variables: Any, observation: Any, action: jax.Array) -> jax.Array:
    """Of standardised observations and actions in the network's units: ``[2, B]``."""
    if not num_actions:
      return critic_network.apply(variables, observation, actions.features(spec.action, action))
    q = critic_network.apply(variables, observation)
    return jnp.take_along_axis(q, action[None, :, None], axis=-1)[..., 0]

  def init(key: jax.Array, batch: Transition) -> State:
    key, policy_key, value_key, critic_key = jax.random.split(key, 4)
    params = policies.init(policy, spec, policy_key, batch)
    observation, action = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), (batch.observation, batch.action))
    observation = scaling.standardise(params.observation, observation)
    feature = None if num_actions else actions.features(spec.action, scaling.to_unit(params.action, action))
    value = value_network.init(value_key, observation)
    critic = critic_network.init(critic_key, observation, feature)
    optimizers = optimizer.init(value), optimizer.init(critic), policy_optimizer.init(params.network)
    target = jax.tree.map(jnp.copy, critic)
    return State(params, value, critic, target, optimizers, jnp.zeros((), jnp.int32), key)

  def update(state: State, batch: Transition) -> tuple[State, dict[str, jax.Array]]:
    params = state.params
    # Side by side, ``[2, B, O]``: the value of both is one pass.
    both = jax.tree.map(lambda *x: jnp.stack(x), batch.observation, batch.next_observation)
    both = scaling.standardise(params.observation, both)
    observation = jax.tree.map(lambda x: x[0], both)
    action = scaling.to_unit(params.action, batch.action)
    reward = reward_scale * batch.reward + reward_shift
    rngs = {"dropout": jax.random.fold_in(state.key, state.step)} if dropout else None
    target_q = jnp.min(q_values(state.target, observation, action), axis=0)

    def of_value(variables):
      v = value_network.apply(variables, observation)
      return value_loss(target_q, v, expectile), v

    def of_critic(variables):
      q = q_values(variables, observation, action)
      return critic_loss(q, next_v, reward, discount * batch.discount), q

    def of_policy(variables):
      dist = policy.apply(variables, observation, rngs=rngs)
      return policy_loss(dist.log_prob(action), weight)

    (v_loss, v), gradient = jax.value_and_grad(of_value, has_aux=True)(state.value)
    value, value_optimizer = policies.step(optimizer, replicas.mean(gradient), state.optimizer[0], state.value)

    new_v, next_v = value_network.apply(value, both)
    advantage = target_q - new_v
    weight = advantage_weight(advantage, temperature, max_weight)
    p_loss, gradient = jax.value_and_grad(of_policy)(params.network)
    gradient = replicas.mean(gradient)
    network, network_optimizer = policies.step(policy_optimizer, gradient, state.optimizer[2], params.network)

    (q_loss, q), gradient = jax.value_and_grad(of_critic, has_aux=True)(state.critic)
    critic, critic_optimizer = policies.step(optimizer, replicas.mean(gradient), state.optimizer[1], state.critic)
    target = optax.incremental_update(critic, state.target, tau)

    metrics = {
      "loss": v_loss + q_loss + p_loss,
      "value_loss": v_loss,
      "critic_loss": q_loss,
      "policy_loss": p_loss,
      "v": jnp.mean(v),
      "q": jnp.mean(q),
      "advantage": jnp.mean(advantage),
      "weight": jnp.mean(weight),
    }
    optimizers = value_optimizer, critic_optimizer, network_optimizer
    state = State(params._replace(network=network), value, critic, target, optimizers, state.step + 1, state.key)
    return state, metrics

  agent = Agent(
    init=init,
    update=update,
    act=policies.make_act(policy),
    carry=lambda batch_size: (),
    # Where it does not count it is left out: it may be traced.
    view=Transitions(n_step=n_step, discount=discount if n_step > 1 else 1.0, frame_stack=frame_stack),
    log_prob=policies.make_log_prob(policy),
  )
  return checks.checked(spec, agent)


def value_loss(q: jax.Array, v: jax.Array, expectile: float) -> jax.Array:
  """``E |expectile - 1(q < v)| (q - v)^2`` (equation 5); no gradient flows into ``q``. Both ``[B]``, to ``[]``."""
  difference = jax.lax.stop_gradient(q) - v
  return jnp.mean(jnp.where(difference > 0, expectile, 1 - expectile) * jnp.square(difference))


def critic_loss(q: jax.Array, next_v: jax.Array, reward: jax.Array, discount: jax.Array) -> jax.Array:
  """``E sum_k (reward + discount next_v - q_k)^2`` (equation 6); no gradient flows into ``next_v``.

  Args:
    q: ``[K, B]``, of each critic.
    next_v: ``[B]``.
    reward: ``[B]``.
    discount: ``[B]``, gamma included.
  """
  target = jax.lax.stop_gradient(reward + discount * next_v)
  return jnp.mean(jnp.sum(jnp.square(q - target), axis=0))


def advantage_weight(advantage: jax.Array, temperature: float, max_weight: float) -> jax.Array:
  """``min(exp(temperature advantage), max_weight)`` (equation 7, clipped as by the authors): ``[B]``."""
  return jnp.minimum(jnp.exp(temperature * advantage), max_weight)


def policy_loss(log_prob: jax.Array, weight: jax.Array) -> jax.Array:
  """``-E weight log pi(a | s)`` (equation 7); no gradient flows into ``weight``. Both ``[B]``, to ``[]``."""
  return -jnp.mean(jax.lax.stop_gradient(weight) * log_prob)
