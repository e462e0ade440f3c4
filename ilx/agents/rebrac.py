"""ReBRAC (Tarasov et al. 2023, "Revisiting the Minimalist Approach to Offline Reinforcement Learning")."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ilx import ranges
from ilx.agents import checks, policies
from ilx.agents.td3_bc import State, check_continuous, critic_loss, initial_state, mean_size, normal, smoothed
from ilx.data.views import Transitions
from ilx.networks import critics, distributions, encoders, scaling
from ilx.parallel import replicas
from ilx.types import Agent, Spec, Transition


def rebrac(
  spec: Spec,
  *,
  actor_bc_coef: float = 0.01,
  critic_bc_coef: float = 0.01,
  discount: float = 0.99,
  tau: float = 0.005,
  policy_noise: float = 0.2,
  noise_clip: float = 0.5,
  policy_delay: int = 2,
  num_critics: int = 2,
  hidden: Sequence[int] = (256, 256, 256),
  layer_norm: bool = True,
  normalize_q: bool = True,
  normalize_states: bool = False,
  reward_scale: float = 1.0,
  encoder: str | Callable[..., Any] = "auto",
  encoder_options: Mapping[str, Any] | None = None,
  optimizer: optax.GradientTransformation | None = None,
  critic_optimizer: optax.GradientTransformation | None = None,
  frame_stack: int = 0,
) -> Agent:
  """TD3+BC with a penalty in the critics as well, deeper networks and layer norm.

  Both Q regress on ``r + discount (min_k Q_k(s', a~) - beta_2 |a~ - a'|^2)`` where ``a~ = pi(s') + noise`` is of the
  target networks and a' what the data did at s'; the policy minimises ``beta_1 |pi(s) - a|^2 - lambda min_k Q_k(s,
  pi(s))`` with ``lambda = 1 / E |min_k Q_k|``. Squares are summed over the dimensions of actions scaled to [-1, 1].

  An update follows the authors' implementation: both Q; then, in the first and every ``policy_delay``-th update after
  it, the policy by the new Q, and all targets, the target policy moving towards the policy *before* its step.

  The data has no action that followed a time limit: there beta_2 counts as 0, and the bootstrap stays. (The authors
  leave these transitions out.)

  Args:
    spec: observations, actions, and the statistics by which observations are standardised if that is asked for.
    actor_bc_coef: beta_1. The paper chooses both for each dataset: 0.001 to 0.1 for locomotion.
    critic_bc_coef: beta_2; 0 to 0.5.
    discount: gamma; the paper has 0.999 for antmaze.
    tau: of the targets' moving average.
    policy_noise: standard deviation of the noise on the target policy's actions.
    noise_clip: where that noise is clipped.
    policy_delay: updates of both Q to one of the policy and the targets.
    num_critics: how many Q there are, of which the smallest counts; the paper has two.
    hidden: widths of the MLP torsos.
    layer_norm: in the torsos of both Q, after the activations.
    normalize_q: whether lambda is as above, or 1.
    normalize_states: whether observations are standardised; they are not in the paper. Bytes are then
      divided by 255, as those of pictures always are.
    reward_scale: learns from ``reward_scale * reward``; the paper has 100 for antmaze.
    encoder: of pictures, one of ``ilx.networks.encoders.PICTURES`` or a class of modules; each network has its own.
      Other leaves are flattened and joined.
    encoder_options: as of ``bc``.
    optimizer: of the policy, default ``optax.adam(1e-3)``. A schedule counts each one's own updates.
    critic_optimizer: of both Q, default ``optimizer``; the paper has another learning rate, 5e-5, for antmaze.
    frame_stack: as in `Transitions`; the spec is then of stacked frames (``ilx.data.spec(..., frame_stack=...)``).

  Returns:
    An agent that learns from `Transitions` with the next action.

  Raises:
    ValueError: for actions that are not continuous, for hyper-parameters out of range, and for observations that are no
      numbers.

  Warns:
    UserWarning: where an MLP would have to look at very many numbers, or at small ones divided by 255.
  """
  checks.check_spec(spec)
  check_continuous("rebrac", spec)
  ranges.finite_at_least_0(actor_bc_coef=actor_bc_coef, critic_bc_coef=critic_bc_coef, policy_noise=policy_noise)
  ranges.at_least_0(noise_clip=noise_clip)
  ranges.finite(reward_scale=reward_scale)
  ranges.from_0_to_1(discount=discount)
  ranges.above_0_to_1(tau=tau)
  ranges.at_least_1(policy_delay=policy_delay)
  if not normalize_states:
    policies.warn_of_small_bytes(spec)
    spec = spec._replace(statistics=None)
  policy = policies.make(spec, head="deterministic", hidden=hidden, encoder=encoder, encoder_options=encoder_options)
  policy = policy.clone(torso=Torso(tuple(hidden)), head=Head(spec.action.size))
  torso, encode = Torso(tuple(hidden), layer_norm), encoders.make(spec.observation, encoder, encoder_options)
  critic_network = critics.Ensemble(_Critic(torso, encode), num_critics)
  optimizer = optax.adam(1e-3) if optimizer is None else optimizer
  critic_optimizer = optimizer if critic_optimizer is None else critic_optimizer

  def check(batch: Transition) -> None:
    if batch.next_action is None or batch.next_is_last is None:
      raise ValueError("rebrac: the batch has no next_action and next_is_last; take batches by the agent's own view")

  def init(key: jax.Array, batch: Transition) -> State:
    check(batch)
    return initial_state(spec, policy, critic_network, (critic_optimizer, optimizer), key, batch)

  def update(state: State, batch: Transition) -> tuple[State, dict[str, jax.Array]]:
    check(batch)
    params = state.params
    observation, next_observation = (
      scaling.standardise(params.observation, x) for x in (batch.observation, batch.next_observation)
    )
    action, data_action = (scaling.to_unit(params.action, x) for x in (batch.action, batch.next_action))

    noise = normal(state, action.shape)
    next_action = policy.apply(state.target_policy, next_observation).mode()
    next_action = smoothed(next_action, policy_noise * noise, noise_clip)
    penalty = jnp.where(batch.next_is_last, 0.0, squared_distance(next_action, data_action))
    next_q = jnp.min(critic_network.apply(state.target_critic, next_observation, next_action), axis=0)
    target_q = reward_scale * batch.reward + discount * batch.discount * (next_q - critic_bc_coef * penalty)

    def of_critic(variables):
      q = critic_network.apply(variables, observation, action)
      return critic_loss(q, target_q), q

    (q_loss, q), gradient = jax.value_and_grad(of_critic, has_aux=True)(state.critic)
    critic, critic_state = policies.step(critic_optimizer, replicas.mean(gradient), state.optimizer[0], state.critic)

    def of_policy(variables):
      chosen = policy.apply(variables, observation).mode()
      q = jnp.min(critic_network.apply(critic, observation, chosen), axis=0)
      bc_loss = jnp.mean(squared_distance(chosen, action))
      loss = policy_loss(q, bc_loss, actor_bc_coef, normalize_q)
      return loss, {"policy_loss": loss, "bc_loss": bc_loss}

    def learn():
      gradient, metrics = replicas.mean(jax.grad(of_policy, has_aux=True)(params.network))
      network, optimizer_state = policies.step(optimizer, gradient, state.optimizer[1], params.network)
      target_policy = optax.incremental_update(params.network, state.target_policy, tau)
      target_critic = optax.incremental_update(critic, state.target_critic, tau)
      return network, target_policy, target_critic, optimizer_state, metrics

    def wait():
      return params.network, state.target_policy, state.target_critic, state.optimizer[1], state.policy_metrics

    network, target_policy, target_critic, policy_state, policy_metrics = jax.lax.cond(
      state.step % policy_delay == 0, learn, wait
    )
    metrics = {
      "loss": q_loss + policy_metrics["policy_loss"],
      "critic_loss": q_loss,
      "q": jnp.mean(q),
      "penalty": jnp.mean(penalty),
      **policy_metrics,
    }
    optimizers = critic_state, policy_state
    params = params._replace(network=network)
    state = State(params, target_policy, critic, target_critic, optimizers, policy_metrics, state.step + 1, state.key)
    return state, metrics

  agent = Agent(
    init=init,
    update=update,
    act=policies.make_act(policy),
    carry=lambda batch_size: (),
    view=Transitions(frame_stack=frame_stack, next_action=True),
  )
  return checks.checked(spec, agent)


def squared_distance(a: jax.Array, b: jax.Array) -> jax.Array:
  """``|a - b|^2``, summed over the dimensions of actions: ``[B, A]`` to ``[B]``."""
  return jnp.sum(jnp.square(a - b), axis=-1)


def policy_loss(q: jax.Array, bc_loss: jax.Array, actor_bc_coef: float, normalize_q: bool) -> jax.Array:
  """``actor_bc_coef bc_loss - lambda E q`` with ``lambda = 1 / E |q|`` (or 1), into which no gradient flows.

  Args:
    q: ``[B]``, the smaller one of the policy's actions.
    bc_loss: ``[]``, the mean `squared_distance` of the policy's actions and the data's.
    actor_bc_coef, normalize_q: see `rebrac`.
  """
  scale = 1.0 / mean_size(q) if normalize_q else 1.0
  return actor_bc_coef * bc_loss - scale * jnp.mean(q)


class Torso(nn.Module):
  """Dense layers, each followed by ReLU and then (optional) layer norm; initial weights as An et al. 2021 (EDAC)."""

  features: Sequence[int]
  layer_norm: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """``[..., F]`` to ``[..., features[-1]]``."""
    for width in self.features:
      # Uniform within 1 / sqrt(inputs), PyTorch's default.
      kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
      x = nn.relu(nn.Dense(width, kernel_init=kernel, bias_init=nn.initializers.constant(0.1))(x))
      if self.layer_norm:
        x = nn.LayerNorm()(x)
    return x


class Head(nn.Module):
  """The deterministic head whose first actions are all close to 0."""

  action_size: int

  @nn.compact
  def __call__(self, x: jax.Array) -> distributions.Deterministic:
    """``[..., F]`` to actions ``[..., action_size]``."""
    return distributions.Deterministic(jnp.tanh(_small(self.action_size, 1e-3, "mean")(x)))


class _Critic(nn.Module):
  """As `ilx.networks.critics.Critic`, of observations and actions, whose first values are all close to 0."""

  torso: nn.Module
  encoder: nn.Module

  @nn.compact
  def __call__(self, observation: Any, action: jax.Array) -> jax.Array:
    x = jnp.concatenate([self.encoder(observation), action], axis=-1)
    return _small(1, 3e-3, "value")(self.torso(x))[..., 0]


def _small(features: int, bound: float, name: str) -> nn.Dense:
  def uniform(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return nn.Dense(features, kernel_init=uniform, bias_init=uniform, name=name)
