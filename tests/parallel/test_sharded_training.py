"""Transformers whose parameters are divided learn what whole ones learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ilx
from ilx import agents, parallel, testing
from ilx.evaluation import acting
from ilx.parallel import mesh as mesh_lib
from ilx.parallel import placement

SPEC = testing.continuous_spec()
EPISODES = testing.fake_episodes(SPEC)
# Everything but scalars is divided where it can be.
RULES = placement.default_rules(small=32)
BATCH, STEPS = 16, 6


@pytest.fixture(scope="module")
def agent():
  """Enough layers for a loop over them. Plain gradient steps: Adam would magnify the rounding of small gradients."""
  optimizer = optax.sgd(0.05, momentum=0.9)
  return agents.bc_transformer(SPEC, length=4, layers=5, heads=2, width=16, optimizer=optimizer)


@pytest.fixture(scope="module")
def whole(agent):
  """What one device learns."""
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), mesh_lib.AXES)
  return ilx.train(agent, EPISODES, steps=STEPS, batch_size=BATCH, mesh=mesh)


@pytest.fixture(scope="module")
def resumed(agent, tmp_path_factory):
  """Half of the updates on one mesh, the rest on another; and what was given to be evaluated."""
  given, options = [], {"batch_size": BATCH, "rules": RULES, "workdir": tmp_path_factory.mktemp("run")}
  ilx.train(agent, EPISODES, steps=STEPS // 2, mesh=parallel.make_mesh(fsdp=4, tensor=2), **options)
  mesh = parallel.make_mesh(data=2, fsdp=2, tensor=2)
  evaluate = lambda params, step: given.append(acting.on_one_device(params)) or {}  # noqa: E731
  return ilx.train(agent, EPISODES, steps=STEPS, mesh=mesh, evaluate=evaluate, **options), given, mesh


def _close(one, other):
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
    if not jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-4, atol=2e-5, err_msg=str(path))


def test_what_is_learnt_is_the_same(whole, resumed):
  """On fsdp=4 x tensor=2, then, from the checkpoint, on data=2 x fsdp=2 x tensor=2."""
  _close(resumed[0], whole)
  kernel = whole.params.network["params"]["transformer"]["layers"]["mlp"]["up"]["kernel"]
  assert float(jnp.abs(kernel).max()) > 0.02  # where normal(0.02) would be


def test_the_state_stays_where_the_rules_say(resumed):
  state, _, mesh = resumed
  for x, where in zip(jax.tree.leaves(state), jax.tree.leaves(parallel.shardings(state, mesh, RULES)), strict=True):
    assert x.sharding.is_equivalent_to(where, x.ndim)
  kernel = state.params.network["params"]["transformer"]["layers"]["mlp"]["up"]["kernel"]
  assert kernel.addressable_shards[0].data.shape == (5, 8, 32)  # of 5 x 16 x 64


def test_evaluation_gets_whole_params_on_one_device(whole, resumed):
  (params,) = resumed[1]
  assert all(x.devices() == {jax.devices()[0]} for x in jax.tree.leaves(params))
  _close(params, whole.params)
