"""Policies as folders: every agent plays on as it did, also where nothing but jax, numpy and safetensors is there."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
import ilx.export
from ilx.agents import policies
from ilx.agents.rebrac import Torso
from ilx.networks import mlp, scaling
from ilx.testing import continuous_spec, discrete_spec, factored_spec, fake_episodes
from ilx.types import Continuous, Discrete, Spec, Statistics, Step

_TREE = Spec(
  {
    "picture": jax.ShapeDtypeStruct((16, 18, 3), jnp.uint8),
    "pose": {"joints": jax.ShapeDtypeStruct((2, 2), jnp.float32), "gripper": jax.ShapeDtypeStruct((), jnp.uint8)},
  },
  Discrete(3),
)
_SMALL = {"length": 4, "layers": 1, "heads": 2, "width": 8}
# Sampled, too: of the others a sample is drawn by the same lines.
SAMPLED = ("chunked-plan", "iql")
AGENTS = {
  "bc": (ilx.agents.bc, continuous_spec(), {"hidden": (8,), "head": "gaussian"}),
  "bc-discrete": (ilx.agents.bc, discrete_spec(), {"hidden": (8,)}),
  "bc-factored": (ilx.agents.bc, factored_spec(), {"hidden": (8,), "head": "gaussian_mixture"}),
  "bc-pictures": (
    ilx.agents.bc,
    _TREE._replace(action=Continuous([-1.0, 0.0], [1.0, 9.0])),
    {"hidden": (8,), "encoder": "impala"},
  ),
  "chunked-votes": (ilx.agents.chunked_bc, factored_spec(), {"hidden": (8,), "length": 3}),
  "chunked-plan": (ilx.agents.chunked_bc, continuous_spec(), {"hidden": (8,), "length": 3, "execute": 2}),
  "transformer": (ilx.agents.bc_transformer, _TREE, {**_SMALL, "encoder": "flat"}),
  "transformer-actions": (ilx.agents.bc_transformer, factored_spec(), {**_SMALL, "actions": True}),
  "dt": (ilx.agents.dt, continuous_spec(), {**_SMALL, "target_return": 3.0, "return_scale": 1.0, "head": "gaussian"}),
  "iql": (ilx.agents.iql, continuous_spec(), {"hidden": (8,)}),
  "td3_bc": (ilx.agents.td3_bc, continuous_spec(), {"hidden": (8,)}),
  "rebrac": (ilx.agents.rebrac, continuous_spec(), {"hidden": (8, 8)}),
}


def _trained(constructor, spec, arguments):
  """The agent, and params as if it had learnt: made up, which is quicker than ``init``."""
  agent = constructor(spec, **arguments)
  episodes = agent.view.prepare(fake_episodes(spec))
  batch = agent.view.take(episodes, episodes.rows[:4])
  shapes = jax.eval_shape(agent.init, jax.random.key(0), batch).params
  rng = np.random.default_rng(0)

  def weights(x):
    return rng.normal(0, 1.5 / np.sqrt(np.prod(x.shape[:-1])) if x.ndim > 1 else 0.3, x.shape).astype(x.dtype)

  network = jax.tree.map(weights, shapes.network)
  scale = None if shapes.observation is None else scaling.observation_scale(spec)
  params = shapes._replace(network=network, observation=scale, action=scaling.action_scale(spec.action))
  return agent, params._replace(target_return=np.float32(3)) if hasattr(params, "target_return") else params


def _steps(spec, batch_size, count):
  """Of made-up episodes, some of which end on the way; with numbers that differ enough for other choices."""
  rng = np.random.default_rng(1)
  rows = fake_episodes(spec, num_episodes=batch_size, length=count)
  for time in range(count):
    is_first = np.full(batch_size, time == 0) | (rng.random(batch_size) < 0.3)
    at = np.arange(batch_size) * (count + 1) + time
    observation = jax.tree.map(lambda x, at=at: x[at] if x.dtype == np.uint8 else 20 * x[at], rows.observation)
    yield Step(observation, np.where(is_first, 0, rng.normal(size=batch_size)).astype(np.float32), is_first)


def _equal(a, b, tolerance):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance), a, b)


@pytest.mark.parametrize("name", AGENTS)
def test_an_exported_agent_acts_as_before(name, tmp_path):
  """For batches of any size, over episodes that end; to the bit where there is no attention."""
  agent, params = _trained(*AGENTS[name])
  spec = AGENTS[name][1]
  policy = ilx.export.load(ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"]))
  act, actions = jax.jit(agent.act), []
  tolerance = 1e-5 if name.startswith(("transformer", "dt")) else 0.0
  for batch_size, key in ((5, None), (2, jax.random.key(3)))[: 2 if name in SAMPLED else 1]:
    carry, played = agent.carry(batch_size), policy.carry(batch_size)
    for i, step in enumerate(_steps(spec, batch_size, 9)):
      own = None if key is None else jax.random.fold_in(key, i)
      action, carry = act(params, carry, step, own)
      found, played = policy.act(policy.params, played, step, own)
      _equal(found, action, tolerance)
      expected = {jax.tree_util.keystr(k, simple=True, separator="/"): x for k, x in jax.tree.leaves_with_path(carry)}
      _equal(played, expected, tolerance)
      actions.append(action)
  assert any(np.ptp(x) > 0 for x in jax.tree.leaves(jax.tree.map(lambda *x: np.concatenate(x), *actions)))


_RANKED = Continuous([-2.0, -1.0], [3.0, 1.0], [[-2.0, -1.0], [0.0, 0.0], [0.0, 0.9], [3.0, 1.0]])
# As gymnasium's GoalEnv names them: a part has the name that an observation of one part has.
_PARTS = ("achieved_goal", "desired_goal", "observation")
_GOALS = continuous_spec()._replace(
  observation={name: jax.ShapeDtypeStruct((2,), np.float32) for name in _PARTS},
  statistics=Statistics(9, *({name: np.full(2, value) for name in _PARTS} for value in (5.0, 2.0, 0.0, 9.0))),
)
_PART = jax.ShapeDtypeStruct((2,), np.float32)
_Pair = collections.namedtuple("_Pair", "right left")
# More parts than one digit numbers, of which some are named.
_TUPLES = continuous_spec()._replace(observation=(_Pair(_PART, _PART), *(_PART,) * 11), statistics=None)
_LAYERS = policies.make(continuous_spec()).clone(torso=mlp.MLP((8, 8), layer_norm=True))
MLPS = {
  **{name: AGENTS[name] for name in ("bc", "bc-discrete", "iql", "td3_bc", "rebrac")},
  "layer norm before": (ilx.agents.bc, continuous_spec(), {"network": _LAYERS}),
  "layer norm after": (ilx.agents.bc, continuous_spec(), {"network": _LAYERS.clone(torso=Torso((8, 8), True))}),
  "ranks": (ilx.agents.bc, continuous_spec()._replace(action=_RANKED), {"hidden": (8,), "head": "tanh_gaussian"}),
  "number": (ilx.agents.bc, continuous_spec()._replace(action=Continuous(0.0, 9.0)), {"hidden": ()}),
  "tree": (ilx.agents.bc, _TREE, {"hidden": (8,), "encoder": "flat"}),
  "tuples": (ilx.agents.bc, _TUPLES, {"hidden": (8,)}),
  "goals": (ilx.agents.bc, _GOALS, {"hidden": (8,)}),
}


def test_parameters_of_other_types_are_saved_as_they_play(tmp_path):
  spec = continuous_spec()
  agent, params = _trained(ilx.agents.dt, spec, AGENTS["dt"][2])
  step = next(_steps(spec, 2, 1))
  for number, target in enumerate((3.0, np.float64(3.0), np.array(3.0))):
    folder = ilx.export.save(agent, params._replace(target_return=target), spec, tmp_path / str(number))
    policy = ilx.export.load(folder)
    asked = params._replace(target_return=np.float32(3.0))
    expected = agent.act(asked, agent.carry(2), step, None)[0]
    np.testing.assert_allclose(policy.act(policy.params, policy.carry(2), step, None)[0], expected, atol=1e-5)


@pytest.mark.parametrize("name", MLPS)
def test_numpy_plays_mlps(name, tmp_path):
  constructor, spec, arguments = MLPS[name]
  agent, params = _trained(constructor, spec, arguments)
  folder = ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"])
  policy = ilx.export.numpy_policy(folder)
  for step in _steps(spec, 64, 2):
    action, carry = policy.act(policy.params, policy.carry(64), step, None)
    expected = agent.act(params, (), step, None)[0]
    np.testing.assert_allclose(action, expected, atol=1e-5, rtol=1e-5)
    assert isinstance(action, np.ndarray) and action.dtype == expected.dtype and carry == {}
  assert np.ptp(np.asarray(expected), axis=0).min() > 0.01
  with pytest.raises(ValueError, match="numpy plays modes alone"):
    policy.act(policy.params, {}, step, jax.random.key(0))
