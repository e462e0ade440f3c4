"""TD3+BC: its equations in float64, what gets no gradient, and which updates change what."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import td3_equations as equations

from ilx import testing
from ilx.agents import td3_bc
from ilx.types import Continuous, Discrete, Spec, Step, Transition

module = importlib.import_module("ilx.agents.td3_bc")
SPEC = testing.continuous_spec(observation_size=3, action_size=2)


class TestVector(testing.AgentConformance):
  spec = testing.continuous_spec()
  noisy = True

  def make(self):
    # The suite expects the first update to move the policy; ReBRAC's delay is tested by it.
    return td3_bc(self.spec, hidden=(16, 16), policy_delay=1)


class TestObservationTree(testing.AgentConformance):
  spec = Spec(
    {"image": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8), "state": jax.ShapeDtypeStruct((2,), jnp.float32)},
    Continuous(-np.ones(2), np.ones(2)),
  )
  noisy = True

  def make(self):
    return td3_bc(self.spec, hidden=(8,), policy_delay=1)


def _batch(spec=SPEC, size=8, seed=0):
  rng = np.random.default_rng(seed)
  observation, after = rng.normal(size=(2, size, spec.observation.shape[0])).astype(np.float32)
  action = rng.uniform(spec.action.low, spec.action.high, (size, spec.action.size)).astype(np.float32)
  reward, discount = rng.normal(size=size).astype(np.float32), (rng.random(size) < 0.7).astype(np.float32)
  return Transition(*map(jnp.asarray, (observation, action, reward, discount, after)))


def _float64(variables):
  return jax.tree.map(lambda x: np.array(x, np.float64), variables["params"])


def _scattered(state):
  """All variables moved at random: biases off 0, where units may stand on the kink of ReLU; targets off the rest."""
  rng = np.random.default_rng(0)

  def move(tree):
    return jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32), tree)

  return state._replace(
    params=state.params._replace(network=move(state.params.network)),
    target_policy=move(state.target_policy),
    critic=move(state.critic),
    target_critic=move(state.target_critic),
  )


def _standardised(observation):
  std = np.maximum(SPEC.statistics.std, 1e-3)
  return np.clip((np.asarray(observation, np.float64) - SPEC.statistics.mean) / std, -10, 10)


def _in_unit(action):
  low, high = SPEC.action.low.astype(np.float64), SPEC.action.high.astype(np.float64)
  return 2 * (np.asarray(action, np.float64) - low) / (high - low) - 1


@pytest.mark.parametrize("policy_noise", [0.0, 0.5])
def test_updates_are_those_of_the_papers_equations(policy_noise):
  rate, alpha, discount, tau, clip = 0.05, 2.5, 0.9, 0.1, 0.4
  agent = td3_bc(
    SPEC,
    alpha=alpha,
    discount=discount,
    tau=tau,
    policy_noise=policy_noise,
    noise_clip=clip,
    hidden=(5, 4),
    optimizer=optax.sgd(rate),
  )
  state, update = _scattered(agent.init(jax.random.key(1), _batch())), jax.jit(agent.update)
  policy, critics = _float64(state.params.network), [_float64(x) for x in state.critic]
  target_policy, targets = _float64(state.target_policy), [_float64(x) for x in state.target_critic]
  for step in range(4):
    batch = _batch(seed=step)
    noise = policy_noise * np.asarray(jax.random.normal(jax.random.fold_in(state.key, step), (8, 2)), np.float64)
    state, metrics = update(state, batch)

    s, after, a = _standardised(batch.observation), _standardised(batch.next_observation), _in_unit(batch.action)
    chosen = equations.smoothed(equations.policy(target_policy, after), noise, clip)
    next_q = np.minimum(*(equations.critic(layers, after, chosen) for layers in targets))
    target_q = np.asarray(batch.reward, np.float64) + discount * np.asarray(batch.discount) * next_q
    critic_loss, critics = equations.descend_critics(critics, s, a, target_q, rate)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss, rtol=1e-5)
    if step % 2:  # the second and the fourth update
      lam = alpha / np.mean(np.abs(equations.critic(critics[0], s, equations.policy(policy, s))))

      def loss(layers, lam=lam, first=critics[0], s=s, a=a):
        chosen = equations.policy(layers, s)
        return -lam * np.mean(equations.critic(first, s, chosen)) + np.mean((chosen - a) ** 2)

      np.testing.assert_allclose(metrics["policy_loss"], loss(policy), rtol=1e-5)
      policy = equations.descend(policy, equations.gradient(loss, policy), rate)
      target_policy = equations.moved(target_policy, policy, tau)
      targets = [equations.moved(t, c, tau) for t, c in zip(targets, critics, strict=True)]
    found = state.params.network, state.target_policy, *state.critic, *state.target_critic
    for variables, expected in zip(found, (policy, target_policy, *critics, *targets), strict=True):
      jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), variables["params"], expected)


def test_losses_by_hand():
  # (1 - 0)^2, (2 - 2)^2 and (3 - 0)^2, (0 - 2)^2, averaged for each critic and added.
  q, target = jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([0.0, 2.0])
  np.testing.assert_allclose(module.critic_loss(q, target), 0.5 + 6.5)
  # lambda = 2.5 / mean(1, 3) = 1.25; E q = -1.
  np.testing.assert_allclose(module.policy_loss(jnp.array([1.0, -3.0]), jnp.float32(0.25), 2.5), 0.25 + 1.25)
  # Noise is clipped first, then the action.
  found = module.smoothed(jnp.array([0.0, 0.9, -0.2]), jnp.array([0.7, 0.4, -0.1]), 0.5)
  np.testing.assert_allclose(found, [0.5, 1.0, -0.3], rtol=1e-6)


def test_no_gradient_through_lambda_or_the_target():
  q = jnp.array([1.0, -3.0])
  gradient = jax.grad(lambda q: module.policy_loss(q, jnp.float32(0.0), 2.5))(q)
  np.testing.assert_allclose(gradient, [-1.25 / 2, -1.25 / 2])
  gradient = jax.grad(lambda target: module.critic_loss(jnp.ones((2, 2)), target))(q)
  np.testing.assert_array_equal(gradient, 0)


def _equal(a, b):
  return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), a, b)))


@pytest.mark.parametrize("delay", [2, 3])
def test_policy_and_targets_move_at_every_delayth_update(delay):
  agent = td3_bc(SPEC, hidden=(8,), policy_delay=delay)
  state, update, batch = agent.init(jax.random.key(0), _batch()), jax.jit(agent.update), _batch()
  for number in range(1, 7):
    before, (state, metrics) = state, update(state, batch)
    for name in ("target_policy", "target_critic"):
      assert _equal(getattr(before, name), getattr(state, name)) == (number % delay > 0)
    assert _equal(before.params.network, state.params.network) == (number % delay > 0)
    assert not _equal(before.critic, state.critic)
    # The policy's metrics are of its last update.
    assert (metrics["policy_loss"] == before.policy_metrics["policy_loss"]) == (number % delay > 0)


def test_the_policys_loss_does_not_move_the_critics():
  batch, after = _batch(), []
  for delay in (1, 1000):
    agent = td3_bc(SPEC, hidden=(8,), policy_delay=delay)
    after.append(jax.jit(agent.update)(agent.init(jax.random.key(0), batch), batch)[0])
  assert _equal(after[0].critic, after[1].critic)
  assert not _equal(after[0].params.network, after[1].params.network)


def test_a_terminal_step_cuts_the_bootstrap_and_a_time_limit_does_not():
  agent, batch = td3_bc(SPEC, hidden=(8,)), _batch()
  state, update = agent.init(jax.random.key(0), batch), jax.jit(agent.update)

  def loss(discount, next_observation):
    changed = batch._replace(discount=jnp.full(8, discount), next_observation=next_observation)
    return update(state, changed)[1]["critic_loss"]

  assert loss(0.0, batch.next_observation) == loss(0.0, batch.observation)
  assert loss(1.0, batch.next_observation) != loss(1.0, batch.observation)


def test_seeds_side_by_side_keep_the_branch():
  agent, batch = td3_bc(SPEC, hidden=(8,)), _batch()
  keys = jax.random.split(jax.random.key(3), 3)
  states = jax.vmap(agent.init, in_axes=(0, None))(keys, batch)._replace(step=jnp.zeros((), jnp.int32))
  axes = jax.tree.map(lambda _: 0, states)._replace(step=None)
  many = jax.vmap(agent.update, in_axes=(axes, None), out_axes=(axes, 0))
  assert "cond[" in str(jax.make_jaxpr(many)(states, batch))
  many, update = jax.jit(many), jax.jit(agent.update)
  singles = [agent.init(key, batch) for key in keys]
  for _ in range(2):
    states, _ = many(states, batch)
    singles = [update(single, batch)[0] for single in singles]
  for i, single in enumerate(singles):
    for all_of_them, one in ((states.params.network, single.params.network), (states.critic, single.critic)):
      jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-4, atol=1e-5), all_of_them, one)


def test_prefers_what_pays_to_what_is_common():
  """Of random actions those close to 0.8 s pay most; imitation alone would choose 0."""
  spec = Spec(jax.ShapeDtypeStruct((1,), jnp.float32), Continuous([-2.0], [2.0]))
  rng = np.random.default_rng(0)
  observation, action = rng.uniform(-1, 1, (256, 1)).astype(np.float32), rng.uniform(-2, 2, (256, 1)).astype(np.float32)
  reward = -np.square(action - 1.6 * observation)[:, 0]
  batch = Transition(*map(jnp.asarray, (observation, action, reward, np.zeros(256, np.float32), observation)))
  agent = td3_bc(spec, hidden=(64,), alpha=10.0, optimizer=optax.adam(3e-3))
  state = agent.init(jax.random.key(0), batch)
  state, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: agent.update(s, batch), s, None, length=600))(state)
  places = jnp.array([[-0.9], [0.0], [0.9]])
  found, _ = agent.act(state.params, (), Step(places, jnp.zeros(3), jnp.zeros(3, bool)), None)
  np.testing.assert_allclose(found, 1.6 * places, atol=0.35)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"alpha": -1.0}, "alpha=-1.0"),
    ({"discount": 1.1}, "discount=1.1"),
    ({"tau": 0.0}, "tau=0.0"),
    ({"policy_noise": float("nan")}, "policy_noise=nan"),
    ({"noise_clip": -0.1}, "noise_clip=-0.1"),
    ({"policy_delay": 0}, "policy_delay=0"),
  ],
)
def test_hyper_parameters_out_of_range_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    td3_bc(SPEC, **arguments)


def test_discrete_actions_are_refused():
  with pytest.raises(ValueError, match="td3_bc learns continuous actions"):
    td3_bc(SPEC._replace(action=Discrete(3)))


@pytest.mark.parametrize(("agent", "arguments"), [("td3_bc", (2.5,)), ("rebrac", (0.1, True))])
def test_where_every_q_is_0_the_loss_is_finite(agent, arguments):
  policy_loss = importlib.import_module(f"ilx.agents.{agent}").policy_loss
  value, gradient = jax.value_and_grad(lambda q: policy_loss(q, 1.0, *arguments))(jnp.zeros(4))
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()


def test_small_values_weigh_as_much_as_large_ones():
  for size in (0.01, 1e3):
    np.testing.assert_allclose(module.policy_loss(jnp.full(4, size), 0.0, 2.5), -2.5, rtol=1e-5)
