"""What every agent must pass, ours or a user's."""

import functools
import unittest
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ilx.parallel import mesh as mesh_lib
from ilx.testing.fake import fake_episodes, single_frames
from ilx.training.checkpoint import Checkpoints
from ilx.types import Agent, Continuous, Discrete, MultiDiscrete, Spec, Step, Tree

BATCH_SIZE = 16


class _Case:
  """An agent with its functions compiled once for the whole suite."""

  def __init__(self, suite: "AgentConformance"):
    self.agent = suite.make()
    self.init = jax.jit(self.agent.init)
    self.update = jax.jit(self.agent.update)
    frames = getattr(self.agent.view, "frame_stack", 0)
    made_up = fake_episodes(single_frames(suite.spec) if frames else suite.spec)
    episodes = jax.tree.map(jnp.asarray, self.agent.view.prepare(made_up))
    sample = jax.jit(lambda key: self.agent.view.sample(key, episodes, BATCH_SIZE))
    self.batches = [sample(jax.random.key(i)) for i in range(4)]
    self.act = jax.jit(self.agent.act)

  def train(self, updates: int, seed: int = 0) -> Any:
    """The state after ``updates`` updates."""
    state = self.init(jax.random.key(seed), self.batches[0])
    for batch in self.batches[:updates]:
      state, _ = self.update(state, batch)
    return state


@functools.cache
def _case(suite_type: type["AgentConformance"]) -> _Case:
  return _Case(suite_type())


class AgentConformance:
  """Set ``spec`` and define ``make``; each test names the promise it checks."""

  spec: Spec

  # Rounding allowed where only the order of additions may differ: absolute, and ten times that relative.
  tolerance = 1e-5

  # Whether an update draws noise for every item (dropout, target noise): then the order of a batch does matter.
  noisy = False

  def make(self) -> Agent:
    """The agent under test; the same at every call."""
    raise NotImplementedError(f"{type(self).__name__} must define make()")

  def _step(self, size: int = BATCH_SIZE, is_first: bool = True, seed: int = 0) -> Step:
    observation = jax.tree.map(lambda x: jnp.asarray(x[:size]), fake_episodes(self.spec, seed=seed).observation)
    return Step(observation, jnp.zeros(size, jnp.float32), jnp.full(size, is_first, dtype=bool))

  def test_state_is_arrays_with_params_and_step(self):
    """The state is one pytree of jax arrays; step counts updates."""
    state = _case(type(self)).train(3)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
      assert isinstance(leaf, jax.Array), f"{jax.tree_util.keystr(path)} is {type(leaf)}, not a jax.Array"
    assert jax.tree.leaves(state.params)
    assert int(state.step) == 3

  def test_update_keeps_the_states_structure_and_learns_something(self):
    """Shapes and dtypes are invariant under update; some parameter moves; metrics are finite float32 scalars."""
    case = _case(type(self))
    before = case.train(0)
    after, metrics = case.update(before, case.batches[0])
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before.params, after.params)
    assert any(jax.tree.leaves(moved)), (
      "no parameter changed: the gradient or the learning rate of the first update is 0 (saturated outputs, as of "
      "observations that are far from 0 once scaled; a schedule from 0), or the update does not return what it learnt"
    )
    assert metrics
    for name, value in metrics.items():
      assert value.shape == () and value.dtype == jnp.float32, f"metric {name}: {value.shape} {value.dtype}"
      assert bool(jnp.isfinite(value)), f"metric {name} is {value}"

  def test_update_is_a_pure_function(self):
    """Same arguments, same program and, bit for bit, same result; the arguments are left alone."""
    case = _case(type(self))
    state = case.train(2)
    before = _plain(jax.tree.map(jnp.copy, state))
    first, again = (case.update(state, case.batches[0])[0] for _ in range(2))
    _assert_equal(first, again)
    _assert_equal(state, before)
    # Text is compared, not what it computes: that would be compiling once more.
    one, other = (
      jax.jit(lambda state, batch: case.agent.update(state, batch)).lower(state, case.batches[0]).as_text()
      for _ in range(2)
    )
    assert one == other, f"update is another program when traced again:\n{_first_difference(one, other)}"

  def test_scan_agrees_with_a_loop(self):
    """Updates inside lax.scan are the same updates."""
    case = _case(type(self))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *case.batches)
    scanned, metrics = jax.jit(lambda s, b: jax.lax.scan(case.agent.update, s, b))(case.train(0), stacked)
    _assert_close(case.train(len(case.batches)), scanned, self.tolerance)
    assert all(value.shape == (len(case.batches),) for value in metrics.values())

  def test_vmap_over_seeds_agrees_with_single_seeds(self):
    """Many seeds at once are the same runs side by side, and they differ from each other."""
    case = _case(type(self))
    keys, batch = jax.random.split(jax.random.key(7), 3), case.batches[0]
    many = jax.jit(jax.vmap(case.agent.init, in_axes=(0, None)))(keys, batch)
    many, _ = jax.jit(jax.vmap(case.agent.update, in_axes=(0, None)))(many, batch)
    for i, key in enumerate(keys):
      one, _ = case.update(case.init(key, batch), batch)
      _assert_close(jax.tree.map(lambda x, i=i: x[i], many), one, self.tolerance)
    differs = jax.tree.map(lambda x: bool(jnp.any(x[0] != x[1])), many.params)
    assert any(jax.tree.leaves(differs)), "all seeds have the same parameters"

  def test_state_can_be_donated(self):
    """A fresh state is arrays of its own: no two leaves are one (a target must be a copy), none is the agent's."""
    case = _case(type(self))
    closed = jax.make_jaxpr(case.agent.init)(jax.random.key(0), case.batches[0])
    made, held = closed.jaxpr, zip(closed.jaxpr.constvars, closed.consts, strict=True)
    variables = [variable for variable in made.outvars if not hasattr(variable, "val")]  # literals become new buffers
    assert len(set(variables)) == len(variables), "two leaves of a fresh state are one array; copy it"
    borrowed = set(variables) & {*made.invars, *(variable for variable, of in held if isinstance(of, jax.Array))}
    assert not borrowed, "a leaf of a fresh state is an array that init was given or the agent holds; copy it"
    update = jax.jit(case.agent.update, donate_argnums=0)
    state = case.train(0)
    for batch in case.batches[:2]:
      state, _ = update(state, batch)
    _assert_close(state, case.train(2), self.tolerance)

  def test_sharded_agrees_with_one_device(self):
    """A batch divided among devices gives the same update to rounding."""
    count = max(n for n in (1, 2, 4, 8, BATCH_SIZE) if n <= len(jax.devices()))
    if count == 1:
      raise unittest.SkipTest("one device only; emulate more with jax.config.update('jax_num_cpu_devices', 8)")
    case = _case(type(self))
    state, batch = case.train(2), case.batches[0]
    expected, _ = case.update(state, batch)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]).reshape(count, 1, 1), mesh_lib.AXES)
    divided = jax.device_put(batch, mesh_lib.batch_sharding(mesh))
    sharded, _ = case.update(jax.device_put(state, mesh_lib.replicated(mesh)), divided)
    _assert_close(sharded, expected, self.tolerance)

  def test_order_within_the_batch_does_not_matter(self):
    """A permuted batch, as a mesh with its devices in another order sees it, gives the same update to rounding."""
    if self.noisy:
      raise unittest.SkipTest("the update draws noise for every item")
    case = _case(type(self))
    state, batch = case.train(2), case.batches[0]
    order = np.random.default_rng(0).permutation(BATCH_SIZE)
    expected, _ = case.update(state, batch)
    permuted, _ = case.update(state, jax.tree.map(lambda x: x[order], batch))
    _assert_close(permuted, expected, 10 * self.tolerance)

  def test_checkpoint_round_trip(self, tmp_path):
    """A state restored from disk goes on bit for bit like the one that was saved."""
    case = _case(type(self))
    state = case.train(2)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
      checkpoints.save(2, state)
      checkpoints.wait()
      restored = checkpoints.restore(2, case.train(0, seed=1))
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, state)
    _assert_equal(restored, state)
    _assert_equal(case.update(restored, case.batches[0])[0], case.update(state, case.batches[0])[0])

  def test_act_gives_legal_actions(self):
    """Shape, dtype and range of actions, with and without a key; the mode is deterministic."""
    case = _case(type(self))
    params, carry, step = case.train(2).params, case.agent.carry(BATCH_SIZE), self._step()
    for key in (None, jax.random.key(1)):
      action, _ = case.act(params, carry, step, key)
      jax.tree.map(_assert_legal, self.spec.action, action)
    _assert_equal(case.act(params, carry, step, None), case.act(params, carry, step, None))

  def test_act_treats_environments_independently(self):
    """An environment's action does not depend on its neighbours in the batch."""
    case = _case(type(self))
    params = case.train(2).params
    everyone, _ = case.act(params, case.agent.carry(BATCH_SIZE), self._step(), None)
    few, _ = case.act(params, case.agent.carry(3), self._step(3), None)
    _assert_close(few, jax.tree.map(lambda x: x[:3], everyone), self.tolerance)

  def test_carry_resets_where_is_first(self):
    """After any history, an episode is acted in as if nothing had been before; the carry keeps its structure."""
    case = _case(type(self))
    params, carry = case.train(2).params, case.agent.carry(BATCH_SIZE)
    for i in range(3):
      before = carry
      _, carry = case.act(params, carry, self._step(is_first=i == 0, seed=i + 1), None)
      chex.assert_trees_all_equal_shapes_and_dtypes(before, carry)
    fresh = case.agent.carry(BATCH_SIZE)
    for i in range(4):  # what nobody looks at any more may differ: actions count
      step = self._step(is_first=i == 0, seed=i)
      action, carry = case.act(params, carry, step, None)
      expected, fresh = case.act(params, fresh, step, None)
      _assert_equal(action, expected)

  def test_act_works_inside_scan(self):
    """Params pass through jit as an argument, and the carry through lax.scan."""
    case = _case(type(self))
    step = self._step(is_first=False)

    def play(params, carry):
      def one(carry, _):
        action, carry = case.agent.act(params, carry, step, None)
        return carry, action

      return jax.lax.scan(one, carry, None, length=3)

    _, actions = jax.jit(play)(case.train(2).params, case.agent.carry(BATCH_SIZE))
    assert all(x.shape[:2] == (3, BATCH_SIZE) for x in jax.tree.leaves(actions))

  def test_log_prob_remembers_what_was_done(self):
    """One float32 for every environment (and part), none of them NaN; after act's own action its carry is act's."""
    case = _case(type(self))
    if case.agent.log_prob is None:
      raise unittest.SkipTest("the agent has no log_prob")
    log_prob = jax.jit(case.agent.log_prob)
    params, carry = case.train(2).params, case.agent.carry(BATCH_SIZE)
    for i in range(3):
      step = self._step(is_first=i == 0, seed=i)
      action, after = case.act(params, carry, step, None)
      found, carry = log_prob(params, carry, step, action)
      _assert_close(carry, after, self.tolerance)
      for leaf in jax.tree.leaves(found):
        assert leaf.shape == (BATCH_SIZE,) and leaf.dtype == jnp.float32
        assert not bool(jnp.any(jnp.isnan(leaf)))


def _assert_legal(spec: Continuous | Discrete | MultiDiscrete, action: jax.Array) -> None:
  if isinstance(spec, Continuous):
    assert action.shape == (BATCH_SIZE, *spec.low.shape) and action.dtype == jnp.float32
    assert bool(jnp.all((action >= spec.low) & (action <= spec.high)))
  else:
    assert action.shape == (BATCH_SIZE, *np.shape(spec.num_actions)) and action.dtype == jnp.int32
    assert bool(jnp.all((action >= 0) & (action < jnp.asarray(spec.num_actions))))


def _assert_equal(a: Tree, b: Tree) -> None:
  chex.assert_trees_all_equal(_plain(a), _plain(b))


def _assert_close(a: Tree, b: Tree, tolerance: float) -> None:
  chex.assert_trees_all_close(_plain(a), _plain(b), rtol=10 * tolerance, atol=tolerance)


def _first_difference(one: str, other: str) -> str:
  lines = zip(one.splitlines(), other.splitlines(), strict=False)
  return next((f"{a}\n{b}" for a, b in lines if a != b), "one is longer")


def _plain(tree: Tree) -> Tree:
  """numpy arrays; typed random keys as their uint32 data."""

  def leaf(x):
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x = jax.random.key_data(x)
    return np.asarray(x)

  return jax.tree.map(leaf, tree)
