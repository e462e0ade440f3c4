"""Soft actor-critic (Haarnoja et al. 2018) for continuous control: the trainer of the built-in experts.

Tooling, not part of ilx. Three departures from the paper make it quick on a few CPU cores: layer norm in the
critics (Hiraoka et al. 2021), one actor update for two critic updates (Fujimoto et al. 2018) and batches of 128.
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

HIDDEN = (256, 256)
DISCOUNT = 0.99
TARGET_RATE = 0.005
BATCH_SIZE = 128
LEARNING_RATE = 3e-4
CRITIC_UPDATES_PER_ACTOR_UPDATE = 2
RANDOM_STEPS = 10_000


class Batch(NamedTuple):
  """Leading axis B; observations are float32 ``[B, O]``, actions in (-1, 1) ``[B, A]``."""

  observation: Any
  action: Any
  reward: Any
  discount: Any
  next_observation: Any


class State(NamedTuple):
  """Everything that learning changes."""

  actor: Any
  critic: Any
  target: Any
  log_alpha: jax.Array
  actor_opt: Any
  critic_opt: Any
  alpha_opt: Any
  key: jax.Array


def policy_network(action_size: int) -> heads.Policy:
  """The actor: observation ``[..., O]`` to a squashed Gaussian over ``[..., A]``."""
  return heads.Policy(mlp.MLP(HIDDEN), heads.TanhGaussianHead(action_size))


class _Critic(nn.Module):
  @nn.compact
  def __call__(self, observation, action):
    x = jnp.concatenate([observation, action], axis=-1)
    return nn.Dense(1)(mlp.MLP(HIDDEN, layer_norm=True)(x))[..., 0]


_critic = _Critic()
_optimizer = optax.adam(LEARNING_RATE)


def _q_values(params, observation, action) -> jax.Array:
  """Both critics: ``[2, B]``."""
  return jnp.stack([_critic.apply(p, observation, action) for p in params])


def init(key: jax.Array, observation_size: int, action_size: int) -> State:
  """A fresh learner."""
  key, actor_key, *critic_keys = jax.random.split(key, 4)
  observation, action = jnp.zeros(observation_size), jnp.zeros(action_size)
  actor = policy_network(action_size).init(actor_key, observation)
  critic = tuple(_critic.init(k, observation, action) for k in critic_keys)
  log_alpha = jnp.zeros(())
  return State(
    actor=actor,
    critic=critic,
    target=jax.tree.map(jnp.copy, critic),  # donation needs buffers of its own
    log_alpha=log_alpha,
    actor_opt=_optimizer.init(actor),
    critic_opt=_optimizer.init(critic),
    alpha_opt=_optimizer.init(log_alpha),
    key=key,
  )


def _update_critic(state: State, batch: Batch) -> State:
  key, sample_key = jax.random.split(state.key)
  policy = policy_network(batch.action.shape[-1])
  dist = policy.apply(state.actor, batch.next_observation)
  next_action, next_log_prob = dist.sample_and_log_prob(sample_key)
  next_q = jnp.min(_q_values(state.target, batch.next_observation, next_action), axis=0)
  next_v = next_q - jnp.exp(state.log_alpha) * next_log_prob
  target_q = batch.reward + batch.discount * DISCOUNT * next_v

  def loss(critic):
    q = _q_values(critic, batch.observation, batch.action)
    return jnp.sum(jnp.mean(jnp.square(q - target_q), axis=1))

  updates, critic_opt = _optimizer.update(jax.grad(loss)(state.critic), state.critic_opt)
  critic = optax.apply_updates(state.critic, updates)
  target = optax.incremental_update(critic, state.target, TARGET_RATE)
  return state._replace(critic=critic, target=target, critic_opt=critic_opt, key=key)


def _update_actor(state: State, batch: Batch) -> State:
  key, sample_key = jax.random.split(state.key)
  action_size = batch.action.shape[-1]
  alpha = jnp.exp(state.log_alpha)

  def loss(actor):
    dist = policy_network(action_size).apply(actor, batch.observation)
    action, log_prob = dist.sample_and_log_prob(sample_key)
    q = jnp.min(_q_values(state.critic, batch.observation, action), axis=0)
    return jnp.mean(alpha * log_prob - q), jnp.mean(log_prob)

  grad, log_prob = jax.grad(loss, has_aux=True)(state.actor)
  updates, actor_opt = _optimizer.update(grad, state.actor_opt)
  actor = optax.apply_updates(state.actor, updates)
  # The temperature rises while the entropy is below its target, -A.
  alpha_updates, alpha_opt = _optimizer.update(-(log_prob - action_size), state.alpha_opt)
  log_alpha = optax.apply_updates(state.log_alpha, alpha_updates)
  return state._replace(actor=actor, log_alpha=log_alpha, actor_opt=actor_opt, alpha_opt=alpha_opt, key=key)


@partial(jax.jit, donate_argnums=0)
def update(state: State, batches: Batch) -> State:
  """One round per leading index of ``batches`` (``[K, 2, B, ...]``): two critic updates, one of the actor."""

  def one_round(state, batch):
    for i in range(CRITIC_UPDATES_PER_ACTOR_UPDATE):
      state = _update_critic(state, jax.tree.map(lambda x, i=i: x[i], batch))
    return _update_actor(state, jax.tree.map(lambda x: x[-1], batch)), None

  return jax.lax.scan(one_round, state, batches)[0]


@partial(jax.jit, static_argnums=1)
def _sample_action(actor, action_size, observation, key):
  return policy_network(action_size).apply(actor, observation).sample(key)


class _Replay:
  """A ring buffer in host memory that keeps every transition of the run."""

  def __init__(self, capacity: int, observation_size: int, action_size: int):
    shapes = (observation_size,), (action_size,), (), (), (observation_size,)
    self.data = Batch(*[np.zeros((capacity, *s), np.float32) for s in shapes])
    self.size = 0

  def add(self, rows: Batch) -> None:
    n = len(rows.reward)
    for column, row in zip(self.data, rows, strict=True):
      column[self.size : self.size + n] = row
    self.size += n

  def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Batch:
    index = rng.integers(self.size, size=shape)
    return Batch(*[column[index] for column in self.data])


def train(
  env_id: str,
  *,
  seed: int,
  env_steps: int,
  snapshot_every: int,
  num_envs: int = 16,
  env_steps_per_update: int = 2,
  random_steps: int = RANDOM_STEPS,
  on_step: Callable[[int], None] = lambda step: None,
) -> Iterator[tuple[int, Any]]:
  """Trains; yields ``(environment steps so far, actor params)`` every ``snapshot_every`` steps.

  Actions are in (-1, 1) throughout: the MuJoCo tasks' own bounds.
  """
  env = envpool.make(env_id, env_type="gymnasium", num_envs=num_envs, num_threads=1, seed=seed)
  observation_size, action_size = env.observation_space.shape[0], env.action_space.shape[0]
  rng = np.random.default_rng(seed)
  state = init(jax.random.key(seed), observation_size, action_size)
  act_key = jax.random.key(seed + 1)
  replay = _Replay(env_steps + num_envs, observation_size, action_size)
  per_step = num_envs // env_steps_per_update // CRITIC_UPDATES_PER_ACTOR_UPDATE
  batch_shape = (per_step, CRITIC_UPDATES_PER_ACTOR_UPDATE, BATCH_SIZE)
  observation = env.reset()[0].astype(np.float32)
  was_done = np.zeros(num_envs, bool)
  for step in range(num_envs, env_steps + 1, num_envs):
    if step <= random_steps:
      action = rng.uniform(-1, 1, (num_envs, action_size))
    else:
      key = jax.random.fold_in(act_key, step)
      action = np.asarray(_sample_action(state.actor, action_size, observation, key), np.float64)
    next_observation, reward, terminated, truncated, _ = env.step(action)
    next_observation = next_observation.astype(np.float32)
    # The step after an episode's end only resets: it is no transition.
    valid = ~was_done
    rows = Batch(observation, action, reward, 1.0 - terminated, next_observation)
    replay.add(Batch(*[column[valid] for column in rows]))
    observation, was_done = next_observation, terminated | truncated
    if step > random_steps:
      state = update(state, replay.sample(rng, batch_shape))
    on_step(step)
    if step % snapshot_every < num_envs:
      yield step, jax.device_get(state.actor)
  env.close()
