"""Every agent and every kind of action that data may have: it learns and plays, or says what it wants instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from ilx import testing
from ilx.agents import bc, bc_transformer, chunked_bc, dt, iql, rebrac, td3_bc
from ilx.types import Continuous, Discrete, MultiDiscrete, Step

TRANSFORMER = {"length": 3, "layers": 1, "heads": 1, "width": 8}
AGENTS = {
  "bc": lambda spec: bc(spec, hidden=(4,)),
  "chunked_bc": lambda spec: chunked_bc(spec, hidden=(4,)),
  "bc_transformer": lambda spec: bc_transformer(spec, actions=True, **TRANSFORMER),
  "dt": lambda spec: dt(spec, target_return=1.0, **TRANSFORMER),
  "iql": lambda spec: iql(spec, hidden=(4,)),
  "td3_bc": lambda spec: td3_bc(spec, hidden=(4,)),
  "rebrac": lambda spec: rebrac(spec, hidden=(4,)),
}
CONTINUOUS_ONLY = ("td3_bc", "rebrac")
SIZE = 6
# Columns of a dataset, of three episodes of eight steps.
ACTIONS = {
  "a number": np.linspace(-1, 2, 24, dtype=np.float32),
  "a vector": np.linspace(-1, 2, 72, dtype=np.float32).reshape(24, 3),
  "a choice": np.arange(24, dtype=np.int32) % 3,
  "choices": np.arange(48, dtype=np.int32).reshape(24, 2) % 3,
  "a choice in bytes": (np.arange(24) % 3).astype(np.uint8),
  "a flag": np.arange(24) % 2 == 0,
  "flags": np.arange(48).reshape(24, 2) % 3 == 0,
}
ACTIONS["parts"] = {"stick": ACTIONS["a vector"], "trigger": ACTIONS["a number"], "buttons": ACTIONS["flags"]}


def _episodes(action):
  observation = np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32)
  return ilx.data.from_columns(
    observation=observation,
    action=action,
    reward=np.ones(24, np.float32),
    discount=np.ones(24, np.float32),
    is_terminal=np.zeros(24, bool),
    starts=np.arange(0, 25, 8),
  )


def test_every_agent_is_here():
  assert set(AGENTS) == set(ilx.agents.__all__) - {"augmented", "averaged", "frozen"}


def test_kinds_are_what_they_are_called():
  found = {name: ilx.data.spec(_episodes(action)).action for name, action in ACTIONS.items()}
  assert found["a number"].low.shape == () and found["a vector"].low.shape == (3,)
  assert found["a choice"] == found["a choice in bytes"] == Discrete(3) and found["a flag"] == Discrete(2)
  assert found["choices"] == MultiDiscrete((3, 3)) and found["flags"] == MultiDiscrete((2, 2))


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("name", AGENTS)
def test_learns_and_plays(name, kind):
  episodes = _episodes(ACTIONS[kind])
  spec = ilx.data.spec(episodes)
  if name in CONTINUOUS_ONLY and not isinstance(spec.action, Continuous):
    with pytest.raises(ValueError, match=f"{name} learns continuous actions"):
      AGENTS[name](spec)
    return
  agent = AGENTS[name](spec)
  batch = agent.view.take(agent.view.prepare(episodes), np.arange(SIZE))

  def learn_and_play(key, batch):
    state, metrics = agent.update(agent.init(key, batch), batch)
    step = Step(jnp.zeros((SIZE, 2)), jnp.zeros(SIZE), jnp.ones(SIZE, bool))
    return agent.act(state.params, agent.carry(SIZE), step, None)[0], metrics

  played, metrics = jax.eval_shape(learn_and_play, jax.random.key(0), batch)  # nothing is compiled
  assert metrics["loss"].shape == ()
  for part, column in zip(jax.tree.leaves(played), jax.tree.leaves(ACTIONS[kind]), strict=True):
    assert part.shape == (SIZE, *column.shape[1:])
    assert part.dtype == (jnp.float32 if column.dtype == np.float32 else jnp.int32)


@pytest.mark.parametrize("name", sorted(set(AGENTS) - set(CONTINUOUS_ONLY)))
def test_flags_are_choices_of_two(name):
  losses = []
  for action in (ACTIONS["flags"], ACTIONS["flags"].astype(np.int32)):
    episodes = _episodes(action)
    agent = AGENTS[name](ilx.data.spec(episodes))
    batch = agent.view.take(agent.view.prepare(episodes), np.arange(SIZE))
    learn = jax.jit(lambda key, batch, agent=agent: agent.update(agent.init(key, batch), batch)[1]["loss"])
    losses.append(float(learn(jax.random.key(0), batch)))
  assert losses[0] == losses[1]


def test_parts_of_iql_have_the_head_of_the_paper():
  """A Gaussian whose deviation is learnt, of every continuous part."""
  spec = testing.factored_spec()
  agent = iql(spec, hidden=(4,))
  episodes = testing.fake_episodes(spec)
  batch = agent.view.take(agent.view.prepare(episodes), np.arange(SIZE))
  state = agent.init(jax.random.key(0), batch)
  step = Step(batch.observation, batch.reward, jnp.ones(SIZE, bool))
  found, _ = agent.log_prob(state.params, agent.carry(SIZE), step, batch.action)
  assert all(value.shape == (SIZE,) for value in jax.tree.leaves(found)) and len(jax.tree.leaves(found)) == 4
