"""ReBRAC: its equations in float64, the penalty at episodes' ends, and which updates change what."""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import td3_equations as equations

from ilx import testing
from ilx.agents import rebrac
from ilx.types import Continuous, Discrete, Spec, Statistics, Step, Transition

module = importlib.import_module("ilx.agents.rebrac")
SPEC = testing.continuous_spec(observation_size=3, action_size=2)


class TestVector(testing.AgentConformance):
  spec = testing.continuous_spec()
  noisy = True

  def make(self):
    return rebrac(self.spec, hidden=(16, 16))


class TestObservationTree(testing.AgentConformance):
  spec = Spec(
    {"image": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8), "state": jax.ShapeDtypeStruct((2,), jnp.float32)},
    Continuous(-np.ones(2), np.ones(2)),
  )
  noisy = True

  def make(self):
    return rebrac(self.spec, hidden=(8,))


def _batch(spec=SPEC, size=8, seed=0):
  rng = np.random.default_rng(seed)
  observation, after = rng.normal(size=(2, size, spec.observation.shape[0])).astype(np.float32)
  action, then = rng.uniform(spec.action.low, spec.action.high, (2, size, spec.action.size)).astype(np.float32)
  reward, discount = rng.normal(size=size).astype(np.float32), (rng.random(size) < 0.8).astype(np.float32)
  is_last = (discount == 0) | (rng.random(size) < 0.3)
  return Transition(*map(jnp.asarray, (observation, action, reward, discount, after, then, is_last)))


def _float64(variables):
  return jax.tree.map(lambda x: np.array(x, np.float64), variables["params"])


def _in_unit(action):
  low, high = SPEC.action.low.astype(np.float64), SPEC.action.high.astype(np.float64)
  return 2 * (np.asarray(action, np.float64) - low) / (high - low) - 1


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


@pytest.mark.parametrize(("policy_noise", "normalize_q"), [(0.0, False), (0.5, True)])
def test_updates_are_those_of_the_papers_equations(policy_noise, normalize_q):
  rate, beta_1, beta_2, discount, tau, clip = 0.05, 0.3, 0.7, 0.9, 0.1, 0.4
  agent = rebrac(
    SPEC,
    actor_bc_coef=beta_1,
    critic_bc_coef=beta_2,
    discount=discount,
    tau=tau,
    policy_noise=policy_noise,
    noise_clip=clip,
    hidden=(12, 8),
    normalize_q=normalize_q,
    reward_scale=3.0,
    optimizer=optax.sgd(rate),
  )
  state, update = _scattered(agent.init(jax.random.key(1), _batch())), jax.jit(agent.update)
  policy, critics = _float64(state.params.network), [_float64(x) for x in state.critic]
  target_policy, targets = _float64(state.target_policy), [_float64(x) for x in state.target_critic]
  for step in range(4):
    batch = _batch(seed=step)
    noise = policy_noise * np.asarray(jax.random.normal(jax.random.fold_in(state.key, step), (8, 2)), np.float64)
    state, metrics = update(state, batch)

    # Observations are not standardised.
    s, after = (np.asarray(x, np.float64) for x in (batch.observation, batch.next_observation))
    a, then = _in_unit(batch.action), _in_unit(batch.next_action)
    chosen = equations.smoothed(equations.policy(target_policy, after), noise, clip)
    penalty = np.where(batch.next_is_last, 0.0, ((chosen - then) ** 2).sum(axis=1))
    next_q = np.minimum(*(equations.critic(layers, after, chosen) for layers in targets)) - beta_2 * penalty
    target_q = 3.0 * np.asarray(batch.reward, np.float64) + discount * np.asarray(batch.discount) * next_q
    critic_loss, critics = equations.descend_critics(critics, s, a, target_q, rate)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss, rtol=1e-5)
    if step % 2 == 0:  # the first and the third update
      lam = 1.0
      if normalize_q:
        chosen = equations.policy(policy, s)
        lam = 1 / np.mean(np.abs(np.minimum(*(equations.critic(layers, s, chosen) for layers in critics))))

      def loss(layers, lam=lam, critics=critics, s=s, a=a):
        chosen = equations.policy(layers, s)
        q = np.minimum(*(equations.critic(layers, s, chosen) for layers in critics))
        return np.mean(beta_1 * ((chosen - a) ** 2).sum(axis=1) - lam * q)

      np.testing.assert_allclose(metrics["policy_loss"], loss(policy), rtol=1e-5)
      # As the authors' implementation: the target moves towards the policy before its step.
      target_policy = equations.moved(target_policy, policy, tau)
      policy = equations.descend(policy, equations.gradient(loss, policy), rate)
      targets = [equations.moved(t, c, tau) for t, c in zip(targets, critics, strict=True)]
    found = state.params.network, state.target_policy, *state.critic, *state.target_critic
    for variables, expected in zip(found, (policy, target_policy, *critics, *targets), strict=True):
      jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=5e-5, atol=5e-6), variables["params"], expected)


def test_the_policys_loss_by_hand_and_without_a_gradient_through_lambda():
  q, distance = jnp.array([1.0, -3.0]), module.squared_distance(jnp.array([[1.0, 0.5]]), jnp.array([[-1.0, 0.0]]))
  np.testing.assert_allclose(distance, [4.25])
  # lambda = 1 / mean(1, 3) = 0.5; E q = -1.
  np.testing.assert_allclose(module.policy_loss(q, distance[0], 0.1, True), 0.425 + 0.5)
  np.testing.assert_allclose(module.policy_loss(q, distance[0], 0.1, False), 0.425 + 1.0)
  gradient = jax.grad(lambda q: module.policy_loss(q, jnp.float32(0.0), 0.1, True))(q)
  np.testing.assert_allclose(gradient, [-0.25, -0.25])


def _equal(a, b):
  return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(jnp.all(x == y)), a, b)))


def test_policy_and_targets_move_at_the_first_and_every_delayth_update_after_it():
  agent, batch = rebrac(SPEC, hidden=(8,), policy_delay=3), _batch()
  state, update = agent.init(jax.random.key(0), batch), jax.jit(agent.update)
  for number in range(6):
    before, (state, metrics) = state, update(state, batch)
    assert _equal(before.params.network, state.params.network) == (number % 3 > 0)
    assert _equal(before.target_critic, state.target_critic) == (number % 3 > 0)
    # At the first update the target is where it is moved to, but for rounding.
    moved = jax.tree.map(lambda x, y: bool(jnp.max(jnp.abs(x - y)) > 1e-6), before.target_policy, state.target_policy)
    assert any(jax.tree.leaves(moved)) == (number == 3)
    assert not _equal(before.critic, state.critic)
    assert (metrics["policy_loss"] == before.policy_metrics["policy_loss"]) == (number % 3 > 0)


def test_where_the_next_step_is_last_its_action_counts_for_nothing_and_the_bootstrap_stays():
  agent, batch = rebrac(SPEC, hidden=(8,), critic_bc_coef=0.5), _batch()
  batch = batch._replace(discount=jnp.ones(8), next_is_last=jnp.arange(8) == 3)
  state, update = agent.init(jax.random.key(0), batch), jax.jit(agent.update)

  def loss(changed_at, field="next_action"):
    changed = getattr(batch, field).at[changed_at].mul(0.5)
    return update(state, batch._replace(**{field: changed}))[1]["critic_loss"]

  unchanged = update(state, batch)[1]["critic_loss"]
  assert loss(3) == unchanged
  assert loss(2) != unchanged
  # A time limit does not cut the bootstrap, a terminal step does.
  assert loss(3, "next_observation") != unchanged
  batch = batch._replace(discount=batch.discount.at[3].set(0.0))
  assert loss(3, "next_observation") == update(state, batch)[1]["critic_loss"]


def test_seeds_side_by_side_keep_the_branch():
  agent, batch = rebrac(SPEC, hidden=(8,)), _batch()
  states = jax.vmap(agent.init, in_axes=(0, None))(jax.random.split(jax.random.key(3), 3), batch)
  states = states._replace(step=jnp.zeros((), jnp.int32))
  axes = jax.tree.map(lambda _: 0, states)._replace(step=None)
  many = jax.vmap(agent.update, in_axes=(axes, None), out_axes=(axes, 0))
  assert "cond[" in str(jax.make_jaxpr(many)(states, batch))


def test_layers_begin_as_those_of_edac_and_critics_alone_have_layer_norm():
  agent = rebrac(SPEC, hidden=(64, 64))
  state = agent.init(jax.random.key(0), _batch())
  policy, critics = state.params.network["params"], [x["params"] for x in state.critic]
  for torso in (policy["torso"], *(critic["torso"] for critic in critics)):
    for name in ("Dense_0", "Dense_1"):
      bound = torso[name]["kernel"].shape[0] ** -0.5
      largest = jnp.max(jnp.abs(torso[name]["kernel"]))
      assert 0.9 * bound < largest <= bound
      np.testing.assert_allclose(torso[name]["bias"], 0.1)
  assert 5e-4 < jnp.max(jnp.abs(policy["head"]["mean"]["kernel"])) <= 1e-3
  assert not any("LayerNorm" in name for name in policy["torso"])
  for critic in critics:
    assert 2e-3 < jnp.max(jnp.abs(critic["value"]["kernel"])) <= 3e-3
    assert "LayerNorm_1" in critic["torso"]
  assert not _equal(critics[0], critics[1])
  plain = rebrac(SPEC, hidden=(4,), layer_norm=False).init(jax.random.key(0), _batch())
  assert "LayerNorm_0" not in plain.critic[0]["params"]["torso"]


def test_observations_are_standardised_where_that_is_asked_for():
  assert rebrac(SPEC, hidden=(4,)).init(jax.random.key(0), _batch()).params.observation is None
  agent = rebrac(SPEC, hidden=(4,), normalize_states=True)
  scale = agent.init(jax.random.key(0), _batch()).params.observation
  np.testing.assert_allclose(scale.mean, SPEC.statistics.mean)


def test_prefers_what_pays_to_what_is_common():
  """Of random actions those close to 0.8 s pay most; imitation alone would choose 0."""
  spec = Spec(jax.ShapeDtypeStruct((1,), jnp.float32), Continuous([-2.0], [2.0]))
  rng = np.random.default_rng(0)
  observation, action = rng.uniform(-1, 1, (256, 1)).astype(np.float32), rng.uniform(-2, 2, (256, 1)).astype(np.float32)
  reward, zero = -np.square(action - 1.6 * observation)[:, 0], np.zeros(256, np.float32)
  batch = Transition(*map(jnp.asarray, (observation, action, reward, zero, observation, action, zero > 0)))
  agent = rebrac(spec, hidden=(64,), optimizer=optax.adam(3e-3))
  state = agent.init(jax.random.key(0), batch)
  state, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: agent.update(s, batch), s, None, length=600))(state)
  places = jnp.array([[-0.9], [0.0], [0.9]])
  found, _ = agent.act(state.params, (), Step(places, jnp.zeros(3), jnp.zeros(3, bool)), None)
  np.testing.assert_allclose(found, 1.6 * places, atol=0.35)


def test_learns_from_transitions_with_the_next_action_and_stacked_frames():
  view = rebrac(SPEC._replace(observation=jax.ShapeDtypeStruct((2, 3), jnp.float32)), frame_stack=2).view
  assert view.next_action
  assert view.frame_stack == 2


@pytest.mark.parametrize("name", ["actor_bc_coef", "critic_bc_coef", "noise_clip"])
def test_hyper_parameters_out_of_range_are_refused(name):
  with pytest.raises(ValueError, match=f"{name}=-1"):
    rebrac(SPEC, **{name: -1})


def test_discrete_actions_are_refused():
  with pytest.raises(ValueError, match="rebrac learns continuous actions"):
    rebrac(SPEC._replace(action=Discrete(3)))


def test_policy_and_values_may_have_optimizers_of_their_own():
  agent = rebrac(SPEC, hidden=(4,), optimizer=optax.sgd(1.0), critic_optimizer=optax.sgd(0.0))
  state = agent.init(jax.random.key(0), _batch())
  after, _ = jax.jit(agent.update)(state, _batch())
  assert _equal(state.critic, after.critic)
  assert not _equal(state.params.network, after.params.network)


def test_batches_without_the_next_action_are_refused():
  agent, batch = rebrac(SPEC, hidden=(4,)), _batch()._replace(next_action=None)
  state = jax.eval_shape(agent.init, jax.random.key(0), _batch())
  for function, first in ((agent.init, jax.random.key(0)), (agent.update, state)):
    with pytest.raises(ValueError, match="no next_action and next_is_last; take batches by the agent's own view"):
      jax.eval_shape(function, first, batch)


def test_flags_in_bytes_are_warned_of():
  bits = Statistics(9, *(np.full(4, value) for value in (0.5, 0.5, 0.0, 1.0)))
  spec = SPEC._replace(observation=jax.ShapeDtypeStruct((4,), jnp.uint8), statistics=bits)
  with pytest.warns(UserWarning, match="observation: bytes up to 1, which without standardisation are divided by 255"):
    rebrac(spec)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    rebrac(spec, normalize_states=True)
    rebrac(spec._replace(statistics=bits._replace(max=np.full(4, 255.0))))


def test_both_observations_are_standardised():
  """What is learnt from raw ones is what is learnt from standardised ones that are left as they are."""
  spec = testing.continuous_spec()
  batch = rebrac(spec).view.take(rebrac(spec).view.prepare(testing.fake_episodes(spec)), np.arange(8))
  batch = jax.tree.map(jnp.asarray, batch)
  mean, std = spec.statistics.mean, np.maximum(spec.statistics.std, 1e-3)
  scaled = {
    name: jnp.asarray(np.clip((getattr(batch, name) - mean) / std, -10, 10), jnp.float32)
    for name in ("observation", "next_observation")
  }
  found = []
  for given, asked in ((batch, True), (batch._replace(**scaled), False)):
    agent = rebrac(spec, hidden=(8,), normalize_states=asked)
    state = agent.init(jax.random.key(0), given)
    state = state._replace(target_critic=jax.tree.map(lambda x: x + 0.3, state.target_critic))
    found.append(jax.jit(agent.update)(state, given)[1])
  for name, value in found[0].items():
    np.testing.assert_allclose(value, found[1][name], rtol=1e-4, err_msg=name)
