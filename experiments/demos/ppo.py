"""Proximal policy optimisation (Schulman et al. 2017) for discrete actions: the trainer of the built-in experts.

Tooling, not part of ilx. One jitted program turns a rollout into the next policy: advantages (Schulman et al. 2016),
then epochs of minibatches. The learning rate falls linearly to zero over the run.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import envpool
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ilx.networks import heads, mlp

HIDDEN = (64, 64)
DISCOUNT = 0.999
TRACE_DECAY = 0.98  # lambda of the advantage estimate
CLIP = 0.2
ENTROPY_WEIGHT = 0.01
VALUE_WEIGHT = 0.5
MAX_GRAD_NORM = 0.5
LEARNING_RATE = 1e-3
NUM_ENVS = 16
ROLLOUT_STEPS = 256  # per environment
EPOCHS = 6
MINIBATCHES = 8


class Rollout(NamedTuple):
  """``T`` steps of ``B`` environments.

  Attributes:
    observation: float32 ``[T + 1, B, O]``.
    action: int32 ``[T, B]``.
    log_prob: float32 ``[T, B]``, of the action under the policy that took it.
    reward: float32 ``[T, B]``.
    terminated: bool ``[T, B]``, the step ended the task.
    truncated: bool ``[T, B]``, the step met the time limit.
    valid: bool ``[T, B]``, false on EnvPool's step after an episode's end, which only resets.
  """

  observation: Any
  action: Any
  log_prob: Any
  reward: Any
  terminated: Any
  truncated: Any
  valid: Any


class State(NamedTuple):
  """Everything that learning changes; ``params`` is ``{"actor", "critic"}``."""

  params: Any
  opt: Any
  key: jax.Array


def policy_network(num_actions: int) -> heads.Policy:
  """The actor: observation ``[..., O]`` to a categorical over ``num_actions``."""
  return heads.Policy(mlp.MLP(HIDDEN, activation=nn.tanh), heads.CategoricalHead(num_actions))


class _Critic(nn.Module):
  @nn.compact
  def __call__(self, observation):
    return nn.Dense(1)(mlp.MLP(HIDDEN, activation=nn.tanh)(observation))[..., 0]


_critic = _Critic()


def optimizer(num_updates: int) -> optax.GradientTransformation:
  """Adam with clipped gradients for ``num_updates`` calls of ``update``."""
  schedule = optax.linear_schedule(LEARNING_RATE, 0.0, num_updates * EPOCHS * MINIBATCHES)
  return optax.chain(optax.clip_by_global_norm(MAX_GRAD_NORM), optax.adam(schedule, eps=1e-5))


def init(key: jax.Array, observation_size: int, num_actions: int, opt: optax.GradientTransformation) -> State:
  """A fresh learner whose policy is close to uniform."""
  key, actor_key, critic_key = jax.random.split(key, 3)
  observation = jnp.zeros(observation_size)
  actor = policy_network(num_actions).init(actor_key, observation)
  actor["params"]["head"]["logits"]["kernel"] *= 0.01
  params = {"actor": actor, "critic": _critic.init(critic_key, observation)}
  return State(params, opt.init(params), key)


def advantages(rollout: Rollout, value: jax.Array) -> jax.Array:
  """Generalised advantage estimates ``[T, B]``, from ``value`` ``[T + 1, B]``; 0 where the step is not valid.

  The row after an episode's end holds its last observation, so a time limit bootstraps from the right value.
  """
  not_terminated, not_done = 1.0 - rollout.terminated, 1.0 - (rollout.terminated | rollout.truncated)
  delta = rollout.reward + DISCOUNT * not_terminated * value[1:] - value[:-1]

  def backwards(advantage, row):
    delta, not_done, valid = row
    advantage = valid * (delta + DISCOUNT * TRACE_DECAY * not_done * advantage)
    return advantage, advantage

  rows = delta, not_done, rollout.valid.astype(jnp.float32)
  return jax.lax.scan(backwards, jnp.zeros_like(value[0]), rows, reverse=True)[1]


def _loss(params, num_actions, batch) -> jax.Array:
  observation, action, log_prob, advantage, value_target, valid = batch

  def mean(x):
    return jnp.sum(x * valid) / jnp.maximum(jnp.sum(valid), 1.0)

  centred = advantage - mean(advantage)
  advantage = centred / (jnp.sqrt(mean(jnp.square(centred))) + 1e-8)
  dist = policy_network(num_actions).apply(params["actor"], observation)
  ratio = jnp.exp(dist.log_prob(action) - log_prob)
  surrogate = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
  value_error = jnp.square(_critic.apply(params["critic"], observation) - value_target)
  return mean(-surrogate + VALUE_WEIGHT * value_error - ENTROPY_WEIGHT * dist.entropy())


@partial(jax.jit, static_argnames=("num_actions", "opt"), donate_argnums=0)
def update(state: State, rollout: Rollout, *, num_actions: int, opt: optax.GradientTransformation) -> State:
  """One policy improvement: ``EPOCHS`` passes over the rollout's steps in ``MINIBATCHES`` shuffled parts."""
  value = _critic.apply(state.params["critic"], rollout.observation)
  advantage = advantages(rollout, value)
  columns = (
    rollout.observation[:-1],
    rollout.action,
    rollout.log_prob,
    advantage,
    advantage + value[:-1],
    rollout.valid.astype(jnp.float32),
  )
  rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), columns)

  def minibatch(carry, index):
    params, opt_state = carry
    grad = jax.grad(_loss)(params, num_actions, jax.tree.map(lambda x: x[index], rows))
    updates, opt_state = opt.update(grad, opt_state)
    return (optax.apply_updates(params, updates), opt_state), None

  def epoch(carry, key):
    order = jax.random.permutation(key, advantage.size).reshape(MINIBATCHES, -1)
    return jax.lax.scan(minibatch, carry, order)

  key, *epoch_keys = jax.random.split(state.key, EPOCHS + 1)
  params, opt_state = jax.lax.scan(epoch, (state.params, state.opt), jnp.stack(epoch_keys))[0]
  return State(params, opt_state, key)


@partial(jax.jit, static_argnums=1)
def _sample_action(actor, num_actions, observation, key):
  dist = policy_network(num_actions).apply(actor, observation)
  action = dist.sample(key)
  return action, dist.log_prob(action)


def train(
  env_id: str,
  *,
  seed: int,
  env_steps: int,
  snapshot_every: int,
  on_step: Callable[[int], None] = lambda step: None,
) -> Iterator[tuple[int, Any]]:
  """Trains; yields ``(environment steps so far, actor params)`` every ``snapshot_every`` steps, at whole updates."""
  env = envpool.make(env_id, env_type="gymnasium", num_envs=NUM_ENVS, num_threads=1, seed=seed)
  observation_size, num_actions = env.observation_space.shape[0], int(env.action_space.n)
  steps_per_update = NUM_ENVS * ROLLOUT_STEPS
  num_updates = -(-env_steps // steps_per_update)
  opt = optimizer(num_updates)
  state = init(jax.random.key(seed), observation_size, num_actions, opt)
  act_key = jax.random.key(seed + 1)
  observation = env.reset()[0].astype(np.float32)
  was_done = np.zeros(NUM_ENVS, bool)
  for i in range(num_updates):
    columns = []
    for t in range(ROLLOUT_STEPS):
      key = jax.random.fold_in(act_key, i * ROLLOUT_STEPS + t)
      action, log_prob = jax.device_get(_sample_action(state.params["actor"], num_actions, observation, key))
      next_observation, reward, terminated, truncated, _ = env.step(action)
      columns.append((observation, action, log_prob, reward, terminated, truncated, ~was_done))
      observation, was_done = next_observation.astype(np.float32), terminated | truncated
    stacked = [np.stack(column) for column in zip(*columns, strict=True)]
    stacked[0] = np.concatenate([stacked[0], observation[None]])
    state = update(state, Rollout(*stacked), num_actions=num_actions, opt=opt)
    step = (i + 1) * steps_per_update
    on_step(step)
    if step % snapshot_every < steps_per_update or i + 1 == num_updates:
      yield step, jax.device_get(state.params["actor"])
  env.close()
