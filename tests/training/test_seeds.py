"""Many seeds in one program are the runs of the single seeds."""

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
from ilx.agents.bc import State as Inner
from ilx.training import feed, programs
from ilx.training import seeds as seeds_lib
from ilx.training.seeds import Seeds
from ilx.types import Agent

SPEC = testing.continuous_spec()
STEPS, SEED, BATCH = 12, 3, 16
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


class State(NamedTuple):
  params: Any
  delayed: jax.Array
  optimizer: Any
  step: jax.Array
  key: jax.Array


def _delayed(inner: Agent) -> Agent:
  """As methods with delayed policies: every other update does more, under a cond; noise comes from the state's key."""

  def init(key, batch):
    state = inner.init(key, batch)
    return State(state.params, jnp.zeros(()), state.optimizer, state.step, state.key)

  def update(state, batch):
    key, noise = jax.random.split(state.key)
    noisy = batch._replace(action=batch.action + 0.01 * jax.random.normal(noise, batch.action.shape))
    learnt, metrics = inner.update(Inner(state.params, state.optimizer, state.step, state.key), noisy)
    delayed = jax.lax.cond(state.step % 2 == 0, lambda x: x + jnp.mean(batch.reward), lambda x: x, state.delayed)
    return State(learnt.params, delayed, learnt.optimizer, learnt.step, key), metrics

  return inner._replace(init=init, update=update)


@pytest.fixture(scope="module")
def agent():
  # Its counter is the optimizer's own, and has the axis of the seeds.
  rate = optax.linear_schedule(0.1, 0.01, STEPS)
  return _delayed(ilx.agents.bc(SPEC, hidden=(8,), optimizer=optax.sgd(rate, momentum=0.9)))


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


@pytest.fixture(scope="module")
def alone(agent, episodes):
  """The runs of single seeds, in loops that a user would write; ``ilx.train`` makes the same (test_trainer.py)."""
  data = jax.device_put(episodes.replace(weights=None))
  sample = jax.jit(lambda key, i: agent.view.sample(jax.random.fold_in(key, i), data, BATCH))
  init, update = jax.jit(agent.init), jax.jit(agent.update)
  states = []
  for seed in range(SEED, SEED + 4):
    init_key, sample_key = jax.random.split(jax.random.key(seed))
    state = init(init_key, sample(sample_key, 0))
    for i in range(STEPS):
      state, _ = update(state, sample(sample_key, i))
    states.append(_plain(state))
  return states


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


def _batched(monkeypatch, batched):
  plan = seeds_lib.plan
  monkeypatch.setattr(seeds_lib, "plan", lambda *args: plan(*args)._replace(batched=batched))


@pytest.mark.parametrize(
  ("tier", "devices", "seeds", "batched"),
  [
    ("device", 1, 3, False),
    ("device", 2, 4, True),
    ("device", 2, 3, False),
    ("device", 2, 3, True),
    ("host", 2, 4, False),
    ("host", 2, 3, False),
    ("host", 2, 3, True),
    ("host", 1, 3, True),
  ],
)
def test_each_seed_is_its_single_run(agent, episodes, alone, monkeypatch, tier, devices, seeds, batched):
  """On one device, spread over two, with batches divided among two; in loops as on CPUs, or all at once."""
  _batched(monkeypatch, batched)
  states = _train(agent, episodes, tier=tier, seeds=seeds, mesh=_mesh(devices))
  assert states.step.shape == () and states.step == STEPS
  for i in range(seeds):
    chex.assert_trees_all_close(_one(states, i), alone[i], **ROUNDING)
  assert any(not np.allclose(x[0], x[1]) for x in jax.tree.leaves(states.params.network))


def test_streamed_seeds_are_their_single_runs(agent, episodes):
  data = Streamed(episodes)
  states = _train(agent, data, seeds=2)
  assert sorted(data.opened) == [(SEED, 0), (SEED + 1, 0)]
  for i in range(2):
    chex.assert_trees_all_close(_one(states, i), _plain(_train(agent, data, seed=SEED + i)), **ROUNDING)


def test_initial_parameters_are_those_of_single_runs_to_the_bit(agent, episodes):
  none = agent._replace(update=lambda state, batch: (state._replace(step=state.step + 1), {"loss": jnp.zeros(())}))
  for tier in ("device", "host"):
    states = _train(none, episodes, tier=tier, steps=1, seeds=2, mesh=_mesh(2))
    for i in range(2):
      chex.assert_trees_all_equal(_one(states, i), _plain(_train(none, episodes, tier=tier, steps=1, seed=SEED + i)))


def test_one_seed_has_an_axis_too(agent, episodes, alone):
  states = _train(agent, episodes, seeds=1)
  assert jax.tree.leaves(states.params.network)[0].shape[0] == 1
  chex.assert_trees_all_close(_one(states, 0), alone[0], **ROUNDING)


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


@pytest.mark.parametrize(("tier", "devices", "seeds"), [("device", 2, 2), ("host", 2, 3), ("streamed", 1, 2)])
def test_many_seeds_resume_bit_for_bit(agent, episodes, tmp_path, tier, devices, seeds):
  data, tier = (Streamed(episodes), "auto") if tier == "streamed" else (episodes, tier)
  kwargs = {"tier": tier, "seeds": seeds, "mesh": _mesh(devices)}
  whole = _plain(_train(agent, data, **kwargs))

  def crash(step, row):
    del row
    if step == 8:
      raise KeyError("crash")

  with pytest.raises(KeyError, match="crash"):
    _train(agent, data, workdir=tmp_path, on_progress=crash, **kwargs)
  chex.assert_trees_all_equal(_plain(_train(agent, data, workdir=tmp_path, **kwargs)), whole)
  if tier == "auto":
    assert data.opened[-seeds:] == [(SEED + i, 4) for i in range(seeds)], "batch 0 is not read again"


def test_logs_have_the_means_and_the_loss_of_every_seed(agent, episodes):
  def rows(**kwargs):
    found = []
    _train(agent, episodes, steps=4, on_progress=lambda step, row: found.append(row), **kwargs)
    return found[0]

  together, single = rows(seeds=2), [rows(seed=SEED + i) for i in range(2)]
  losses = [row["train/loss"] for row in single]
  assert [together[f"train/loss/seed{seed}"] for seed in (3, 4)] == pytest.approx(losses, rel=1e-4)
  for name in ("train/loss", "train/gradient_norm"):
    assert together[name] == pytest.approx(np.mean([row[name] for row in single]), rel=1e-4)
  assert not [name for name in single[0] if "/seed" in name]


def test_a_metric_that_is_not_finite_names_the_seed(agent, episodes):
  inner = agent.update

  def update(state, batch):
    state, metrics = inner(state, batch)
    # One seed of the three has such a first parameter.
    weight = jax.tree.leaves(state.params.network)[-1].reshape(-1)[0]
    return state, metrics | {"odd": jnp.where(jnp.abs(weight - wanted) < 1e-3, jnp.nan, 0.0)}

  state = _train(agent, episodes, steps=1, seed=SEED + 1)
  wanted = jax.tree.leaves(state.params.network)[-1].reshape(-1)[0]
  with pytest.raises(FloatingPointError, match=r"train/odd of seed 4 is nan within the updates up to step 1:"):
    _train(agent._replace(update=update), episodes, steps=1, seeds=3)


def test_evaluations_get_the_params_of_all_seeds(agent, episodes, alone):
  def evaluate(params, step):
    found.append((step, _shapes(params), jax.tree.map(np.asarray, training.one_seed(params, 1))))
    return {"x": 1.0}

  found = []
  _train(agent, episodes, seeds=2, mesh=_mesh(2), evaluate=evaluate, evaluate_every=STEPS)
  ((step, shapes, params),) = found
  assert step == STEPS
  assert shapes == [(2, *shape) for shape in _shapes(params)]
  chex.assert_trees_all_close(params, alone[1].params, **ROUNDING)


def _shapes(tree):
  return [x.shape for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize("seeds", [0, -1, 1.5, 2.0, "2", True])
def test_a_number_of_seeds_that_is_none_is_refused(agent, episodes, seeds):
  with pytest.raises(ValueError, match=f"seeds={seeds!r} must be an integer of at least 1"):
    _train(agent, episodes, seeds=seeds)


def test_batches_need_divide_only_where_seeds_are_not_spread(agent, episodes):
  _train(agent, episodes, seeds=2, batch_size=3, steps=1, mesh=_mesh(2))
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
