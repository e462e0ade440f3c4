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
from ilx.evaluation import acting
from ilx.networks import mlp, scaling
from ilx.testing import continuous_spec, discrete_spec, factored_spec, fake_episodes
from ilx.testing.fake import single_frames
from ilx.types import Continuous, Discrete, MultiDiscrete, Spec, Statistics, Step

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
  episodes = agent.view.prepare(fake_episodes(single_frames(spec) if agent.view.frame_stack else spec))
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
  rows, wide = fake_episodes(spec, num_episodes=batch_size, length=count), 20 if spec.statistics is None else 1
  for time in range(count):
    is_first = np.full(batch_size, time == 0) | (rng.random(batch_size) < 0.3)
    at = np.arange(batch_size) * (count + 1) + time
    observation = jax.tree.map(lambda x, at=at: x[at] if x.dtype == np.uint8 else wide * x[at], rows.observation)
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


@pytest.mark.parametrize(
  ("leaf", "given", "message"),
  [
    ("picture", lambda x: x.astype(np.float32), "observation 'picture' is float32; expected uint8"),
    ("picture", lambda x: x.astype(np.int64), None),
    ("picture", lambda x: x.astype(np.uint16), None),
    (
      "picture",
      lambda x: x.astype(np.int16) + 1,
      "observation 'picture' has numbers from [1-9]+ to 256; expected uint8",
    ),
    ("picture", lambda x: jnp.asarray(x, jnp.int32) - 1, "has numbers from -1 to 254; expected uint8"),
    ("gripper", lambda x: jnp.asarray(x % 3, jnp.int8), None),
    ("joints", lambda x: (9 * x).astype(np.uint8), "observation 'pose/joints' is uint8; expected float32"),
    ("joints", lambda x: (9 * x).astype(np.int32), None),
    ("joints", lambda x: x.astype(np.float64), None),
    ("joints", lambda x: x > 0, None),
    ("gripper", lambda x: x > 9, None),
    ("gripper", lambda x: x / 2, "observation 'pose/gripper' is float64; expected uint8"),
  ],
)
def test_numbers_of_other_kinds_are_taken_or_refused_as_by_the_agent(leaf, given, message, pictured):
  agent, params, policy = pictured
  step = next(_steps(_TREE, 64, 1))
  seen = jax.tree.map_with_path(lambda path, x: given(x) if path[-1].key == leaf else x, step.observation)
  step = step._replace(observation=seen)
  acts = (lambda: agent.act(params, (), step, None)[0]), (lambda: policy.act(policy.params, {}, step, None)[0])
  if message is None:
    _equal(acts[0](), acts[1](), 1e-5)
    return
  for act in acts:
    with pytest.raises(ValueError, match=message):
      act()


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
  agent, params = _trained(ilx.agents.bc, _TREE, {"hidden": (8,), "encoder": "flat"})
  folder = ilx.export.save(agent, params, _TREE, tmp_path_factory.mktemp("pictured") / "policy", platforms=["cpu"])
  return agent, params, ilx.export.load(folder)


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
_HAND = {"buttons": MultiDiscrete((2, 9, 5)), "aim": _RANKED, "low": Continuous(0.0, 10.0)}
_GAME = {"stick": Continuous([-1.0, -2.0], [1.0, 2.0]), "jump": Discrete(2), "weapon": Discrete(3)}
_FRAMES = continuous_spec()._replace(observation=jax.ShapeDtypeStruct((4, 5), np.float32), action=_GAME)
_FRAMES = _FRAMES._replace(statistics=Statistics(9, *(np.tile(x, (4, 1)) for x in continuous_spec().statistics[1:5])))
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
  "choices": (ilx.agents.bc, continuous_spec()._replace(action=MultiDiscrete((2, 9, 5))), {"hidden": (8,)}),
  "parts": (ilx.agents.bc, continuous_spec()._replace(action=_GAME), {"hidden": (32, 8)}),
  "one part": (ilx.agents.bc, continuous_spec()._replace(action={"action": Discrete(4)}), {"hidden": (8,)}),
  "nested parts": (
    ilx.agents.bc,
    continuous_spec()._replace(action={**_GAME, "hand": _HAND, "low": {"high": Discrete(5)}}),
    {"hidden": (8,), "head": "tanh_gaussian"},
  ),
  "frames": (ilx.agents.bc, _FRAMES, {"hidden": (8,), "frame_stack": 4}),
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
  policy, compiled, played = ilx.export.numpy_policy(folder), ilx.export.load(folder), []
  for step in _steps(spec, 64, 2):
    action, carry = policy.act(policy.params, policy.carry(64), step, None)
    expected = agent.act(params, (), step, None)[0]
    _equal(action, expected, 1e-5)
    _equal(action, compiled.act(compiled.params, compiled.carry(64), step, None)[0], 1e-5)
    for x, y in zip(jax.tree.leaves(action), jax.tree.leaves(expected), strict=True):
      assert isinstance(x, np.ndarray) and x.dtype == y.dtype and carry == {}
    played.append(action)
  for part in jax.tree.leaves(jax.tree.map(lambda *x: np.concatenate(x), *played)):
    assert np.ptp(part, axis=0).min() > 0.01
  # Nothing of the past is looked at; lists are arrays, also of bytes.
  _equal(policy.act(policy.params, {}, (step.observation, None, None))[0], action, 0)
  listed = jax.tree.map(lambda x: np.asarray(x).tolist(), step.observation)
  for one in (policy, compiled):
    _equal(one.act(one.params, one.carry(64), (listed, step.reward, step.is_first), None)[0], action, 1e-5)
  with pytest.raises(ValueError, match="numpy plays modes alone"):
    policy.act(policy.params, {}, step, jax.random.key(0))


def test_a_choice_among_few_is_never_beyond_them(tmp_path):
  """Logits in the place of what cannot be chosen are large."""
  agent, params = _trained(*MLPS["choices"])
  head = params.network["params"]["head"]["logits"]
  head["bias"] = head["bias"] + 100.0 * (np.arange(27) % 9 > 4)
  folder = ilx.export.save(agent, params, MLPS["choices"][1], tmp_path / "policy", platforms=["cpu"])
  step = next(_steps(continuous_spec(), 64, 1))
  for policy in (ilx.export.numpy_policy(folder), ilx.export.load(folder)):
    action = np.asarray(policy.act(policy.params, policy.carry(64), step, None)[0])
    assert (action < [2, 9, 5]).all() and (action[:, 1] > 4).all()


def test_a_policy_of_stacked_frames_says_so(tmp_path):
  agent, params = _trained(*MLPS["frames"])
  folder = ilx.export.save(agent, params, _FRAMES, tmp_path / "policy", platforms=["cpu"])
  for policy in (ilx.export.numpy_policy(folder), ilx.export.load(folder)):
    assert policy.spec["frame_stack"] == 4
    with pytest.raises(
      ValueError, match=r"is \[2, 5\]; expected \['B', 4, 5\]; .* stacks of 4 frames, the newest last, .* first"
    ):
      policy.act(policy.params, {}, (np.zeros((2, 5), np.float32), np.zeros(2), np.ones(2, bool)), None)


@pytest.mark.parametrize("name", ["bc-discrete", "bc-factored", "chunked-votes", "transformer-actions", "dt", "iql"])
def test_exported_agents_act_one_by_one(name, tmp_path):
  """As slots that step apart do: under vmap, with a carry of its own for each and noise of its own."""
  agent, params = _trained(*AGENTS[name])
  spec = AGENTS[name][1]
  policy = ilx.export.load(ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"]))
  for key in (None, jax.random.key(3)):
    own, theirs = (acting.apart(p, x, 5, key) for p, x in ((agent, params), (policy, policy.params)))
    together, steps = acting.together(policy, policy.params, 5, key), list(_steps(spec, 5, 9))
    slots = [np.arange(5)[:2], np.arange(5)[2:]]
    for step in steps:
      expected = together(np.arange(5), step)
      for some in slots:
        mine = jax.tree.map(lambda x, some=some: x[some], step)
        action = theirs(some, mine)
        _equal(action, own(some, mine), 1e-5)
        if key is None:
          _equal(action, jax.tree.map(lambda x, some=some: x[some], expected), 1e-5)
