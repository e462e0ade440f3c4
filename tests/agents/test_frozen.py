import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ilx
from ilx import testing


def _paths(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(tree)
  }


def test_what_matches_stays_and_the_rest_is_learnt_as_without():
  spec = testing.continuous_spec()
  data = jax.tree.map(jnp.asarray, testing.fake_episodes(spec))
  optimizer = optax.adamw(1e-2, weight_decay=0.1)
  trained = {}
  for name, chosen in {"all": optimizer, "some": ilx.agents.frozen(optimizer, r"/Dense_0/")}.items():
    agent = ilx.agents.bc(spec, hidden=(4, 4), optimizer=chosen)
    batch = agent.view.sample(jax.random.key(0), data, 8)
    first = agent.init(jax.random.key(0), batch)
    trained[name] = _paths(agent.update(first, batch)[0].params.network)
  before = _paths(first.params.network)
  frozen = [path for path in before if "/Dense_0/" in path]
  assert len(frozen) == 2 and len(before) > 4
  for path, leaf in trained["some"].items():
    expected = before[path] if path in frozen else trained["all"][path]
    np.testing.assert_array_equal(leaf, expected)
    assert path in frozen or not np.array_equal(leaf, before[path])
  moments = jax.tree.leaves(agent.init(jax.random.key(0), batch).optimizer)
  assert sum(x.size for x in moments) < 2 * sum(x.size for x in before.values())


@pytest.mark.parametrize("num_critics", [2, 3])
def test_paths_of_critics_begin_as_those_of_the_policy(num_critics):
  spec = testing.continuous_spec()
  optimizer = ilx.agents.frozen(optax.sgd(1.0), "^params/torso/")
  agent = ilx.agents.iql(spec, hidden=(4, 4), num_critics=num_critics, optimizer=optimizer)
  data = jax.tree.map(jnp.asarray, testing.fake_episodes(spec))
  batch = agent.view.sample(jax.random.key(0), data, 8)
  before = agent.init(jax.random.key(0), batch)
  after, _ = agent.update(before, batch)
  for name in ("value", "critic"):
    was, now = _paths(getattr(before, name)), _paths(getattr(after, name))
    stayed = {path for path in was if np.array_equal(was[path], now[path])}
    assert {path for path in was if "/torso/" in path} <= stayed < set(was)


def test_a_pattern_that_is_none_is_refused():
  with pytest.raises(ValueError, match=r"freeze: '\(' is no regular expression"):
    ilx.agents.frozen(optax.sgd(1.0), "(")
