"""What agents refuse because they were not made for it, and what they take for the same."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from ilx import testing
from ilx.types import Continuous, MultiDiscrete, Spec, Statistics, Step

NAMES = ("bc", "bc_transformer", "chunked_bc", "dt", "iql", "rebrac", "td3_bc")
SEEN = {"pad": jax.ShapeDtypeStruct((3,), jnp.float32), "screen": jax.ShapeDtypeStruct((64, 64, 3), jnp.uint8)}
PICTURES = Spec(SEEN, Continuous(-np.ones(2), np.ones(2)))
VECTOR = testing.continuous_spec()


def _agent(name, spec, **options):
  small = {"layers": 1, "width": 16, "length": 4, "heads": 1} if name in ("bc_transformer", "dt") else {"hidden": (8,)}
  more = {"target_return": 1.0} if name == "dt" else {}
  return getattr(ilx.agents, name)(spec, **small, **more, **options)


def _batch(agent, spec, frames=0):
  made_up = testing.fake_episodes(testing.single_frames(spec) if frames else spec, 2, 6)
  data = agent.view.prepare(made_up)
  return jax.tree.map(jnp.asarray, agent.view.take(data, data.rows[:3]))


def _params(agent, spec, frames=0):
  """Shapes are enough where nothing is computed."""
  return jax.eval_shape(agent.init, jax.random.key(0), _batch(agent, spec, frames)).params


def _step(observation, size=2):
  return Step(observation, jnp.zeros(size), jnp.ones(size, bool))


def _seen(**parts):
  return {"pad": jnp.zeros((2, 3)), "screen": jnp.zeros((2, 64, 64, 3), jnp.uint8)} | parts


WRONG = {
  "floats for bytes": (_seen(screen=jnp.zeros((2, 64, 64, 3))), "observation 'screen' is float32; expected uint8"),
  "bytes for floats": (_seen(pad=jnp.zeros((2, 3), jnp.uint8)), "observation 'pad' is uint8; expected float32"),
  "a smaller picture": (
    _seen(screen=jnp.zeros((2, 32, 32, 3), jnp.uint8)),
    r"observation 'screen' is \[2, 32, 32, 3\]; expected \['B', 64, 64, 3\]",
  ),
  "no dict": (jnp.zeros((2, 3)), r"the observation has \['observation'\]; the policy's has \['pad', 'screen'\]"),
  "nested lists": (
    np.zeros((2, 9)).tolist(),
    r"the observation has \['0/0', .*, '\.\.\.'\]; the policy's has \['pad', 'screen'\]",
  ),
  "another name": (
    {"pad": jnp.zeros((2, 3)), "scren": jnp.zeros((2, 64, 64, 3), jnp.uint8)},
    r"the observation has \['pad', 'scren'\]; the policy's has \['pad', 'screen'\]",
  ),
  "no batch": (
    {"pad": jnp.zeros(3), "screen": jnp.zeros((64, 64, 3), jnp.uint8)},
    r"observation 'pad' is \[3\]; expected \['B', 3\]",
  ),
  "an axis of time": (_seen(pad=jnp.zeros((2, 1, 3))), r"observation 'pad' is \[2, 1, 3\]; expected \['B', 3\]"),
  "several batches": (_seen(pad=jnp.zeros((1, 3))), "observation 'screen' is of 2 environments, other.* of 1"),
  "words": (_seen(pad=np.full((2, 3), "left")), "observation 'pad' is <U4; expected float32"),
}


@pytest.fixture(scope="module")
def made():
  """Of every agent: itself and the shapes of its params."""
  agents = {name: _agent(name, PICTURES) for name in NAMES}
  return {name: (agent, _params(agent, PICTURES)) for name, agent in agents.items()}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", NAMES)
def test_observations_of_another_kind_are_refused(made, name, wrong):
  agent, params = made[name]
  observation, message = WRONG[wrong]
  # Not as an argument, which jax would have to know the types of.
  with pytest.raises(ValueError, match=rf"^{message}(\n|$)"):
    jax.eval_shape(lambda p, carry: agent.act(p, carry, _step(observation), None), params, agent.carry(2))


@pytest.mark.parametrize("wrap", ["averaged", "augmented"])
def test_agents_made_of_agents_refuse_it_too(made, wrap):
  agent, params = made["iql"]
  agent = ilx.agents.averaged(agent) if wrap == "averaged" else ilx.agents.augmented(agent, PICTURES)
  floats = _seen(screen=jnp.zeros((2, 64, 64, 3)))
  with pytest.raises(ValueError, match="observation 'screen' is float32; expected uint8"):
    jax.eval_shape(agent.act, params, (), _step(floats), None)
  with pytest.raises(ValueError, match="observation 'screen' is float32; expected uint8"):
    jax.eval_shape(agent.log_prob, params, (), _step(floats), jnp.zeros((2, 2)))


@pytest.mark.parametrize("name", NAMES)
def test_rewards_and_beginnings_are_of_as_many_environments(name):
  agent = _agent(name, VECTOR)
  params, step = _params(agent, VECTOR), _step(jnp.zeros((2, 5)))
  for field, shape in (("reward", (2, 1)), ("is_first", (3,))):
    with pytest.raises(ValueError, match=rf"{field} is .*; expected \[2\], as many as observations"):
      jax.eval_shape(agent.act, params, agent.carry(2), step._replace(**{field: jnp.zeros(shape)}), None)
  jax.eval_shape(agent.act, params, agent.carry(2), step._replace(reward=0.0, is_first=False), None)


@pytest.mark.parametrize("name", NAMES)
def test_stacks_of_frames_are_said_to_be_missing(name):
  spec = Spec(jax.ShapeDtypeStruct((4, 6), jnp.float32), PICTURES.action)
  agent = _agent(name, spec, frame_stack=4)
  with pytest.raises(ValueError, match=r"observation is \[2, 6\]; expected \['B', 4, 6\]; .* stacks of 4 frames"):
    jax.eval_shape(agent.act, _params(agent, spec, 4), agent.carry(2), _step(jnp.zeros((2, 6))), None)


@pytest.mark.parametrize("name", NAMES)
def test_updates_refuse_batches_of_another_kind(name):
  agent = _agent(name, PICTURES)
  batch = _batch(agent, PICTURES)
  state = jax.eval_shape(agent.init, jax.random.key(0), batch)
  floats = batch.observation | {"screen": batch.observation["screen"] / 255}
  cropped = batch.observation | {"screen": batch.observation["screen"][..., :32, :]}
  for observation, message in (
    (floats, "observation/screen: the batch has float32, the spec uint8"),
    (cropped, r"observation/screen: an item of the batch has \[64, 32, 3\], the spec \[64, 64, 3\]"),
  ):
    for function, first in ((agent.init, jax.random.key(0)), (agent.update, state)):
      with pytest.raises(ValueError, match=message):
        jax.eval_shape(function, first, batch._replace(observation=observation))


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_of_as_many_items(name):
  """Else one item of a field would stand for all of the batch, and the loss be another one."""
  agent = _agent(name, VECTOR)
  batch = _batch(agent, VECTOR)
  state = jax.eval_shape(agent.init, jax.random.key(0), batch)
  fields = [field for field in batch._fields if getattr(batch, field) is not None]
  assert len(fields) >= 3
  for field in fields:
    whole = getattr(batch, field)
    cut = [whole[:1]]
    if field in ("reward", "mask", "next_is_last"):
      cut += [whole[0, ...], whole[..., :1]] if whole.ndim == 2 else [whole[0]]
    for wrong in cut:
      with pytest.raises(
        ValueError, match=r": the batch has \[[0-9, ]*\] items; of \w+ it has \[[0-9, ]+\]\n"
      ) as error:
        jax.eval_shape(agent.update, state, batch._replace(**{field: wrong}))
      assert field in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_other_views_are_called_so(name):
  agent = _agent(name, VECTOR)
  own = type(_batch(agent, VECTOR)).__name__
  for other in ("iql", "dt", "chunked_bc"):
    batch = _batch(_agent(other, VECTOR), VECTOR)
    kind = type(batch).__name__
    if kind != own:
      with pytest.raises(ValueError, match=f"the batch is a {kind}, not a {own}: take it by the agent's own view"):
        jax.eval_shape(agent.init, jax.random.key(0), batch)


def test_updates_refuse_numbers_as_choices():
  spec = Spec(VECTOR.observation, {"stick": Continuous(-np.ones(1), np.ones(1)), "keys": MultiDiscrete((2, 2))})
  agent = ilx.agents.bc(spec, hidden=(4,))
  batch = _batch(agent, spec)
  action = batch.action | {"keys": batch.action["stick"].repeat(2, axis=-1)}
  with pytest.raises(ValueError, match="action/keys: the batch has float32, but choices are integers or bools"):
    jax.eval_shape(agent.init, jax.random.key(0), batch._replace(action=action))


def test_stacking_is_spoken_of_where_an_axis_is_missing_or_too_many_alone():
  agent = _agent("bc", PICTURES)
  batch = _batch(agent, PICTURES)
  screen = batch.observation["screen"]
  for wrong, hint in (({"screen": screen[:, None]}, True), ({"screen": screen.swapaxes(1, 3)[:, :, :5]}, False)):
    with pytest.raises(ValueError, match="observation/screen: an item") as error:
      jax.eval_shape(agent.init, jax.random.key(0), batch._replace(observation=batch.observation | wrong))
    assert ("are frames stacked" in str(error.value)) == hint


@pytest.mark.parametrize("name", ["dt", "chunked_bc", "bc_transformer", "bc"])
def test_a_step_may_have_one_number_for_all_environments(name):
  agent = _agent(name, VECTOR)
  params, carry = agent.init(jax.random.key(0), _batch(agent, VECTOR)).params, agent.carry(2)
  observation = np.ones((2, 5), np.float32)
  each = agent.act(params, carry, Step(observation, np.full(2, 0.5), np.ones(2, bool)), None)
  for reward, is_first in ((0.5, True), ([0.5, 0.5], [True, True])):
    jax.tree.map(
      np.testing.assert_array_equal, agent.act(params, carry, Step(observation, reward, is_first), None), each
    )


def _acts(spec, name="bc"):
  """A function of observations: the policy's actions."""
  agent = _agent(name, spec)
  params = agent.init(jax.random.key(0), _batch(agent, spec)).params
  return lambda observation: np.asarray(agent.act(params, agent.carry(2), _step(observation), None)[0])


@pytest.mark.parametrize("name", ["bc", "dt"])
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int64", "int8", "bool"])
def test_other_numbers_of_the_same_value_are_the_same(name, dtype):
  act, observation = _acts(VECTOR, name), np.array([[1, 0, 1, 0, 1], [0, 1, 1, 0, 0]])
  expected = act(observation.astype(np.float32))
  np.testing.assert_array_equal(act(observation.astype(dtype)), expected)
  with jax.enable_x64(True):
    np.testing.assert_array_equal(act(jnp.asarray(observation, dtype)), expected)


@pytest.mark.parametrize("statistics", [True, False])
def test_integers_are_bytes_where_bytes_were_learnt_and_none_where_not(statistics):
  """Without statistics bytes are divided by 255, and no other numbers are."""
  observation = np.array([[1, 0, 200], [0, 255, 3]])
  moments = Statistics(10, np.ones(3), np.full(3, 50.0), np.zeros(3), np.ones(3)) if statistics else None
  for learnt, others in (("uint8", ("int64", "int32", "uint16")), ("int32", ("uint8", "int64"))):
    act = _acts(Spec(jax.ShapeDtypeStruct((3,), learnt), PICTURES.action, moments))
    expected = act(observation.astype(learnt))
    for other in others:
      np.testing.assert_array_equal(act(observation.astype(other)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_checks_is_computed(name):
  agent = _agent(name, VECTOR)
  batch = _batch(agent, VECTOR)
  state = jax.eval_shape(agent.init, jax.random.key(0), batch)
  for function, given in (
    (agent.act, (state.params, agent.carry(2), _step(jnp.zeros((2, 5))), None)),
    (agent.update, (state, batch)),
  ):
    bare = inspect.unwrap(function)
    assert bare is not function
    assert jax.jit(function).lower(*given).as_text() == jax.jit(bare).lower(*given).as_text()


@pytest.mark.parametrize("name", NAMES)
def test_environments_may_be_mapped_over_one_by_one(name):
  agent = _agent(name, VECTOR)

  def one(params, observation):
    return agent.act(params, agent.carry(1), _step(observation[None], 1), None)[0][0]

  params = _params(agent, VECTOR)
  assert jax.eval_shape(jax.vmap(one, (None, 0)), params, jnp.zeros((7, 5))).shape == (7, 3)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_spec_is_refused_in_words(name):
  episodes = testing.fake_episodes(VECTOR, 2, 4)
  for other, kind in ((episodes, "Episodes"), (VECTOR.observation, "ShapeDtypeStruct"), (None, "NoneType")):
    with pytest.raises(TypeError, match=rf"expected an ilx\.Spec, got {kind}; make one with ilx\.data\.spec\("):
      _agent(name, other)


def test_augmented_wants_a_spec_too():
  with pytest.raises(TypeError, match=r"expected an ilx\.Spec, got Episodes"):
    ilx.agents.augmented(_agent("bc", PICTURES), testing.fake_episodes(VECTOR, 2, 4))
