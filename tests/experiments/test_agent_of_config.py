"""From a config's ``agent`` section to an agent: optimizers, and what is left to the data."""

import dataclasses
import importlib
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from experiments import agents
from ilx import testing
from ilx.networks import impala, nature, vit

SPEC = testing.continuous_spec()
FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "configs"
CONFIGS = sorted({path.stem for path in FOLDER.glob("*.py")} - {"__init__", "defaults"})


@pytest.fixture
def given(monkeypatch):
  """What the constructor is called with."""
  found = {}

  def fake(spec, *, reward_scale=1.0, target_return=None, policy_optimizer=None, optimizer=None):
    found.update(locals())
    return found

  monkeypatch.setattr(ilx.agents, "bc", fake)
  return found


def rates(optimizer, steps, gradient=2.0):
  """The sizes of Adam's steps under a constant gradient: the learning rate of each."""
  params, found = jnp.ones(()), []
  state = optimizer.init(params)
  for _ in range(steps):
    updates, state = optimizer.update(jnp.full((), gradient), state, params)
    found.append(-float(updates))
  return np.array(found)


def test_the_policy_alone_is_scheduled_where_values_are_learnt_too(given):
  agents.make({"name": "bc", "learning_rate": 0.1, "schedule": "cosine"}, SPEC, 4)
  cosine = 0.05 * (1 + np.cos(np.pi * np.arange(5) / 4))
  np.testing.assert_allclose(rates(given["policy_optimizer"], 5), cosine, atol=1e-5)
  np.testing.assert_allclose(rates(given["optimizer"], 5), np.full(5, 0.1), rtol=1e-4)


def test_critics_may_have_a_learning_rate_of_their_own(monkeypatch):
  found = {}

  def fake(spec, *, optimizer=None, critic_optimizer=None):
    found.update(optimizer=optimizer, critic_optimizer=critic_optimizer)

  monkeypatch.setattr(ilx.agents, "bc", fake)
  agents.make({"name": "bc", "learning_rate": 0.1, "critic_learning_rate": 0.02, "schedule": "cosine"}, SPEC, 4)
  cosine = 0.05 * (1 + np.cos(np.pi * np.arange(5) / 4))
  np.testing.assert_allclose(rates(found["optimizer"], 5), cosine, atol=1e-5)
  np.testing.assert_allclose(rates(found["critic_optimizer"], 5), 0.2 * cosine, atol=1e-5)
  agents.make({"name": "bc", "critic_learning_rate": None}, SPEC, 4)
  assert found["critic_optimizer"] is None
  monkeypatch.undo()
  with pytest.raises(ValueError, match=r"critic_learning_rate=0\.02: 'bc' has one learning rate"):
    agents.make({"name": "bc", "critic_learning_rate": 0.02}, SPEC, 4)


def test_warmup_comes_before_the_schedule(given):
  agents.make({"name": "bc", "learning_rate": 0.1, "schedule": "cosine", "warmup": 2}, SPEC, 6)
  expected = [0.05, 0.1, *(0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)))]
  np.testing.assert_allclose(rates(given["policy_optimizer"], 6), expected, atol=1e-5)


def test_weight_decay_is_decoupled_and_the_gradient_clipped(given):
  section = {"name": "bc", "learning_rate": 0.1, "weight_decay": 0.5, "gradient_clip": 1e-6}
  agents.make(section, SPEC, 4)
  # A gradient of 2 is clipped to 1e-6, of which Adam's epsilon (1e-8) takes a hundredth; the decay adds 0.1 * 0.5 * 1.
  np.testing.assert_allclose(rates(given["optimizer"], 1), [0.1 / 1.01 + 0.05], rtol=1e-4)


def test_what_is_left_to_the_data(given):
  facts = {"data_return_min": -100.0, "data_return_max": 300.0}
  section = {"name": "bc", "reward_scale": None, "target_return": None}
  agents.make(section, SPEC, 4, facts=facts)
  assert given["reward_scale"] == 2.5
  assert given["target_return"] == 300.0
  agents.make({"name": "bc", "reward_scale": 3.0}, SPEC, 4, facts=facts)
  assert given["reward_scale"] == 3.0
  # All returns alike: nothing to divide by.
  agents.make(section, SPEC, 4, facts={"data_return_min": 5.0, "data_return_max": 5.0})
  assert given["reward_scale"] == 1.0


def test_data_without_rewards_leave_nothing_to_take(given):
  facts = {"data_return_min": None, "data_return_max": None}
  with pytest.raises(ValueError, match=r"config.agent.target_return: the data have no rewards .* set it to a number"):
    agents.make({"name": "bc", "target_return": None}, SPEC, 4, facts=facts)


def test_pictures_are_shifted_where_asked_for():
  pictures = SPEC._replace(observation=jax.ShapeDtypeStruct((16, 16, 1), jnp.uint8), statistics=None)
  section = {"name": "bc", "encoder": "flat", "augment": 2}
  with pytest.raises(ValueError, match="no pictures"):
    agents.make(section, SPEC, 4)
  agent, plain = agents.make(section, pictures, 4), agents.make({**section, "augment": 0}, pictures, 4)
  observation = jax.random.randint(jax.random.key(0), (8, 16, 16, 1), 0, 256).astype(jnp.uint8)
  batch = ilx.Transition(observation, jnp.ones((8, 3)), jnp.zeros(8), jnp.ones(8), observation)
  losses = [float(a.update(a.init(jax.random.key(0), batch), batch)[1]["loss"]) for a in (agent, plain)]
  assert losses[0] != losses[1]


def test_options_of_encoders_are_fields():
  section = importlib.import_module("experiments.configs.bc").get_config().agent
  of_encoders = {
    field.name for encoder in (impala.Impala, nature.Nature, vit.ViT) for field in dataclasses.fields(encoder)
  }
  # Channels are several numbers; width scales them.
  assert set(section.encoder_options) == of_encoders - {"parent", "name", "channels"}
  section.encoder_options.features = 7
  pictures = SPEC._replace(observation=jax.ShapeDtypeStruct((40, 40, 1), jnp.uint8), statistics=None)
  agent = agents.make(section, pictures, 4)
  episodes = agent.view.prepare(testing.fake_episodes(pictures))
  batch = agent.view.take(episodes, episodes.rows[:2])
  dense = agent.init(jax.random.key(0), batch).params.network["params"]["encoder"]["picture"]["dense"]
  assert dense["kernel"].shape[1] == 7
  section.encoder_options.patch = 4
  with pytest.raises(ValueError, match=r"encoder_options: 'nature', .* has no 'patch'; it has dtype, features"):
    agents.make(section, pictures, 4)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"learning_rate": -1e-3}, "learning_rate=-0.001 must be at least 0"),
    ({"gradient_clip": -1.0}, "gradient_clip=-1.0 must be at least 0"),
    ({"warmup": -5}, "warmup=-5 must be at least 0"),
    ({"weight_decay": float("nan")}, "weight_decay=nan must be at least 0"),
    ({"learning_rate": None}, "learning_rate=None must be at least 0"),
    ({"learning_rate": float("inf")}, "learning_rate=inf must be at least 0, and finite"),
    ({"ema": 1.0}, "config.agent.ema=1.0 must be from 0 to below 1"),
    ({"augment": -1}, "config.agent.augment=-1 must be at least 0, a whole number"),
    ({"accumulate": 2.5}, "accumulate=2.5 must be a whole number from 1"),
    ({"optimizer": 1}, "config.agent: no 'optimizer'"),
    ({"network": "x"}, "config.agent: no 'network'"),
    ({"hidden": (8, 0)}, r"hidden=\(8, 0\) must be widths of layers"),
    ({"hidden": "abc"}, "hidden='abc' must be widths of layers"),
    ({"hidden": 64}, "hidden=64 must be widths of layers"),
  ],
)
def test_values_out_of_range_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    agents.make({"name": "bc", **fields}, SPEC, 4)


def test_a_warm_up_that_outlasts_the_run_is_told():
  with pytest.warns(UserWarning, match=r"config.agent.warmup=10: .* config.steps=4 updates, at 40 % of 0.1"):
    agents.make({"name": "bc", "learning_rate": 0.1, "warmup": 10}, SPEC, 4)


@pytest.mark.parametrize("name", CONFIGS)
def test_whatever_an_agent_can_be_told_is_a_field_of_its_config(name):
  section = importlib.import_module(f"experiments.configs.{name}").get_config().agent
  parameters = inspect.signature(getattr(ilx.agents, section.name)).parameters.values()
  arguments = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
  fields = {"learning_rate", "schedule", "warmup", "weight_decay", "gradient_clip", "accumulate", "freeze", "ema"}
  if "head_options" in arguments:
    fields |= {"modes", "min_std", "low_noise", "bins", "binning"}
  # Made of other fields, a field of the whole run, or code.
  fields |= arguments - {"optimizer", "policy_optimizer", "critic_optimizer", "head_options", "frame_stack", "network"}
  assert fields <= set(section)


@pytest.mark.parametrize("name", agents.AGENTS)
def test_defaults_of_configs_are_those_of_the_agents(name):
  """But for what the data give, and ReBRAC's coefficients, which the paper sets by dataset."""
  section = importlib.import_module(f"experiments.configs.{name}").get_config().agent
  for parameter in inspect.signature(getattr(ilx.agents, name)).parameters.values():
    field, default = parameter.name, parameter.default
    if (
      section.get(field) in (None, "")
      or field == "encoder_options"
      or default is inspect.Parameter.empty
      or field.endswith("_bc_coef")
    ):
      continue
    assert section[field] == (default if field != "dtype" else np.dtype(default).name), field


def test_accumulated_gradients_are_one_step_of_their_mean(given):
  agents.make({"name": "bc", "learning_rate": 0.1, "schedule": "cosine", "warmup": 4, "accumulate": 2}, SPEC, 12)
  # Of 12 updates 6 are steps, the first 2 of which warm up; the others wait.
  expected = [0.05, 0.1, *(0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)))]
  found = rates(given["policy_optimizer"], 12)
  np.testing.assert_array_equal(found[::2], 0.0)
  np.testing.assert_allclose(found[1::2], expected, atol=1e-5)


def test_accumulating_is_learning_from_the_batches_as_one():
  section = {"name": "bc", "hidden": (4,), "learning_rate": 1e-2}
  data = jax.tree.map(jnp.asarray, testing.fake_episodes(SPEC))
  whole, parts = agents.make(section, SPEC, 4), agents.make({**section, "accumulate": 4}, SPEC, 4)
  batch = whole.view.sample(jax.random.key(0), data, 32)
  expected, _ = whole.update(whole.init(jax.random.key(0), batch), batch)
  state = first = parts.init(jax.random.key(0), batch)
  for i in range(4):
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(first.params), strict=True):
      np.testing.assert_array_equal(a, b)
    state, _ = parts.update(state, jax.tree.map(lambda x, i=i: x[8 * i : 8 * i + 8], batch))
  for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
  assert not np.array_equal(jax.tree.leaves(state.params.network)[0], jax.tree.leaves(first.params.network)[0])


def test_average_and_frozen_parameters_are_of_the_config():
  section = {"name": "bc", "hidden": (4,), "learning_rate": 1e-2, "ema": 0.9, "freeze": "Dense_0"}
  agent = agents.make(section, SPEC, 4)
  data = jax.tree.map(jnp.asarray, testing.fake_episodes(SPEC))
  batch = agent.view.sample(jax.random.key(0), data, 8)
  state = agent.init(jax.random.key(0), batch)
  after, _ = agent.update(state, batch)
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params.network, after.params.network)
  assert sum(jax.tree.leaves(moved)) == 2 and after.learner.step == 1  # the head's kernel and bias
  with pytest.raises(ValueError, match=r"freeze='Dens_0' matches no parameter.*Dense_0/kernel"):
    agents.make({**section, "freeze": "Dens_0"}, SPEC, 4)
  for count in (0, 5):
    with pytest.raises(ValueError, match=f"config.agent.accumulate={count} must be a whole number from 1"):
      agents.make({**section, "accumulate": count}, SPEC, 4)
