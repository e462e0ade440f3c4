import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilx import agents, testing
from ilx.agents import bc
from ilx.data import episodes as episodes_lib
from ilx.data.mixing import mixture
from ilx.evaluation.acting import Policy
from ilx.evaluation.fidelity import fidelity
from ilx.types import Continuous, Discrete, MultiDiscrete, Spec, Step

# By its path: the function has the module's name.
fidelity_lib = importlib.import_module("ilx.evaluation.fidelity")


def _episodes(lengths, action, observation=None, reward=None):
  """Episodes of so many transitions; ``action(n)`` for n steps."""
  starts = np.cumsum([0, *(n + 1 for n in lengths)])
  steps = int(starts[-1])
  return episodes_lib.from_columns(
    observation=np.arange(steps, dtype=np.float32)[:, None] if observation is None else observation(steps),
    action=action(steps),
    reward=np.zeros(steps, np.float32) if reward is None else reward(steps),
    discount=np.ones(steps, np.float32),
    is_terminal=np.zeros(steps, bool),
    starts=starts,
  )


def data_spec(data, action):
  return Spec(jax.ShapeDtypeStruct(data.observation.shape[1:], np.float32), action)


def _stateless(act):
  return Policy(lambda params, carry, step, key: (act(step), carry), lambda batch_size: ())


def test_continuous_numbers_by_hand():
  # Three transitions of two dimensions; the last step's action, 99, carries no meaning.
  data = _episodes([3], lambda n: np.array([[1, 5], [2, 5], [6, 5], [99, 99]], np.float32))
  policy = _stateless(lambda step: jnp.tile(jnp.array([[2.0, 4.0]]), (len(step.reward), 1)))
  found = fidelity(policy, (), data, action=Continuous([-10, -10], [10, 10]))
  assert (found.episodes, found.transitions) == (1, 3)
  np.testing.assert_allclose(found.mean_absolute_error, [(1 + 0 + 4) / 3, 1.0])
  np.testing.assert_allclose(found.root_mean_squared_error, [np.sqrt(17 / 3), 1.0])
  # The mean is 3, the squares about it 4 + 1 + 9; the second dimension never varies.
  np.testing.assert_allclose(found.explained, [1 - 17 / 14, np.nan])
  np.testing.assert_allclose(found.std, [np.sqrt(14 / 3), 0.0])
  assert found.total_explained == pytest.approx(1 - (17 + 3) / 14)
  assert found.scores["mean_absolute_error"] == pytest.approx((5 / 3 + 1) / 2)
  assert found.scores["root_mean_squared_error"] == pytest.approx(np.sqrt((17 / 3 + 1) / 2))


def test_actions_beyond_the_bounds_are_moved_onto_them_if_so_wished():
  data = _episodes([2], lambda n: np.array([[3.0], [0.5], [0.0]], np.float32))
  policy = _stateless(lambda step: jnp.ones((len(step.reward), 1)))
  bounds = Continuous([-1], [1])
  np.testing.assert_allclose(fidelity(policy, (), data, action=bounds).mean_absolute_error, [0.25])
  np.testing.assert_allclose(fidelity(policy, (), data, action=bounds, clip=False).mean_absolute_error, [1.25])


def test_where_nothing_varies_nothing_is_explained():
  data = _episodes([2], lambda n: np.ones((n, 1), np.float32))
  policy = _stateless(lambda step: jnp.zeros((len(step.reward), 1)))
  assert fidelity(policy, (), data, action=Continuous([-1], [1])).scores["explained"] is None


def test_discrete_numbers_by_hand():
  data = _episodes([4, 1], lambda n: np.array([0, 0, 1, 2, 9, 0, 9], np.int32))
  # The policy chooses by the step's number: right, wrong, right, wrong, and right in the second episode.
  choice = jnp.array([0, 1, 1, 1, 3, 0, 3])
  policy = _stateless(lambda step: choice[step.observation[:, 0].astype(jnp.int32)])
  found = fidelity(policy, (), data, action=Discrete(4))
  assert (found.episodes, found.transitions) == (2, 5)
  assert found.accuracy == pytest.approx(3 / 5)
  assert found.count.tolist() == [3, 1, 1, 0]
  np.testing.assert_allclose(found.recall, [2 / 3, 1.0, 0.0, np.nan])
  assert found.scores["balanced_accuracy"] == pytest.approx(5 / 9)


def test_parts_by_hand():
  action = {"aim": Continuous(0.0, 10.0), "hand": {"buttons": MultiDiscrete((2, 3)), "jump": Discrete(2)}}
  data = _episodes(
    [3],
    lambda n: {
      "aim": np.array([1, 2, 6, 99], np.float32),
      "hand": {
        "buttons": np.array([[0, 2], [1, 0], [1, 1], [9, 9]], np.int32),
        "jump": np.array([True, False, True, False]),
      },
    },
  )

  def act(step):
    n = len(step.reward)
    row = jnp.array([[0, 2], [0, 0], [1, 2], [0, 0]])[step.observation[:, 0].astype(jnp.int32)]
    return {"aim": jnp.full(n, 2.0), "hand": {"buttons": row, "jump": jnp.ones(n, jnp.int32)}}

  found = fidelity(_stateless(act), (), data, action=action)
  assert (found.episodes, found.transitions) == (1, 3)
  assert set(found.parts) == {"aim", "hand/buttons", "hand/jump"}
  np.testing.assert_allclose(found.parts["aim"].mean_absolute_error, [5 / 3])
  buttons = found.parts["hand/buttons"]
  assert [choice.accuracy for choice in buttons.choices] == pytest.approx([2 / 3, 2 / 3])
  assert buttons.all_right == pytest.approx(1 / 3)
  # Of the first button 0 is always met and 1 in one of two cases; of the second 2 and 0 always and 1 never.
  assert buttons.scores["balanced_accuracy"] == pytest.approx((0.75 + 2 / 3) / 2)
  assert found.scores["hand/jump/accuracy"] == pytest.approx(2 / 3)
  assert found.scores["aim/mean_absolute_error"] == pytest.approx(5 / 3)


def test_parts_that_differ_are_refused():
  data = _episodes([2], lambda n: {"a": np.zeros(n, np.int32)})
  with pytest.raises(ValueError, match=r"have the parts \['a'\]; the task's have one array"):
    fidelity(_stateless(lambda step: step.reward), (), data, action=Discrete(2))


def test_episodes_can_be_left_out():
  data = _episodes([2, 3, 1], lambda n: np.array([1, 1, 9, 0, 0, 0, 9, 1, 9], np.int32))
  policy = _stateless(lambda step: jnp.ones(len(step.reward), jnp.int32))
  found = fidelity(policy, (), data, action=Discrete(2), keep=np.array([True, False, True]))
  assert (found.episodes, found.transitions, found.accuracy) == (2, 3, 1.0)


def _counting():
  """Remembers how many steps and how much reward there were since the episode began."""

  def act(params, carry, step, key):
    steps, earned = (jnp.where(step.is_first, 0, x) for x in carry)
    earned = earned + step.reward
    return jnp.stack([steps.astype(jnp.float32), earned], axis=1), (steps + 1, earned)

  return Policy(act, lambda size: (jnp.full(size, 7, jnp.int32), jnp.full(size, 7.0)))


@pytest.mark.parametrize("slots", [1, 3, 256])
def test_a_memory_sees_every_episode_in_order(monkeypatch, slots):
  monkeypatch.setattr(fidelity_lib, "_SLOTS", slots)
  lengths = [5, 0, 1, 12, 3, 3, 70]

  def action(n):
    column = np.zeros((n, 2), np.float32)
    starts = np.cumsum([0, *(length + 1 for length in lengths)])
    for start, length in zip(starts, lengths, strict=False):
      column[start : start + length, 0] = np.arange(length)
      # Rewards are the row's number; what was earned before step t is the sum of the t before it.
      column[start : start + length, 1] = [sum(range(start, start + t)) for t in range(length)]
    return column

  data = _episodes(lengths, action, reward=lambda n: np.arange(n, dtype=np.float32))
  found = fidelity(_counting(), (), data, action=Continuous([0, 0], [1e6, 1e6]))
  assert found.transitions == sum(lengths)
  np.testing.assert_array_equal(found.mean_absolute_error, [0, 0])


def test_many_rows_of_a_policy_without_memory(monkeypatch):
  monkeypatch.setattr(fidelity_lib, "_BYTES", 256 * 4 * 3)  # pieces of three steps, the last one shorter
  data = _episodes([700, 801], lambda n: np.arange(n, dtype=np.float32)[:, None])
  policy = _stateless(lambda step: step.observation)
  shares = []
  found = fidelity(policy, (), data, action=Continuous([0], [1e6]), progress=shares.append)
  assert found.transitions == 1501
  assert found.mean_absolute_error.tolist() == [0.0]
  assert shares[-1] == 1.0 and shares == sorted(shares) and len(shares) == 2


def test_frames_are_stacked():
  data = _episodes([3, 2], lambda n: np.zeros((n, 1), np.float32))
  seen = []
  policy = _stateless(lambda step: (seen.append(step.observation.shape), step.observation[:, 0])[1])
  fidelity(policy, (), data, action=Continuous([0], [1]), frame_stack=4)
  assert seen == [(5, 4, 1)]
  oldest = _episodes([3, 2], lambda n: np.array([0, 0, 0, 9, 4, 4, 9], np.float32)[:, None])
  found = fidelity(policy, (), oldest, action=Continuous([0], [10]), frame_stack=4)
  assert found.mean_absolute_error.tolist() == [0.0]


def test_agents_and_chained_columns():
  spec = testing.continuous_spec()
  agent = bc(spec, hidden=(8,))
  one, two = testing.fake_episodes(spec, seed=1), testing.fake_episodes(spec, seed=2)
  batch = agent.view.take(one, one.rows[:8])
  params = agent.init(jax.random.key(0), batch).params
  apart = [fidelity(agent, params, part, action=spec.action) for part in (one, two)]
  together = fidelity(agent, params, mixture({"one": one, "two": two}), action=spec.action)
  mean = np.mean([found.mean_absolute_error for found in apart], axis=0)
  np.testing.assert_allclose(together.mean_absolute_error, mean, rtol=1e-6)
  assert together.episodes == 16


def test_what_cannot_be_compared_is_said():
  data = functools.partial(_episodes, [2])
  policy = _stateless(lambda step: jnp.full((len(step.reward), 1), jnp.nan))
  floats, integers = data(lambda n: np.zeros((n, 1), np.float32)), data(lambda n: np.full(n, 3, np.int32))
  with pytest.raises(ValueError, match="NaN actions"):
    fidelity(policy, (), floats, action=Continuous([-1], [1]))
  with pytest.raises(ValueError, match=r"held-out actions are float32 \[1\]"):
    fidelity(policy, (), floats, action=Discrete(2))
  with pytest.raises(ValueError, match=r"held-out actions are int32 \[\]"):
    fidelity(policy, (), integers, action=Continuous([-1], [1]))
  choose = _stateless(lambda step: jnp.zeros(len(step.reward), jnp.int32))
  with pytest.raises(ValueError, match="from 3 to 3; the task has 0 to 1"):
    fidelity(choose, (), integers, action=Discrete(2))
  with pytest.raises(ValueError, match="no transition"):
    fidelity(choose, (), _episodes([0], lambda n: np.zeros(n, np.int32)), action=Discrete(2))


def _initial(agent, data):
  batch = agent.view.take(agent.view.prepare(data), np.arange(2))
  return jax.jit(agent.init)(jax.random.key(0), batch).params


def test_likelihood_of_choices_by_hand():
  """All probabilities of an observation add up to one; the mean is over the transitions."""
  data = _episodes([4, 1], lambda n: np.array([0, 2, 1, 2, 9, 0, 9], np.int32))
  agent = bc(data_spec(data, Discrete(3)), hidden=(4,))
  params = _initial(agent, data)
  step = Step(data.observation, data.reward, np.zeros(7, bool))
  each = np.stack([agent.log_prob(params, (), step, np.full(7, a))[0] for a in range(3)], axis=1)
  np.testing.assert_allclose(np.exp(each).sum(axis=1), 1.0, rtol=1e-5)
  found = fidelity(agent, params, data, action=Discrete(3))
  expected = np.mean([each[0, 0], each[1, 2], each[2, 1], each[3, 2], each[5, 0]])
  assert found.log_likelihood == found.scores["log_likelihood"] == pytest.approx(expected, rel=1e-5)


def test_likelihood_is_of_actions_between_minus_one_and_one():
  """A Gaussian about the policy's mode with a standard deviation of one, as it is at first."""
  data = _episodes([3], lambda n: np.array([[1, 5], [2, 5], [6, 4], [99, 99]], np.float32))
  action = Continuous([-10, 0], [10, 8])
  agent = bc(data_spec(data, action), head="gaussian", hidden=(4,))
  params = _initial(agent, data)
  found = fidelity(agent, params, data, action=action)
  step = Step(data.observation[:3], data.reward[:3], np.zeros(3, bool))
  unit = lambda x: 2 * (np.asarray(x) - [-10, 0]) / [20, 8] - 1  # noqa: E731
  z = unit(data.action[:3]) - unit(agent.act(params, (), step, None)[0])
  expected = np.mean(np.sum(-0.5 * z**2 - 0.5 * np.log(2 * np.pi), axis=1))
  assert found.log_likelihood == pytest.approx(expected, rel=1e-4)


def test_points_have_no_likelihood():
  data = _episodes([3], lambda n: {"a": np.zeros((n, 1), np.float32), "b": np.array([0, 1, 1, 9], np.int32)})
  action = {"a": Continuous([-1], [1]), "b": Discrete(2)}
  agent = bc(data_spec(data, action), hidden=(4,))  # deterministic where it can be
  found = fidelity(agent, _initial(agent, data), data, action=action)
  assert found.parts["a"].log_likelihood is None
  assert found.parts["b"].log_likelihood < 0
  assert found.scores["a/log_likelihood"] is None
  policy = _stateless(lambda step: {"a": jnp.zeros((len(step.reward), 1)), "b": jnp.zeros(len(step.reward), jnp.int32)})
  assert fidelity(policy, (), data, action=action).parts["b"].log_likelihood is None


@pytest.mark.parametrize("name", ["bc_transformer", "dt"])
def test_a_memory_holds_the_datas_actions(name):
  """Step by step it is the likelihood of whole windows, which the loss has: the policy's own choices play no part."""
  data = _episodes(
    [5, 5],
    lambda n: np.array([0, 2, 1, 2, 2, 9, 1, 0, 0, 2, 1, 9], np.int32),
    reward=lambda n: np.array([1, 2, 0, 0, 1, 9, 0, 3, 1, 0, 0, 9], np.float32),
  )
  spec = data_spec(data, Discrete(3))
  options = {"length": 5, "layers": 2, "width": 16, "heads": 2, "dropout": 0.0, "attention_dropout": 0.0}
  options["optimizer"] = optax.adam(1e-2)
  if name == "dt":  # both episodes earn 4
    agent = agents.dt(spec, target_return=4.0, return_scale=1.0, **options)
  else:
    agent = agents.bc_transformer(spec, actions=True, **options)
  prepared = agent.view.prepare(data)
  # Of the decision transformer, whose windows are padded on the left, those that end with the episode's last action.
  windows = agent.view.take(prepared, np.array([0, 6]))
  assert windows.mask.all()
  state, update = jax.jit(agent.init)(jax.random.key(0), windows), jax.jit(agent.update)
  for _ in range(5):
    state, _ = update(state, windows)
  _, metrics = update(state, windows)
  found = fidelity(agent, state.params, data, action=Discrete(3))
  assert found.log_likelihood == pytest.approx(-float(metrics["loss"]), rel=1e-4)
  assert found.accuracy < 1  # what it would have done is not what the data did
