import json
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from ilx import testing
from ilx.data import sampling
from ilx.data.views import Transitions
from ilx.parallel import replicas
from ilx.training import metrics, nonfinite
from ilx.training import seeds as seeds_lib
from ilx.types import Agent

SPEC = testing.continuous_spec()
BATCH = 8


class State(NamedTuple):
  params: jax.Array
  step: jax.Array
  key: jax.Array


@pytest.fixture(scope="module")
def agent():
  """Linear regression: it compiles in no time."""

  def init(key, batch):
    shape = (batch.observation.shape[-1], batch.action.shape[-1])
    return State(jax.random.normal(key, shape), jnp.int32(0), key)

  def update(state, batch):
    def loss(w):
      return jnp.mean((batch.observation @ w - batch.action) ** 2)

    value, gradient = jax.value_and_grad(loss)(state.params)
    params = state.params - 0.01 * replicas.mean(gradient)
    return State(params, state.step + 1, state.key), {"loss": value}

  return Agent(init, update, None, None, Transitions())


@pytest.fixture(scope="module")
def episodes():
  return testing.fake_episodes(SPEC._replace(statistics=None))  # its updates diverge where numbers are large


def _train(agent, episodes, **kwargs):
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor"))
  defaults = {"steps": 20, "batch_size": BATCH, "log_every": 10, "checkpoint_every": 10, "mesh": mesh}
  return ilx.train(agent, episodes, **(defaults | kwargs))


def _broken(agent, at, metric=True, gradient=False):
  """In the updates ``at`` a metric, or what is learnt, is not finite."""

  def update(state, batch):
    new, metrics = agent.update(state, batch)
    bad = jnp.isin(new.step, jnp.array(at))
    if metric:
      metrics = metrics | {"odd": jnp.where(bad, jnp.inf, 1.0)}
    if gradient:
      new = new._replace(params=jnp.where(bad, jnp.nan, new.params))
    return new, metrics

  return agent._replace(update=update)


def _plain(state):
  return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


@pytest.mark.parametrize("tier", ["device", "host"])
def test_the_first_update_is_named_and_its_batch_saved(agent, episodes, tmp_path, tier):
  rows = []
  with pytest.raises(FloatingPointError, match=r"train/odd is not finite in update 13: .*diverged.json"):
    _train(
      _broken(agent, [13, 14, 17]),
      episodes,
      workdir=tmp_path,
      tier=tier,
      on_progress=lambda step, row: rows.append(step),
    )
  assert rows == [10]
  found = json.loads((tmp_path / "diverged.json").read_text())
  assert found["step"] == 13 and found["not_finite"] == ["odd"] and found["last_row"]["step"] == 10
  # The batch that the program drew, by the contract of views: of fold_in(key, 12).
  prepared = agent.view.prepare(episodes)
  key = jax.random.fold_in(jax.random.split(jax.random.key(0))[1], 12)
  drawn = np.asarray(sampling.draw(key, jax.device_put(prepared), BATCH))
  facts = found["update_13"]
  np.testing.assert_array_equal(facts["rows"], drawn)
  starts = np.asarray(prepared.starts)
  np.testing.assert_array_equal(starts[facts["episode"]] + facts["step_in_episode"], drawn)
  with np.load(tmp_path / "diverged.npz") as saved:
    np.testing.assert_array_equal(saved["13/observation"], np.asarray(prepared.observation)[drawn])
    assert "12/action" in saved and len(saved["12/action"]) == BATCH


def test_the_batch_of_many_seeds_is_that_of_the_seed_that_broke(agent, episodes, tmp_path):
  second = jax.random.key_data(jax.random.split(jax.random.key(4))[0])

  def update(state, batch):
    new, metrics = agent.update(state, batch)
    bad = (jax.random.key_data(state.key) == second).all() & (new.step == 7)
    return new, metrics | {"odd": jnp.where(bad, jnp.nan, 0.0)}

  with pytest.raises(FloatingPointError, match=r"train/odd of seed 4 is not finite in update 7: .*diverged.json"):
    _train(agent._replace(update=update), episodes, seeds=2, seed=3, workdir=tmp_path)
  found = json.loads((tmp_path / "diverged.json").read_text())
  key = jax.random.fold_in(jax.random.split(jax.random.key(4))[1], 6)
  drawn = np.asarray(sampling.draw(key, jax.device_put(agent.view.prepare(episodes)), BATCH))
  assert found["seed"] == 4
  np.testing.assert_array_equal(found["update_7"]["rows"], drawn)


@pytest.mark.parametrize("value", [0.1, 1000.0, 1.0 / 3.0])
def test_means_over_many_updates_do_not_drift(value):
  count = 300_000

  def body(i, sums):
    return nonfinite.add(sums, {"loss": jnp.float32(value), nonfinite.SKIPPED: jnp.float32(0)}, i + 1)

  start = nonfinite.zeros({name: jax.ShapeDtypeStruct((), jnp.float32) for name in ("loss", nonfinite.SKIPPED)}, ())
  sums = jax.jit(lambda sums: jax.lax.fori_loop(0, count, body, sums))(start)
  row = metrics.Metrics(None).row(sums, count, count)
  assert row["train/loss"] == pytest.approx(float(np.float32(value)), rel=1e-9)


def test_skipped_updates_are_counted_beyond_what_float32_can():
  wanted = 2.0**24
  sums = nonfinite.zeros({nonfinite.SKIPPED: jax.ShapeDtypeStruct((), jnp.float32)}, ())
  sums = sums._replace(metrics={nonfinite.SKIPPED: jnp.float32(wanted)})
  for _ in range(3):
    sums = jax.jit(nonfinite.add)(sums, {nonfinite.SKIPPED: jnp.float32(1)}, jnp.int32(1))
  with pytest.raises(FloatingPointError, match="the last 16777219 updates"):
    metrics.Metrics(None).row(sums, 2**24 + 3, 2**24 + 3)


def test_gradients_show_in_the_next_update_and_both_batches_are_saved(agent, episodes, tmp_path):
  with pytest.raises(FloatingPointError, match=r"not finite in update 6:"):
    _train(_broken(agent, [5], gradient=True, metric=False), episodes, workdir=tmp_path)
  found = json.loads((tmp_path / "diverged.json").read_text())
  assert found["update_5"]["batch"] == 4 and found["update_6"]["batch"] == 5


@pytest.mark.parametrize("seeds", [None, 2, 3])
@pytest.mark.parametrize("tier", ["device", "host"])
def test_what_the_last_update_breaks_is_not_saved(agent, episodes, tmp_path, tier, seeds):
  """Metrics are of before an update: here they are finite at every checkpoint."""
  broken = _broken(agent, [10], gradient=True, metric=False)
  _train(broken, episodes, steps=8, keep=1, workdir=tmp_path, tier=tier, seeds=seeds)
  which = " of seed 0" if seeds else ""
  with pytest.raises(FloatingPointError, match=rf"the state{which} is not finite after update 10: .*diverged.json"):
    _train(broken, episodes, keep=1, workdir=tmp_path, tier=tier, seeds=seeds)
  assert [path.name for path in (tmp_path / "checkpoints").glob("*")] == ["8"]
  found = json.loads((tmp_path / "diverged.json").read_text())
  assert found["not_finite"] == ["the state"] and found["update_10"]["batch"] == 9
  with pytest.raises(FloatingPointError, match="after update 10"):
    _train(broken, episodes, steps=10, seeds=seeds, tier=tier)


@pytest.mark.parametrize("seeds", [2, 8])
def test_all_at_once_the_seed_that_breaks_is_named(agent, episodes, seeds, monkeypatch):
  plan = seeds_lib.plan
  monkeypatch.setattr(seeds_lib, "plan", lambda count, mesh: plan(count, mesh)._replace(batched=True))

  def update(state, batch):
    new, metrics = agent.update(state, batch)
    bad = (jax.random.key_data(state.key) == second).all() & (new.step == 20)
    return new._replace(params=jnp.where(bad, jnp.nan, new.params)), metrics

  second = jax.random.key_data(jax.random.split(jax.random.key(1))[0])
  with pytest.raises(FloatingPointError, match="the state of seed 1 is not finite after update 20"):
    _train(agent._replace(update=update), episodes, seeds=seeds, mesh=None)


def test_parts_of_a_state_that_never_were_finite_may_stay_so(agent, episodes):
  """A best loss so far, for example."""

  def init(key, batch):
    return agent.init(key, batch)._replace(key=jnp.array([jnp.inf, 0.0]))

  assert _train(agent._replace(init=init), episodes).step == 20


def test_a_stream_saves_the_batch_it_gave(agent, episodes, tmp_path):
  class Stream:
    def batches(self, view, batch_size, seed, *, start=0, host=(0, 1)):
      data = view.prepare(episodes)
      while True:
        rows = np.random.default_rng((seed, start)).choice(np.asarray(data.rows), batch_size)
        yield view.take(data, rows)
        start += 1

  with pytest.raises(FloatingPointError, match="in update 4"):
    _train(_broken(agent, [4]), Stream(), workdir=tmp_path)
  rows = np.random.default_rng((0, 3)).choice(np.asarray(agent.view.prepare(episodes).rows), BATCH)
  with np.load(tmp_path / "diverged.npz") as saved:
    np.testing.assert_array_equal(saved["4/action"], np.asarray(episodes.action)[rows])


def test_no_folder_no_files(agent, episodes):
  with pytest.raises(FloatingPointError, match=r"in update 1: training diverged$"):
    _train(_broken(agent, [1]), episodes)


@pytest.mark.parametrize("seeds", [None, 2, 8])
def test_the_first_update_is_found_on_many_devices_and_of_many_seeds(agent, episodes, seeds):
  """Seeds one after the other on all devices, and spread over them."""
  message = "in update 3:" if seeds is None else "of seed 0 is not finite in update 3:"
  with pytest.raises(FloatingPointError, match=message):
    _train(_broken(agent, [3]), episodes, seeds=seeds, mesh=None)


def test_looking_changes_no_bit(episodes, monkeypatch):
  agent = ilx.agents.bc(SPEC, hidden=(4,))
  whole = _plain(_train(agent, episodes))
  kept = _plain(_train(agent, episodes, on_nonfinite="skip"))
  chex.assert_trees_all_close(kept, whole, rtol=1e-5)
  monkeypatch.setattr(
    nonfinite, "add", lambda sums, metrics, step: sums._replace(metrics=jax.tree.map(jnp.add, sums.metrics, metrics))
  )
  monkeypatch.setattr(nonfinite, "look", lambda sums, before, after, step: sums)
  chex.assert_trees_all_equal(_plain(_train(agent, episodes)), whole)


@pytest.mark.parametrize("kind", [{"metric": True}, {"metric": False, "gradient": True}])
def test_skipped_updates_leave_the_state_and_are_counted(agent, episodes, kind):
  rows = {}
  state = _train(
    _broken(agent, [3, 4, 11], **kind),
    episodes,
    on_nonfinite="skip",
    on_progress=lambda step, row: rows.update({step: row}),
  )
  assert rows[10]["train/skipped"] == 2 and rows[20]["train/skipped"] == 1
  assert np.isfinite(rows[10]["train/loss"])

  # The loop without the updates that were skipped; the step counts on.
  init_key, sample_key = jax.random.split(jax.random.key(0))
  data = jax.device_put(agent.view.prepare(episodes))
  plain = agent.init(init_key, agent.view.sample(init_key, data, BATCH))
  for i in range(20):
    if i + 1 in (3, 4, 11):
      plain = plain._replace(step=plain.step + 1)
    else:
      plain, _ = jax.jit(agent.update)(plain, agent.view.sample(jax.random.fold_in(sample_key, i), data, BATCH))
  chex.assert_trees_all_close(_plain(state), _plain(plain), rtol=1e-4, atol=1e-6)


def test_on_replicas_all_skip_where_one_would(agent, episodes):
  """A metric that is not finite on one device alone."""

  def update(state, batch):
    new, metrics = agent.update(state, batch)
    odd = jnp.any(batch.observation == wanted) & (new.step == 2)
    return new, metrics | {"odd": jnp.where(odd, jnp.nan, 0.0)}

  data = jax.device_put(agent.view.prepare(episodes))
  key = jax.random.fold_in(jax.random.split(jax.random.key(0))[1], 1)
  wanted = agent.view.sample(key, data, BATCH).observation[0, 0]
  rows = {}
  state = _train(
    agent._replace(update=update),
    episodes,
    strategy="pmap",
    mesh=None,
    on_nonfinite="skip",
    steps=5,
    log_every=5,
    on_progress=lambda step, row: rows.update(row),
  )
  assert rows["train/skipped"] == 1
  for leaf in jax.tree.leaves(state.params):
    first, *others = (np.asarray(shard.data) for shard in leaf.addressable_shards)
    assert all(np.array_equal(first, other) for other in others)


def test_a_seed_skips_alone(agent, episodes):
  item = agent.view.take(episodes, episodes.rows[:1])
  start = [agent.init(jax.random.split(jax.random.key(seed))[0], item) for seed in range(2)]
  kernels = [state.params for state in start]

  def update(state, batch):
    new, metrics = agent.update(state, batch)
    odd = state.params[0, 0] == kernels[1][0, 0]
    return new, metrics | {"odd": jnp.where(odd, jnp.nan, 0.0)}

  rows = {}
  many = _train(
    agent._replace(update=update),
    episodes,
    steps=1,
    seeds=2,
    on_nonfinite="skip",
    on_progress=lambda step, row: rows.update(row),
  )
  assert rows["train/skipped"] == 1
  learnt = [ilx.training.one_seed(many, i).params for i in range(2)]
  np.testing.assert_array_equal(learnt[1], kernels[1])
  assert not np.array_equal(learnt[0], kernels[0])


def test_a_seed_that_is_always_skipped_leaves_the_means_to_the_others_and_ends_the_run(agent, episodes):
  second = jax.random.key_data(jax.random.split(jax.random.key(1))[0])

  def update(state, batch):
    new, metrics = agent.update(state, batch)
    odd = (jax.random.key_data(state.key) == second).all()
    return new, metrics | {"odd": jnp.where(odd, jnp.nan, 0.0)}

  rows = []
  with pytest.raises(FloatingPointError, match="the last 1000 updates of seed 1 up to step 1000 were skipped"):
    _train(
      agent._replace(update=update),
      episodes,
      steps=2000,
      log_every=500,
      checkpoint_every=500,
      seeds=2,
      on_nonfinite="skip",
      on_progress=lambda step, row: rows.append(row),
    )
  assert len(rows) == 1 and rows[0]["train/skipped"] == 500
  assert rows[0]["train/loss"] == rows[0]["train/loss/seed0"] and np.isnan(rows[0]["train/loss/seed1"])


def test_nothing_but_skipped_updates_is_divergence(agent, episodes):
  agent = _broken(agent, range(2001))
  with pytest.raises(FloatingPointError, match="the last 1000 updates up to step 1000 were skipped"):
    _train(agent, episodes, steps=2000, log_every=500, on_nonfinite="skip")


def test_another_policy_is_refused(agent, episodes):
  with pytest.raises(ValueError, match="on_nonfinite='ignore'"):
    _train(agent, episodes, on_nonfinite="ignore")
