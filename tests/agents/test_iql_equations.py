"""IQL against the paper's equations, written once more in float64 numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilx import testing
from ilx.agents import iql
from ilx.types import Discrete, Transition

EXPECTILE, TEMPERATURE, DISCOUNT, TAU, RATE = 0.8, 2.0, 0.95, 0.1, 1e-2
SCALE, SHIFT = 0.5, -0.25
MOST = 1.2  # some weights are clipped, and most are not


def _dense(variables, x):
  return x @ variables["kernel"] + variables["bias"]


def _torso(variables, x):
  for i in range(len(variables)):
    x = np.maximum(_dense(variables[f"Dense_{i}"], x), 0.0)
  return x


def _value(variables, x):
  return _dense(variables["params"]["value"], _torso(variables["params"]["torso"], x))


class _Paper:
  """Equations 5 to 7 for one batch, functions of the networks' variables (float64)."""

  def __init__(self, spec, batch):
    mean, std = spec.statistics.mean, np.maximum(spec.statistics.std, 1e-3)
    self.s, self.next_s = (
      np.clip((np.asarray(x, np.float64) - mean) / std, -10, 10) for x in (batch.observation, batch.next_observation)
    )
    self.a = np.asarray(batch.action)
    self.discrete = isinstance(spec.action, Discrete)
    if not self.discrete:
      self.a = 2 * (self.a - spec.action.low) / (spec.action.high - spec.action.low) - 1
    self.r = SCALE * np.asarray(batch.reward, np.float64) + SHIFT
    self.d = DISCOUNT * np.asarray(batch.discount, np.float64)

  def q(self, critic):
    if self.discrete:
      return np.stack([_value(k, self.s)[np.arange(len(self.a)), self.a] for k in critic])
    return np.stack([_value(k, np.concatenate([self.s, self.a], -1))[:, 0] for k in critic])

  def log_prob(self, policy):
    features = _torso(policy["params"]["torso"], self.s)
    head = policy["params"]["head"]
    if self.discrete:
      logits = _dense(head["logits"], features)
      return logits[np.arange(len(self.a)), self.a] - np.log(np.exp(logits).sum(-1))
    mean, std = np.tanh(_dense(head["mean"], features)), np.exp(head["log_std"])
    return np.sum(-0.5 * ((self.a - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi)), -1)

  def value_loss(self, value, target):
    u = self.q(target).min(0) - _value(value, self.s)[:, 0]
    return np.mean(np.abs(EXPECTILE - (u < 0)) * u**2)

  def critic_loss(self, critic, value):
    target = self.r + self.d * _value(value, self.next_s)[:, 0]
    return np.mean((target - self.q(critic)) ** 2, axis=1).sum()

  def advantage(self, target, value):
    return self.q(target).min(0) - _value(value, self.s)[:, 0]

  def policy_loss(self, policy, target, value):
    weight = np.minimum(np.exp(TEMPERATURE * self.advantage(target, value)), MOST)
    assert 0.1 < np.mean(weight == MOST) < 0.9
    return -np.mean(weight * self.log_prob(policy))


def _float64(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


@pytest.mark.parametrize("spec", [testing.continuous_spec(), testing.discrete_spec()], ids=["continuous", "discrete"])
def test_an_update_is_the_papers(spec):
  agent = iql(
    spec,
    expectile=EXPECTILE,
    temperature=TEMPERATURE,
    discount=DISCOUNT,
    tau=TAU,
    max_weight=MOST,
    reward_scale=SCALE,
    reward_shift=SHIFT,
    hidden=(8, 8),
    optimizer=optax.sgd(RATE),
  )
  episodes = jax.tree.map(jnp.asarray, testing.fake_episodes(spec))
  update = jax.jit(agent.update)
  batches = [agent.view.sample(jax.random.key(i), episodes, 32) for i in range(3)]
  state = agent.init(jax.random.key(0), batches[0])
  for batch in batches:
    paper, before = _Paper(spec, batch), state
    state, metrics = update(state, batch)
    value, critic, target, policy = _float64((before.value, before.critic, before.target, before.params.network))
    # The order of the authors' implementation: policy and critics see the new V.
    new_value, new_critic = _float64((state.value, state.critic))
    losses = {
      "value_loss": paper.value_loss(value, target),
      "policy_loss": paper.policy_loss(policy, target, new_value),
      "critic_loss": paper.critic_loss(critic, new_value),
    }
    for name, loss in losses.items():
      np.testing.assert_allclose(metrics[name], loss, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(metrics["loss"], sum(losses.values()), rtol=1e-4)
    np.testing.assert_allclose(metrics["advantage"], paper.advantage(target, new_value).mean(), atol=1e-4)
    # Each network went down its own loss, and nothing else: along any direction the step is the loss's slope.
    _assert_descent(before.value, state.value, functools.partial(paper.value_loss, target=target))
    _assert_descent(before.critic, state.critic, functools.partial(paper.critic_loss, value=new_value))
    _assert_descent(
      before.params.network,
      state.params.network,
      functools.partial(paper.policy_loss, target=target, value=new_value),
    )
    expected = jax.tree.map(lambda t, c: (1 - TAU) * t + TAU * c, target, new_critic)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), state.target, expected)


def _assert_descent(before, after, loss):
  """That ``after`` is one step of gradient descent from ``before``, by central differences in random directions."""
  before, after = _float64(before), _float64(after)
  rng = np.random.default_rng(0)
  for _ in range(8):
    direction = jax.tree.map(lambda x: rng.standard_normal(x.shape), before)
    step = sum(jax.tree.leaves(jax.tree.map(lambda a, b, d: np.sum((a - b) * d), after, before, direction)))
    up, down = (loss(jax.tree.map(lambda x, d, e=epsilon: x + e * d, before, direction)) for epsilon in (1e-6, -1e-6))
    np.testing.assert_allclose(-step / RATE, (up - down) / 2e-6, rtol=2e-3, atol=2e-3)


def test_a_terminal_cuts_the_bootstrap_and_a_time_limit_does_not():
  spec = testing.continuous_spec()
  agent = iql(spec, hidden=(8,), discount=0.5, optimizer=optax.sgd(0.0))
  x = jnp.ones((2, 5))
  ends = Transition(x, jnp.zeros((2, 3)), jnp.array([3.0, 3.0]), jnp.array([0.0, 1.0]), 2 * x)
  state = agent.init(jax.random.key(0), ends)
  paper = _Paper(spec, ends)
  next_v = _value(_float64(state.value), paper.next_s)[:, 0]
  q = paper.q(_float64(state.critic))
  for i, target in enumerate([3.0, 3.0 + 0.5 * next_v[1]]):
    _, metrics = agent.update(state, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], ends))
    np.testing.assert_allclose(metrics["critic_loss"], np.sum((q[:, i] - target) ** 2), rtol=1e-5)
