import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ilx
from ilx import testing
from ilx.agents import bc
from ilx.data.views import transitions
from ilx.networks import heads, mlp
from ilx.types import Continuous, Discrete, Spec, Statistics, Step, Transition


class TestDeterministic(testing.AgentConformance):
  spec = testing.continuous_spec()

  def make(self):
    return bc(self.spec, hidden=(32, 32))


class TestGaussian(testing.AgentConformance):
  spec = testing.continuous_spec()

  def make(self):
    return bc(self.spec, head="gaussian", hidden=(32, 32))


class TestGaussianMixture(testing.AgentConformance):
  spec = testing.continuous_spec()
  # Far from every component the likelihood is steep, and so sensitive to rounding.
  tolerance = 1e-4

  def make(self):
    return bc(self.spec, head="gaussian_mixture", head_options={"min_std": 0.01}, hidden=(32, 32))


class TestDiscretisedByRank(testing.AgentConformance):
  spec = ilx.data.rank_actions(testing.continuous_spec(), testing.fake_episodes(testing.continuous_spec()))

  def make(self):
    return bc(self.spec, head="discretised", head_options={"bins": 16, "binning": "quantile"}, hidden=(32, 32))


class TestFactored(testing.AgentConformance):
  spec = testing.factored_spec()

  def make(self):
    return bc(self.spec, head="gaussian", hidden=(32, 32))


class TestTanhGaussian(testing.AgentConformance):
  spec = testing.continuous_spec()

  def make(self):
    return bc(self.spec, head="tanh_gaussian", hidden=(32, 32))


class TestCategorical(testing.AgentConformance):
  spec = testing.discrete_spec()

  def make(self):
    return bc(self.spec, hidden=(32, 32))


class TestObservationTree(testing.AgentConformance):
  spec = Spec(
    {"image": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8), "state": jax.ShapeDtypeStruct((2,), jnp.float32)},
    Continuous(-np.ones(2), np.ones(2)),
  )

  def make(self):
    return bc(self.spec, hidden=(32,))


class TestFrameStack(testing.AgentConformance):
  spec = Spec(jax.ShapeDtypeStruct((4, 6, 6), jnp.uint8), Discrete(3))

  def make(self):
    return bc(self.spec, hidden=(16,), frame_stack=4)


def _batch(observation, action):
  n = len(observation)
  return Transition(jnp.asarray(observation), jnp.asarray(action), jnp.zeros(n), jnp.ones(n), jnp.asarray(observation))


def _fake_batch(spec):
  return jax.tree.map(jnp.asarray, transitions(testing.fake_episodes(spec), np.arange(16)))


def _linear(spec, **kwargs):
  """An agent without hidden layers, whose loss can be computed by hand."""
  return bc(spec, hidden=(), **kwargs)


def _metrics(agent, kernel, batch, name="mean"):
  state = agent.init(jax.random.key(0), batch)
  variables = jax.tree.map(jnp.zeros_like, state.params.network)
  variables["params"]["head"][name]["kernel"] = jnp.asarray(kernel, jnp.float32)
  state = state._replace(params=state.params._replace(network=variables))
  return agent.update(state, batch)


def test_deterministic_loss_by_hand():
  spec = Spec(jax.ShapeDtypeStruct((1,), jnp.float32), Continuous(np.array([0.0]), np.array([10.0])))
  batch = _batch(np.array([[1.0], [-1.0]], np.float32), np.array([[7.5], [5.0]], np.float32))
  _, metrics = _metrics(_linear(spec), [[0.3]], batch)
  # Actions 7.5 and 5 of [0, 10] are 0.5 and 0 of [-1, 1]; predictions are tanh(0.3) and tanh(-0.3).
  expected = 0.5 * ((0.5 - np.tanh(0.3)) ** 2 + np.tanh(0.3) ** 2) / 2
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)


def test_categorical_loss_and_gradient_by_hand():
  spec = testing.discrete_spec(observation_size=1, num_actions=2)._replace(statistics=None)
  agent = _linear(spec, optimizer=optax.sgd(1.0))
  batch = _batch(np.array([[2.0]], np.float32), np.array([1], np.int32))
  state, metrics = _metrics(agent, [[0.0, 0.5]], batch, name="logits")
  p = 1 / (1 + np.exp(-1.0))  # logits 0 and 1
  np.testing.assert_allclose(metrics["loss"], -np.log(p), rtol=1e-6)
  kernel = state.params.network["params"]["head"]["logits"]["kernel"]
  np.testing.assert_allclose(kernel, [[-2 * (1 - p), 0.5 + 2 * (1 - p)]], rtol=1e-5)


def test_observations_are_standardised_with_a_floor():
  statistics = Statistics(10, mean=np.array([1.0, 5.0]), std=np.array([2.0, 0.0]), min=None, max=None)
  spec = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), Continuous(-np.ones(1), np.ones(1)), statistics)
  agent = _linear(spec)
  batch = _batch(np.array([[3.0, 5.0]], np.float32), np.zeros((1, 1), np.float32))
  state = agent.init(jax.random.key(0), batch)
  kernel = state.params.network["params"]["head"]["mean"]["kernel"]

  def act(observation):
    step = Step(jnp.asarray([observation]), jnp.zeros(1), jnp.ones(1, bool))
    return agent.act(state.params, (), step, None)[0][0, 0]

  np.testing.assert_allclose(act([3.0, 5.0]), np.tanh(kernel[0, 0]), rtol=1e-5)
  # The second dimension never varied: a drift of 0.005 counts as five floors of 0.001, and a large one as ten.
  np.testing.assert_allclose(act([1.0, 5.005]), np.tanh(5 * kernel[1, 0]), rtol=1e-3)
  np.testing.assert_allclose(act([1.0, 500.0]), np.tanh(10 * kernel[1, 0]), rtol=1e-5)


def test_statistics_are_not_learnt():
  agent = bc(testing.continuous_spec(), hidden=(8,), optimizer=optax.adamw(1e-2, weight_decay=0.1))
  batch = _fake_batch(testing.continuous_spec())
  state = agent.init(jax.random.key(0), batch)
  after, _ = agent.update(state, batch)
  np.testing.assert_array_equal(state.params.observation.mean, after.params.observation.mean)
  np.testing.assert_array_equal(state.params.action.high, after.params.action.high)


def test_actions_beyond_the_bounds_are_learnt_as_the_bounds():
  spec = Spec(jax.ShapeDtypeStruct((1,), jnp.float32), Continuous(-np.ones(1), np.ones(1)))
  observation = np.ones((1, 1), np.float32)
  inside = _metrics(_linear(spec), [[0.3]], _batch(observation, np.array([[1.0]], np.float32)))[1]
  outside = _metrics(_linear(spec), [[0.3]], _batch(observation, np.array([[3.0]], np.float32)))[1]
  assert inside["loss"] == outside["loss"]


@pytest.mark.parametrize("head", ["deterministic", "gaussian", "tanh_gaussian", "gaussian_mixture", "discretised"])
def test_clones_a_simple_policy(head):
  spec = Spec(jax.ShapeDtypeStruct((3,), jnp.float32), Continuous(-2 * np.ones(2), 2 * np.ones(2)))
  agent = bc(spec, head=head, hidden=(64,), optimizer=optax.adam(3e-3))
  observation = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
  action = 1.5 * np.tanh(observation[:, :2])
  batch = _batch(observation, action)
  state, _ = jax.lax.scan(lambda s, _: agent.update(s, batch), agent.init(jax.random.key(0), batch), length=500)
  cloned, _ = agent.act(state.params, (), Step(batch.observation, batch.reward, jnp.zeros(256, bool)), None)
  assert float(jnp.mean(jnp.abs(cloned - action))) < 0.1


@pytest.mark.parametrize(
  ("head", "options", "solved"),
  [
    ("deterministic", {}, False),
    ("gaussian_mixture", {"modes": 3, "min_std": 0.01}, True),
    ("discretised", {"bins": 21}, True),
  ],
)
def test_one_of_two_ways_is_taken_and_not_the_middle(head, options, solved):
  # Left or right around an obstacle, at 0.8 to either side of where the observation says that it is.
  spec = Spec(jax.ShapeDtypeStruct((1,), jnp.float32), Continuous(-np.ones(1), np.ones(1)))
  agent = bc(spec, head=head, head_options=options, hidden=(32,), optimizer=optax.adam(1e-2))
  rng = np.random.default_rng(0)
  middle = rng.uniform(-0.2, 0.2, (512, 1)).astype(np.float32)
  batch = _batch(middle, middle + 0.8 * rng.choice([-1, 1], (512, 1)).astype(np.float32))
  state, _ = jax.lax.scan(lambda s, _: agent.update(s, batch), agent.init(jax.random.key(0), batch), length=400)
  step = Step(batch.observation, batch.reward, jnp.zeros(512, bool))
  chosen, _ = agent.act(state.params, (), step, None)
  missed = np.abs(np.abs(chosen - middle) - 0.8).mean()
  assert missed < 0.1 if solved else missed > 0.6
  sampled, _ = agent.act(state.params, (), step, jax.random.key(1))
  if solved:
    assert 0.35 < np.mean(sampled > middle) < 0.65


def test_any_network_with_init_and_apply():
  class Scaled:
    def __init__(self, inner):
      self.init, self.inner = inner.init, inner

    def apply(self, variables, observation):
      return self.inner.apply(variables, 0.5 * observation)

  network = Scaled(heads.Policy(mlp.MLP((8,)), heads.DeterministicHead(3)))
  agent = bc(testing.continuous_spec(), network=network)
  batch = _fake_batch(testing.continuous_spec())
  _, metrics = agent.update(agent.init(jax.random.key(0), batch), batch)
  assert np.isfinite(metrics["loss"])


@pytest.mark.parametrize(
  ("spec", "head", "message"),
  [
    (
      testing.continuous_spec(),
      "softmax",
      "choose one of deterministic, gaussian, tanh_gaussian, gaussian_mixture, discretised, categorical",
    ),
    (testing.continuous_spec(), "categorical", "does not fit"),
    (testing.discrete_spec(), "deterministic", "does not fit"),
  ],
)
def test_a_head_that_does_not_fit_is_refused(spec, head, message):
  with pytest.raises(ValueError, match=message):
    bc(spec, head=head)


@pytest.mark.parametrize(
  "option",
  [
    {"head": "gaussian"},
    {"head_options": {"bins": 4}},
    {"hidden": (64,)},
    {"encoder": "vit"},
    {"encoder_options": {"width": 2}},
  ],
)
def test_a_network_stands_instead_of_its_parts(option):
  with pytest.raises(ValueError, match="network stands instead of head"):
    bc(testing.continuous_spec(), network=heads.Policy(None, None), **option)


@pytest.mark.parametrize("hidden", [(0,), "256", (8, -1), (2.5,)])
def test_widths_that_are_none_are_refused(hidden):
  with pytest.raises(ValueError, match="must be widths of layers"):
    bc(testing.continuous_spec(), hidden=hidden)


@pytest.mark.parametrize("name", ["bc", "iql", "bc_transformer", "dt"])
def test_frames_stacked_on_one_side_alone_are_named(name):
  """They would be broadcast against the actions of others."""
  spec, more = testing.continuous_spec(), {"target_return": 1.0} if name == "dt" else {}
  episodes = testing.fake_episodes(spec)
  stacked = spec._replace(observation=jax.ShapeDtypeStruct((4, 5), jnp.float32), statistics=None)
  for has, frames, message in ((spec, 4, r"\[4, 5\], the spec \[5\]"), (stacked, 0, r"\[5\], the spec \[4, 5\]")):
    agent = getattr(ilx.agents, name)(has, frame_stack=frames, **more)
    data = agent.view.prepare(episodes)
    with pytest.raises(ValueError, match=rf"observation: an item of the batch has {message}.*frame_stack=k"):
      agent.init(jax.random.key(0), agent.view.take(data, data.rows[:4]))


def test_observations_that_are_no_numbers_are_refused():
  words = {"state": jax.ShapeDtypeStruct((2,), jnp.float32), "said": type("Text", (), {"shape": (), "dtype": object})()}
  with pytest.raises(ValueError, match="observation/said is object; expected numbers"):
    bc(Spec(words, Discrete(2)))
  with pytest.raises(ValueError, match="no numbers"):
    bc(Spec(jax.ShapeDtypeStruct((0,), jnp.float32), Discrete(2)))


def test_large_pictures_are_warned_of():
  picture = Spec(jax.ShapeDtypeStruct((128, 128, 3), jnp.uint8), Discrete(2))
  with pytest.warns(UserWarning, match="98,304 numbers"):
    bc(picture._replace(observation={"left": picture.observation, "right": picture.observation}), encoder="flat")
  with pytest.warns(UserWarning, match=r"150,528 numbers.*pictures are uint8"):  # of floats there is no encoder
    bc(Spec(jax.ShapeDtypeStruct((224, 224, 3), jnp.float32), Discrete(2)))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    bc(picture)
    bc(picture, encoder="flat")
    bc(picture._replace(observation=jax.ShapeDtypeStruct((1 << 20,), jnp.uint8)), network=heads.Policy(None, None))


def test_numbers_too_far_from_0_for_float32_are_warned_of():
  shape, mean = jax.ShapeDtypeStruct((2,), jnp.int32), np.array([3.0, 1.7e9])
  statistics = Statistics(10, mean=mean, std=np.array([1.0, 100.0]), min=None, max=None)
  spec = Spec(
    {"clock": shape, "other": shape},
    Discrete(2),
    Statistics(
      10,
      *({"clock": clock, "other": other} for clock, other in ((mean, np.ones(2)), (statistics.std, np.ones(2)))),
      min=None,
      max=None,
    ),
  )
  with pytest.warns(UserWarning, match="observation/clock: so far from 0.*subtract an offset"):
    bc(spec)


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("action", jnp.ones((8, 1), jnp.int32), r"action: an item of the batch has \[1\], the spec \[\]"),
    ("reward", jnp.ones((8, 1)), r"reward: an item of the batch has \[1\], the spec \[\]"),
    ("discount", jnp.ones((8, 2)), r"discount: an item of the batch has \[2\], the spec \[\]"),
    ("next_observation", jnp.ones((8, 5)), r"next_observation: an item of the batch has \[5\], the spec \[4\]$"),
  ],
)
def test_batches_of_other_shapes_are_refused(field, value, message):
  spec = Spec(jax.ShapeDtypeStruct((4,), jnp.float32), Discrete(2))
  batch = Transition(jnp.ones((8, 4)), jnp.ones(8, jnp.int32), jnp.ones(8), jnp.ones(8), jnp.ones((8, 4)))
  bc(spec).init(jax.random.key(0), batch)
  with pytest.raises(ValueError, match=message):
    bc(spec).init(jax.random.key(0), batch._replace(**{field: value}))


@pytest.mark.parametrize(
  ("spec", "arguments", "message"),
  [
    (Spec((6,), Discrete(2)), {}, r"observation/0 of the spec is 6; expected jax.ShapeDtypeStruct"),
    (Spec(jax.ShapeDtypeStruct((4,), jnp.float32), np.float32), {}, "the spec's action is .*expected ilx.types"),
    (Spec(jax.ShapeDtypeStruct((4,), jnp.float32), Discrete(2)), {"hidden": 64}, "hidden=64 must be widths"),
  ],
)
def test_what_is_no_spec_and_no_widths_is_refused(spec, arguments, message):
  with pytest.raises(ValueError, match=message):
    bc(spec, **arguments)


def test_observations_of_small_floats_are_numbers():
  bc(Spec(jax.ShapeDtypeStruct((3,), jnp.bfloat16), Discrete(2)))
