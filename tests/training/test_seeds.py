"""Many seeds in one program are the runs of the single seeds."""

import functools
import itertools
import re
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ilx
from ilx import testing, training
from ilx.data.views import Transitions
from ilx.training import feed, programs, tiers
from ilx.training import seeds as seeds_lib
from ilx.training.seeds import Seeds
from ilx.types import Agent

SPEC = testing.continuous_spec()
STEPS, SEED, BATCH = 12, 3, 16
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


class State(NamedTuple):
  params: jax.Array
  delayed: jax.Array
  optimizer: Any
  step: jax.Array
  key: jax.Array


@pytest.fixture(scope="module")
def agent():
  """A linear policy, quick to compile.

  As methods with delayed policies do, every other update does more, under a cond; something depends on the state's key;
  the optimizer's counter is its own, and has the axis of the seeds.
  """
  optimizer = optax.sgd(optax.linear_schedule(0.1, 0.01, STEPS), momentum=0.9)

  def init(key, batch):
    key, params_key = jax.random.split(key)
    params = jax.random.normal(params_key, (batch.observation.shape[-1], batch.action.shape[-1]))
    return State(params, jnp.zeros(()), optimizer.init(params), jnp.zeros((), jnp.int32), key)

  def loss(params, batch, noise):
    return jnp.mean((batch.observation @ params - batch.action - noise) ** 2)

  def update(state, batch):
    noise = (jax.random.key_data(state.key)[0] % 8).astype(jnp.float32) / 8
    value, gradient = jax.value_and_grad(loss)(state.params, batch, noise)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer)
    delayed = jax.lax.cond(state.step % 2 == 0, lambda x: x + jnp.mean(batch.reward), lambda x: x, state.delayed)
    params = optax.apply_updates(state.params, updates)
    state = State(params, delayed, optimizer_state, state.step + 1, state.key)
    return state, {"loss": value, "gradient_norm": optax.tree.norm(gradient)}

  return Agent(init, update, act=lambda *args: None, carry=lambda size: (), view=Transitions())


@pytest.fixture(scope="module")
def episodes():
  return testing.fake_episodes(SPEC)


def _mesh(count):
  return jax.sharding.Mesh(np.array(jax.devices()[:count]).reshape(count, 1, 1), ("data", "fsdp", "tensor"))


def _train(agent, data, **kwargs):
  defaults = {"steps": STEPS, "seed": SEED, "batch_size": BATCH, "log_every": 4, "checkpoint_every": 4}
  return ilx.train(agent, data, **(defaults | {"mesh": _mesh(1)} | kwargs))


def _plain(state):
  return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def _one(states, index):
  return _plain(training.one_seed(states, index))


class Alone:
  """Runs of single seeds in loops that a user would write; ``ilx.train`` makes the same (test_trainer.py)."""

  def __init__(self, agent, episodes):
    data = jax.device_put(episodes.replace(weights=None))
    self._sample = jax.jit(lambda key, i: agent.view.sample(jax.random.fold_in(key, i), data, BATCH))
    self._init, self._update = jax.jit(agent.init), jax.jit(agent.update)

  def run(self, seed, steps=STEPS, batches=None):
    """The state, and the metrics of every update."""
    init_key, key = jax.random.split(jax.random.key(seed))
    batches = batches or (self._sample(key, i) for i in range(steps))
    state, metrics = self._init(init_key, self._sample(key, 0)), []
    for batch in itertools.islice(batches, steps):
      state, found = self._update(state, batch)
      metrics.append({name: float(value) for name, value in found.items()})
    return _plain(state), metrics


@pytest.fixture(scope="module")
def alone(agent, episodes):
  return Alone(agent, episodes)


class Streamed:
  """Data that makes its own batches; remembers who read what."""

  def __init__(self, episodes):
    self.episodes, self.opened = episodes, []

  def batches(self, view, batch_size, seed, *, start=0, host=(0, 1)):
    self.opened.append((seed, start))
    while True:
      rows = np.random.default_rng((seed, start)).choice(np.asarray(self.episodes.rows), batch_size)
      yield view.take(self.episodes, rows)
      start += 1


@pytest.fixture(scope="module")
def many(agent, episodes):
  """``(tier, devices, seeds, batched) -> (final states, rows logged, evaluations)``, each trained once."""

  @functools.cache
  def run(tier, devices, seeds, batched):
    rows, evaluated, plan = [], [], seeds_lib.plan

    def evaluate(params, step):
      evaluated.append((step, jax.tree.map(np.asarray, params)))
      return {}

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(seeds_lib, "plan", lambda *args: plan(*args)._replace(batched=batched))
      kwargs = {"tier": tier, "seeds": seeds, "mesh": _mesh(devices), "evaluate": evaluate}
      states = _train(agent, episodes, on_progress=lambda step, row: rows.append(row), **kwargs)
    return states, rows, evaluated

  return run


@pytest.mark.parametrize(
  "how",
  [
    ("device", 1, 1, False),
    ("device", 2, 2, False),
    ("device", 2, 4, True),
    ("device", 2, 3, True),
    ("host", 2, 4, True),
    ("host", 2, 3, False),
  ],
)
def test_each_seed_is_its_single_run(alone, many, how):
  """On one device, spread over two, with batches divided among two; in loops as on CPUs, or all at once."""
  states, rows, ((step, params),) = many(*how)
  assert states.step.shape == () and states.step == STEPS == step
  count = how[2]
  assert states.params.shape[0] == count
  losses = []
  for i in range(count):
    state, metrics = alone.run(SEED + i)
    chex.assert_trees_all_close(_one(states, i), state, **ROUNDING)
    chex.assert_trees_all_equal(training.one_seed(params, i), _one(states, i).params)
    losses.append([m["loss"] for m in metrics])
  for index in (-1, count):
    with pytest.raises(IndexError, match=f"index={index}; there are {count} seeds"):
      training.one_seed(states, index)
    logged = [row[f"train/loss/seed{SEED + i}"] for row in rows if "train/loss" in row]
    np.testing.assert_allclose(logged, np.reshape(losses[-1], (-1, 4)).mean(axis=1), rtol=1e-4)
  logged = [row["train/loss"] for row in rows if "train/loss" in row]
  np.testing.assert_allclose(logged, np.reshape(np.mean(losses, axis=0), (-1, 4)).mean(axis=1), rtol=1e-4)
  assert count == 1 or not np.allclose(losses[0], losses[1])


def test_the_state_of_one_seed_has_no_seeds():
  state = {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}
  with pytest.raises(ValueError, match="no common leading axis; expected the state of a run of many seeds"):
    training.one_seed(state, 0)


def test_streamed_seeds_are_their_single_runs(agent, episodes, alone):
  data = Streamed(episodes)
  states = _train(agent, data, seeds=2)
  assert data.opened == [(SEED, 0), (SEED + 1, 0)]
  for i in range(2):
    batches = data.batches(agent.view, BATCH, SEED + i)
    chex.assert_trees_all_close(_one(states, i), alone.run(SEED + i, batches=batches)[0], **ROUNDING)


@pytest.mark.parametrize("tier", ["device", "host"])
def test_initial_states_are_those_of_single_runs_to_the_bit(agent, episodes, tier):
  kwargs = {"batch_size": BATCH, "mesh": _mesh(2), "tier": tier}
  with tiers.open_runner(agent, episodes, seed=SEED, seeds=seeds_lib.plan(2, _mesh(2)), **kwargs) as runner:
    states = runner.init()
  for i in range(2):
    with tiers.open_runner(agent, episodes, seed=SEED + i, **kwargs) as runner:
      chex.assert_trees_all_equal(_one(states, i), _plain(runner.init()))


def test_what_depends_on_the_step_stays_a_branch(agent, episodes):
  """A select would compute both sides at every update."""
  data = jax.tree.map(jnp.asarray, episodes.replace(weights=None))
  state = agent.init(jax.random.key(0), agent.view.sample(jax.random.key(0), data, BATCH))
  for seeds in (Seeds(2, True, True), Seeds(2, True, False), Seeds(2, False, True), Seeds(2, False, False)):
    program = programs.make_program(agent, BATCH, _mesh(1), seeds)
    states = seeds_lib.stack([state, state], seeds, _mesh(1))
    text = program.lower(states, data, jax.random.split(jax.random.key(1)), 2).as_text()
    assert re.search(r"stablehlo\.(case|if)\b", text)


def test_spread_seeds_do_not_communicate(agent, episodes):
  mesh = _mesh(2)
  data = jax.device_put(jax.tree.map(np.asarray, episodes.replace(weights=None)), ilx.parallel.mesh.replicated(mesh))
  state = agent.init(jax.random.key(0), agent.view.sample(jax.random.key(0), data, BATCH))
  found = {}
  for spread in (True, False):
    seeds = Seeds(2, spread, False)
    program = programs.make_program(agent, BATCH, mesh, seeds)
    states = seeds_lib.stack([state, state], seeds, mesh)
    keys = jax.device_put(
      jax.random.split(jax.random.key(1)), jax.sharding.NamedSharding(mesh, seeds_lib.partition(seeds))
    )
    text = program.lower(states, data, keys, 2).compile().as_text()
    found[spread] = bool(re.search(r"all-reduce|all-gather|all-to-all|collective-permute", text))
  assert found == {True: False, False: True}


def _crash_and_resume(agent, data, workdir, **kwargs):
  def crash(step, row):
    del row
    if step == 8:
      raise KeyError("crash")

  with pytest.raises(KeyError, match="crash"):
    _train(agent, data, workdir=workdir, on_progress=crash, **kwargs)
  return _plain(_train(agent, data, workdir=workdir, **kwargs))


@pytest.mark.parametrize("how", [("device", 2, 2, False), ("host", 2, 3, False)])
def test_many_seeds_resume_bit_for_bit(agent, episodes, many, tmp_path, how):
  """Spread, and with divided batches."""
  tier, devices, seeds, _ = how
  resumed = _crash_and_resume(agent, episodes, tmp_path, tier=tier, seeds=seeds, mesh=_mesh(devices))
  chex.assert_trees_all_equal(resumed, _plain(many(*how)[0]))


def test_streamed_seeds_go_on_where_they_were(agent, episodes, alone, tmp_path):
  data = Streamed(episodes)
  resumed = _crash_and_resume(agent, data, tmp_path, seeds=2)
  assert data.opened == [(SEED, 0), (SEED + 1, 0), (SEED, 4), (SEED + 1, 4)], "batch 0 is not read again"
  for i in range(2):
    batches = Streamed(episodes).batches(agent.view, BATCH, SEED + i)
    chex.assert_trees_all_close(training.one_seed(resumed, i), alone.run(SEED + i, batches=batches)[0], **ROUNDING)


def test_other_numbers_of_seeds_do_not_go_on(agent, episodes, tmp_path):
  _train(agent, episodes, steps=1, seeds=2, workdir=tmp_path)
  for seeds in (3, None):
    with pytest.raises(training.CheckpointError, match="checkpoints"):
      _train(agent, episodes, steps=2, seeds=seeds, workdir=tmp_path)


def test_a_metric_that_is_not_finite_names_the_seed(agent, episodes, alone):
  inner = agent.update

  def update(state, batch):
    state, metrics = inner(state, batch)
    # One seed of the three has such a first parameter.
    return state, metrics | {"odd": jnp.where(jnp.abs(state.params[0, 0] - wanted) < 1e-3, jnp.nan, 0.0)}

  wanted = alone.run(SEED + 1, steps=1)[0].params[0, 0]
  with pytest.raises(FloatingPointError, match=r"train/odd of seed 4 is not finite in update 1:"):
    _train(agent._replace(update=update), episodes, steps=1, seeds=3)


@pytest.mark.parametrize("seeds", [0, -1, 1.5, 2.0, "2", True])
def test_a_number_of_seeds_that_is_none_is_refused(agent, episodes, seeds):
  with pytest.raises(ValueError, match=f"seeds={seeds!r} must be an integer of at least 1"):
    _train(agent, episodes, seeds=seeds)


def test_batches_need_divide_only_where_seeds_are_not_spread(agent, episodes):
  assert _train(agent, episodes, seeds=2, batch_size=3, steps=1, mesh=_mesh(2)).step == 1
  with pytest.raises(ValueError, match="batch_size=3 does not divide among 2 devices; use 2 or 4"):
    _train(agent, episodes, seeds=3, batch_size=3, steps=1, mesh=_mesh(2))
  with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
    _train(agent, episodes, seeds=2, batch_size=0, steps=1, mesh=_mesh(2))


def test_a_feed_holds_less_of_more_seeds():
  shapes = {"x": jax.ShapeDtypeStruct((1 << 20,), np.float32)}
  assert [feed.capacity(shapes, seeds) for seeds in (1, 2, 8, 100)] == [8, 4, 1, 1]


def test_batches_of_every_seed_end_with_the_feed():
  class Endless:
    closed = False

    def __next__(self):
      time.sleep(0.001)
      return {"x": np.zeros((8, 1), np.float32)}

    def close(self):
      self.closed = True

  batches = [Endless(), Endless()]
  with feed.Feed(batches, iter(lambda: 2, 0), 3, _mesh(1), Seeds(2, True, False)) as stacks:
    stack, count = next(stacks)
  assert count == 2 and stack["x"].shape == (2, 3, 8, 1)
  assert all(each.closed for each in batches)
