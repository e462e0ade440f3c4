"""TD3+BC (Fujimoto and Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning")."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ilx import ranges
from ilx.agents import checks, policies
from ilx.agents.policies import Params
from ilx.data.views import Transitions
from ilx.networks import critics, encoders, mlp, scaling
from ilx.parallel import replicas
from ilx.types import Agent, Continuous, Spec, Transition


class State(NamedTuple):
  """All that learning changes.

  Attributes:
    params: `Params` of the policy.
    target_policy: variables of the target policy.
    critic: variables of both Q.
    target_critic: of both target Q.
    optimizer: the optax states of both Q and of the policy.
    policy_metrics: of the policy's last update, which the updates in between report again; 0 before the first.
    step: int32 ``[]``, updates made.
    key: of the randomness in updates to come.
  """

  params: Params
  target_policy: Any
  critic: Any
  target_critic: Any
  optimizer: tuple[Any, Any]
  policy_metrics: dict[str, jax.Array]
  step: jax.Array
  key: jax.Array


def td3_bc(
  spec: Spec,
  *,
  alpha: float = 2.5,
  discount: float = 0.99,
  tau: float = 0.005,
  policy_noise: float = 0.2,
  noise_clip: float = 0.5,
  policy_delay: int = 2,
  num_critics: int = 2,
  hidden: Sequence[int] = (256, 256),
  encoder: str | Callable[..., Any] = "auto",
  encoder_options: Mapping[str, Any] | None = None,
  optimizer: optax.GradientTransformation | None = None,
  frame_stack: int = 0,
) -> Agent:
  """TD3 whose policy also imitates the data's actions.

  Both Q regress on ``r + discount min_k Q_k(s', pi(s') + noise)`` with target networks (Fujimoto et al. 2018), and the
  policy maximises ``lambda Q_1(s, pi(s)) - (pi(s) - a)^2`` with ``lambda = alpha / E |Q_1|`` (equations 4 and 5).
  Actions are scaled to [-1, 1], in which the noise and the square are measured.

  An update follows the authors' implementation: both Q; then, in every ``policy_delay``-th update, the first of them
  being the ``policy_delay``-th, the policy by the new Q, and all targets. Other than there, weights begin as Flax's
  layers do, and observations are standardised as by all agents here (`ilx.networks.scaling`): clipped, by deviations
  of at least 1e-3, where the authors add 1e-3 to them.

  Args:
    spec: observations, actions, and the statistics by which observations are standardised.
    alpha: how much Q counts beside imitation; 0 is behaviour cloning.
    discount: gamma.
    tau: of the targets' moving average.
    policy_noise: standard deviation of the noise on the target policy's actions.
    noise_clip: where that noise is clipped.
    policy_delay: updates of both Q to one of the policy and the targets.
    num_critics: how many Q there are, of which the smallest counts; the paper has two.
    hidden: widths of the MLP torsos.
    encoder: of pictures, one of ``ilx.networks.encoders.PICTURES`` or a class of modules; each network has its own.
      Other leaves are flattened and joined.
    encoder_options: as of ``bc``.
    optimizer: of both Q and of the policy, default ``optax.adam(3e-4)``. A schedule counts each one's own updates.
    frame_stack: as in `Transitions`; the spec is then of stacked frames (``ilx.data.spec(..., frame_stack=...)``).

  Returns:
    An agent that learns from `Transitions`.

  Raises:
    ValueError: for actions that are not continuous, for hyper-parameters out of range, and for observations that are no
      numbers.

  Warns:
    UserWarning: where an MLP would have to look at very many numbers.

  Example:
    >>> from ilx.types import Step
    >>> spec = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), Continuous([-1.0], [1.0]))
    >>> agent = td3_bc(spec, hidden=(32,), optimizer=optax.adam(1e-2))
    >>> observation, action = jnp.ones((8, 2)), jnp.linspace(-1, 1, 8)[:, None]
    >>> batch = Transition(observation, action, action[:, 0], discount=jnp.zeros(8), next_observation=observation)
    >>> state = agent.init(jax.random.key(0), batch)
    >>> for _ in range(100):
    ...   state, metrics = jax.jit(agent.update)(state, batch)
    >>> step = Step(observation, batch.reward, jnp.zeros(8, bool))
    >>> action, carry = agent.act(state.params, agent.carry(8), step, None)
    >>> bool(jnp.all(action > 0.5))
    True
  """
  checks.check_spec(spec)
  check_continuous("td3_bc", spec)
  ranges.finite_at_least_0(alpha=alpha, policy_noise=policy_noise)
  ranges.at_least_0(noise_clip=noise_clip)
  ranges.from_0_to_1(discount=discount)
  ranges.above_0_to_1(tau=tau)
  ranges.at_least_1(policy_delay=policy_delay)
  policy = policies.make(spec, head="deterministic", hidden=hidden, encoder=encoder, encoder_options=encoder_options)
  torso, encode = mlp.MLP(tuple(hidden)), encoders.make(spec.observation, encoder, encoder_options)
  critic_network = critics.Ensemble(critics.Critic(torso, encode), num_critics)
  optimizer = optax.adam(3e-4) if optimizer is None else optimizer

  def init(key: jax.Array, batch: Transition) -> State:
    return initial_state(spec, policy, critic_network, (optimizer, optimizer), key, batch)

  def update(state: State, batch: Transition) -> tuple[State, dict[str, jax.Array]]:
    params = state.params
    observation, next_observation = (
      scaling.standardise(params.observation, x) for x in (batch.observation, batch.next_observation)
    )
    action = scaling.to_unit(params.action, batch.action)

    noise = normal(state, action.shape)
    next_action = policy.apply(state.target_policy, next_observation).mode()
    next_action = smoothed(next_action, policy_noise * noise, noise_clip)
    next_q = jnp.min(critic_network.apply(state.target_critic, next_observation, next_action), axis=0)
    target_q = batch.reward + discount * batch.discount * next_q

    def of_critic(variables):
      q = critic_network.apply(variables, observation, action)
      return critic_loss(q, target_q), q

    (q_loss, q), gradient = jax.value_and_grad(of_critic, has_aux=True)(state.critic)
    critic, critic_optimizer = policies.step(optimizer, replicas.mean(gradient), state.optimizer[0], state.critic)

    def of_policy(variables):
      chosen = policy.apply(variables, observation).mode()
      q1 = critic_network.critic.apply(critic_network.first(critic), observation, chosen)
      bc_loss = jnp.mean(jnp.square(chosen - action))
      loss = policy_loss(q1, bc_loss, alpha)
      return loss, {"policy_loss": loss, "bc_loss": bc_loss}

    def learn():
      gradient, metrics = replicas.mean(jax.grad(of_policy, has_aux=True)(params.network))
      network, policy_optimizer = policies.step(optimizer, gradient, state.optimizer[1], params.network)
      target_policy = optax.incremental_update(network, state.target_policy, tau)
      target_critic = optax.incremental_update(critic, state.target_critic, tau)
      return network, target_policy, target_critic, policy_optimizer, metrics

    def wait():
      return params.network, state.target_policy, state.target_critic, state.optimizer[1], state.policy_metrics

    network, target_policy, target_critic, policy_optimizer, policy_metrics = jax.lax.cond(
      (state.step + 1) % policy_delay == 0, learn, wait
    )
    metrics = {
      "loss": q_loss + policy_metrics["policy_loss"],
      "critic_loss": q_loss,
      "q": jnp.mean(q),
      **policy_metrics,
    }
    optimizers = critic_optimizer, policy_optimizer
    params = params._replace(network=network)
    state = State(params, target_policy, critic, target_critic, optimizers, policy_metrics, state.step + 1, state.key)
    return state, metrics

  agent = Agent(
    init=init,
    update=update,
    act=policies.make_act(policy),
    carry=lambda batch_size: (),
    view=Transitions(frame_stack=frame_stack),
  )
  return checks.checked(spec, agent)


def initial_state(
  spec: Spec,
  policy: Any,
  critic_network: critics.Ensemble,
  optimizers: tuple[optax.GradientTransformation, optax.GradientTransformation],
  key: jax.Array,
  batch: Transition,
) -> State:
  """Fresh networks, with targets that are copies of them; of the batch shapes and dtypes alone are used.

  ``optimizers`` are those of both Q and of the policy.
  """
  key, policy_key, critic_key = jax.random.split(key, 3)
  params = policies.init(policy, spec, policy_key, batch)
  observation, action = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), (batch.observation, batch.action))
  observation, action = scaling.standardise(params.observation, observation), scaling.to_unit(params.action, action)
  critic = critic_network.init(critic_key, observation, action)
  return State(
    params=params,
    target_policy=jax.tree.map(jnp.copy, params.network),
    critic=critic,
    target_critic=jax.tree.map(jnp.copy, critic),
    optimizer=(optimizers[0].init(critic), optimizers[1].init(params.network)),
    policy_metrics={name: jnp.zeros((), jnp.float32) for name in ("policy_loss", "bc_loss")},
    step=jnp.zeros((), jnp.int32),
    key=key,
  )


def normal(state: State, shape: tuple[int, ...]) -> jax.Array:
  """The update's noise, float32 ``shape``: standard normal, before it is scaled."""
  draw = functools.partial(jax.random.normal, dtype=jnp.float32)
  return replicas.draw(draw, jax.random.fold_in(state.key, state.step), shape)


def smoothed(action: jax.Array, noise: jax.Array, noise_clip: float) -> jax.Array:
  """An action of the target policy with clipped noise, in [-1, 1] (Fujimoto et al. 2018, equation 14): ``[B, A]``."""
  return jnp.clip(action + jnp.clip(noise, -noise_clip, noise_clip), -1.0, 1.0)


def critic_loss(q: jax.Array, target_q: jax.Array) -> jax.Array:
  """``sum_k E (target_q - q_k)^2``; no gradient flows into ``target_q``. ``[K, B]`` and ``[B]``, to ``[]``."""
  return jnp.sum(jnp.mean(jnp.square(q - jax.lax.stop_gradient(target_q)), axis=1))


def policy_loss(q: jax.Array, bc_loss: jax.Array, alpha: float) -> jax.Array:
  """``bc_loss - lambda E q`` with ``lambda = alpha / E |q|``, into which no gradient flows (equations 4 and 5).

  Args:
    q: ``[B]``, of the policy's actions.
    bc_loss: ``[]``, the mean square of the policy's actions less the data's, over batch and dimensions.
    alpha: see `td3_bc`.
  """
  return bc_loss - alpha / mean_size(q) * jnp.mean(q)


def mean_size(q: jax.Array) -> jax.Array:
  """``E |q|`` of ``[B]``, without a gradient and above 0, by which it can be divided where all of q is 0."""
  size = jax.lax.stop_gradient(replicas.mean(jnp.mean(jnp.abs(q))))
  return jnp.maximum(size, 1e-8)


def check_continuous(name: str, spec: Spec) -> None:
  """Raises ValueError where the spec's actions are not continuous."""
  if not isinstance(spec.action, Continuous):
    raise ValueError(f"{name} learns continuous actions, and the spec's are {spec.action}; choose iql or bc for these")
