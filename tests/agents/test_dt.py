import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilx import testing
from ilx.agents import dt
from ilx.agents.dt import Params, State, _default_optimizer, action_loss, with_target_return
from ilx.data.episodes import from_columns
from ilx.networks import distributions, encoders, heads, scaling
from ilx.networks.decision_transformer import DecisionTransformer
from ilx.networks.transformer import Transformer
from ilx.types import Continuous, Discrete, Spec, Step

SMALL = {"target_return": 3.0, "return_scale": 2.0, "length": 4, "layers": 1, "width": 8, "max_episode_steps": 12}
STILL = {"dropout": 0.0, "attention_dropout": 0.0}


class TestContinuous(testing.AgentConformance):
  spec = testing.continuous_spec()
  noisy = True

  def make(self):
    return dt(self.spec, **SMALL)


class TestDiscrete(testing.AgentConformance):
  spec = testing.discrete_spec()

  def make(self):
    return dt(self.spec, **SMALL, **STILL)


class TestStackedPictures(testing.AgentConformance):
  spec = Spec(
    {"image": jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.uint8), "state": jax.ShapeDtypeStruct((2, 3), jnp.float32)},
    Continuous(-np.ones(2), np.ones(2)),
  )

  def make(self):
    return dt(self.spec, frame_stack=2, encoder="flat", **SMALL, **STILL)


class _Made:
  """An agent without dropout, a state whose every weight matters, windows of made-up data, and its network apart."""

  def __init__(self, spec, *, length=5, head=None, **kwargs):
    sizes = {"layers": 2, "heads": 2, "width": 8}
    optimizer = optax.adamw(1e-2, weight_decay=0.1)
    self.spec = spec
    self.options = {**SMALL, **STILL, **sizes, "length": length, "head": head, **kwargs}
    self.agent = dt(spec, optimizer=optimizer, **self.options)
    episodes = self.agent.view.prepare(testing.fake_episodes(spec, num_episodes=2, length=16))
    # The last windows of the episode are padded, and its last steps are beyond max_episode_steps.
    self.windows = jax.tree.map(jnp.asarray, self.agent.view.take(episodes, np.arange(0, 16)))
    shapes = jax.eval_shape(self.agent.init, jax.random.key(0), self.windows).params.network
    rng = np.random.default_rng(0)
    network = jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), shapes)
    scales = scaling.observation_scale(spec), scaling.action_scale(spec.action)
    self.params = Params(network, *scales, jnp.float32(SMALL["target_return"]))
    self.state = State(self.params, optimizer.init(network), jnp.zeros((), jnp.int32), jax.random.key(0))
    transformer = Transformer(**sizes, activation=jax.nn.relu, positions=None)
    parts = heads.make(spec.action, head), encoders.make(spec.observation)
    self.network = DecisionTransformer(transformer, *parts, self.options["max_episode_steps"], 0.0)
    self.apply, self.update = jax.jit(self.network.apply), jax.jit(self.agent.update)

  def inputs(self, windows):
    action = scaling.to_unit(self.params.action, windows.action)
    if isinstance(self.spec.action, Discrete):
      action = jax.nn.one_hot(action, self.spec.action.num_actions)
    observation = scaling.standardise(self.params.observation, windows.observation)
    returns = windows.returns_to_go / self.options["return_scale"]
    return observation, action, returns, windows.time_step

  def distribution(self, windows):
    return self.apply(self.params.network, *self.inputs(windows))

  def predict(self, windows):
    return np.asarray(jax.tree.leaves(self.distribution(windows))[0])


@functools.cache
def _continuous():
  return _Made(testing.continuous_spec())


@functools.cache
def _discrete():
  return _Made(testing.discrete_spec(), length=6)


def test_squared_error_by_hand():
  location, action = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2), np.float32)
  action[0, 0], location[0, 1], action[1, 1] = (1.0, 2.0), (3.0, 0.0), (100.0, 100.0)
  mask = np.array([[True, True], [True, False]])
  # Per step (1 + 4) / 2, 9 / 2 and 0; the padded step does not count.
  loss = action_loss(distributions.Deterministic(location), action, mask)
  np.testing.assert_allclose(loss, (2.5 + 4.5 + 0.0) / 3, rtol=1e-6)


def test_cross_entropy_by_hand():
  logits = np.log(np.array([[[0.2, 0.8], [0.5, 0.5]], [[0.9, 0.1], [0.001, 0.999]]], np.float32))
  mask = np.array([[True, True], [True, False]])
  loss = action_loss(distributions.Categorical(jnp.asarray(logits)), np.array([[1, 0], [1, 0]]), mask)
  np.testing.assert_allclose(loss, -(math.log(0.8) + math.log(0.5) + math.log(0.1)) / 3, rtol=1e-5)


def _numpy_forward(variables, observation, action, returns, time_step, mask, max_episode_steps):
  """The paper's network in float64, one item and one token at a time: features where observations are seen."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])

  def norm(x, of):
    x = x - x.mean()
    return x / np.sqrt((x**2).mean() + 1e-5) * of["scale"] + of["bias"]

  def linear(x, of):
    return np.asarray(x, np.float64) @ of["kernel"] + of["bias"]

  def layer(x, of):
    attention = of["attention"]
    normed = [norm(token, of["attention_norm"]) for token in x]
    query, key, value = (
      [np.einsum("d,dnh->nh", t, attention["qkv"]["kernel"][:, :, i]) + attention["qkv"]["bias"][:, i] for t in normed]
      for i in range(3)
    )
    out = []
    for t, token in enumerate(x):
      logits = np.array([np.einsum("nh,nh->n", query[t], key[s]) for s in range(t + 1)])
      weights = np.exp(logits / np.sqrt(query[t].shape[-1]))
      weights = weights / weights.sum(axis=0)
      seen = sum(weights[s][:, None] * value[s] for s in range(t + 1))
      token = token + np.einsum("nh,nhd->d", seen, attention["out"]["kernel"]) + attention["out"]["bias"]
      hidden = np.maximum(linear(norm(token, of["mlp_norm"]), of["mlp"]["up"]), 0.0)
      out.append(token + linear(hidden, of["mlp"]["down"]))
    return out

  features = np.zeros((*mask.shape, len(p["norm"]["scale"])))
  for b in range(len(mask)):
    tokens, steps = [], np.flatnonzero(mask[b])
    for t in steps:
      time = p["embed_time"]["embedding"][min(time_step[b, t], max_episode_steps - 1)]
      tokens.append(linear(returns[b, t, None], p["embed_return"]["linear"]) + time)
      tokens.append(linear(observation[b, t], p["embed_observation"]["linear"]) + time)
      tokens.append(linear(action[b, t], p["embed_action"]["linear"]) + time)
    tokens = [norm(token, p["norm"]) for token in tokens]
    for i in range(len(jax.tree.leaves(p["transformer"]["layers"])[0])):
      tokens = layer(tokens, jax.tree.map(lambda x, i=i: x[i], p["transformer"]["layers"]))
    features[b, steps] = [norm(token, p["transformer"]["norm"]) for token in tokens[1::3]]
  return features, p["head"]


@pytest.mark.parametrize("make", [_continuous, _discrete])
def test_loss_is_the_papers(make):
  """Against the paper's equations in numpy."""
  made, spec = make(), make().spec
  windows = jax.tree.map(np.asarray, made.windows)
  assert not windows.mask.all() and windows.time_step.max() >= SMALL["max_episode_steps"]
  observation, action, returns, time_step = (np.asarray(x) for x in made.inputs(made.windows))
  np.testing.assert_allclose(returns, windows.returns_to_go / 2.0)
  limit = SMALL["max_episode_steps"]
  features, head = _numpy_forward(made.params.network, observation, action, returns, time_step, windows.mask, limit)
  if isinstance(spec.action, Discrete):
    logits = features @ head["logits"]["kernel"] + head["logits"]["bias"]
    error = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, windows.action[..., None], -1)[..., 0]
  else:
    low, high = spec.action.low, spec.action.high
    unit = 2 * (windows.action.astype(np.float64) - low) / (high - low) - 1
    error = ((np.tanh(features @ head["mean"]["kernel"] + head["mean"]["bias"]) - unit) ** 2).mean(-1)
  _, metrics = made.update(made.state, made.windows)
  np.testing.assert_allclose(metrics["loss"], error[windows.mask].mean(), rtol=1e-5)


def test_nothing_to_come_changes_a_prediction():
  made = _continuous()
  windows = jax.tree.map(lambda x: x[:1], made.windows)
  before = made.predict(windows)[0]
  for field, seen in (("returns_to_go", True), ("observation", True), ("action", False)):
    for t in range(5):
      old = getattr(windows, field)
      after = made.predict(windows._replace(**{field: old.at[0, t].add(1.0)}))[0]
      changed = np.any(after != before, axis=-1)
      # Returns and observations are seen from their own step on, actions from the next one on.
      np.testing.assert_array_equal(changed, np.arange(5) >= (t if seen else t + 1), err_msg=f"{field} at {t}")


def test_padding_changes_nothing():
  made = _continuous()
  whole, padded = jax.tree.map(lambda x: x[10:11], made.windows), jax.tree.map(lambda x: x[13:14], made.windows)
  assert whole.mask.all() and padded.mask[0].tolist() == [True, True, True, False, False]
  real = jax.tree.map(lambda x: x[:, :3], padded)
  np.testing.assert_allclose(made.predict(padded)[:, :3], made.predict(real), rtol=1e-5, atol=1e-6)

  garbage = jax.tree.map(lambda x: x.at[:, 3:].set(jnp.asarray(7, x.dtype)), padded)._replace(mask=padded.mask)
  np.testing.assert_allclose(made.predict(garbage)[:, :3], made.predict(real), rtol=1e-5, atol=1e-6)
  of_garbage, of_zeros = (made.update(made.state, windows)[1]["loss"] for windows in (garbage, padded))
  np.testing.assert_allclose(of_garbage, of_zeros, rtol=1e-6)


def _context(step, length):
  """The first step of the context at ``step`` of an episode, as ``ilx.networks.context`` documents it."""
  place = step % length
  if step < length:
    return 0
  return step - place if place >= length // 2 else step - place - (length - length // 2)


@pytest.mark.parametrize(
  ("make", "sample"),
  [
    (_continuous, False),
    (_discrete, True),
    (lambda: _Made(testing.continuous_spec(), head="gaussian", length=1), True),
    (lambda: _Made(testing.continuous_spec(), dtype=jnp.bfloat16), False),
  ],
  ids=["deterministic", "discrete-sampled", "gaussian-sampled-length-1", "bfloat16"],
)
def test_acting_is_computing_the_whole_context_anew(make, sample):
  """Long episodes in three slots that end at different times, against the network that learns."""
  made = make()
  spec, length = made.spec, made.options["length"]
  slots, steps, rng = 3, 22, np.random.default_rng(0)
  observations = rng.normal(size=(steps, slots, 5)).astype(np.float32)
  rewards = rng.normal(size=(steps, slots)).astype(np.float32)
  is_first = np.zeros((steps, slots), bool)
  is_first[0], is_first[4, 1], is_first[15, 2] = True, True, True
  targets = np.array([np.nan, 1.0, -2.0], np.float32)
  act, carry = jax.jit(made.agent.act), with_target_return(made.agent.carry(slots), targets)
  # Of bfloat16, whose numbers have 8 bits, the whole contexts are computed in float32: rounding is all that may differ.
  tolerance = {"rtol": 1e-4, "atol": 1e-5} if made.options.get("dtype") is None else {"rtol": 0, "atol": 0.1}
  start, actions = np.zeros(slots, int), np.zeros((steps, *np.shape(made.windows.action)[2:]), np.float32)
  actions = np.repeat(actions[:, None], slots, 1).astype(made.windows.action.dtype)
  for now in range(steps):
    key = jax.random.key(now) if sample else None
    start = np.where(is_first[now], now, start)
    # Contexts of all slots as one batch of padded windows.
    shape = (slots, length)
    window = jax.tree.map(lambda x, shape=shape: np.zeros((*shape, *x.shape[2:]), x.dtype), made.windows)
    for slot, begin in enumerate(start):
      first = begin + _context(now - begin, length)
      assert now - first < length
      for place, at in enumerate(range(first, now + 1)):
        window.observation[slot, place] = observations[at, slot]
        window.action[slot, place] = actions[at, slot]
        asked = 3.0 if np.isnan(targets[slot]) else targets[slot]
        window.returns_to_go[slot, place] = asked - rewards[begin + 1 : at + 1, slot].sum()
        window.time_step[slot, place], window.mask[slot, place] = at - begin, True
    last = window.mask.sum(axis=1) - 1
    dist = jax.tree.map(lambda x, at=last: x[np.arange(slots), at] if x.ndim > 1 else x, made.distribution(window))
    expected = scaling.from_unit(made.params.action, dist.sample(key) if sample else dist.mode())
    step = Step(observations[now], np.where(is_first[now], 0, rewards[now]), is_first[now])
    action, carry = act(made.params, carry, step, key)
    np.testing.assert_allclose(action, expected, **tolerance, err_msg=f"step {now}")
    actions[now] = action
  if made.options["head"] == "gaussian":
    assert np.isin(actions, [spec.action.low, spec.action.high]).any(), "no action was moved onto a bound"


def _paid_by_the_action(num_episodes=400, length=4):
  """Episodes in which action a earns a, played with every preference: all returns from 0 to ``2 length`` occur."""
  rng = np.random.default_rng(0)
  prefer = rng.dirichlet(np.ones(3) * 0.5, size=num_episodes)
  action = np.zeros((num_episodes, length + 1), np.int32)
  for e in range(num_episodes):
    action[e, :-1] = rng.choice(3, size=length, p=prefer[e])
  total = num_episodes * (length + 1)
  return from_columns(
    observation=np.ones((total, 1), np.float32),
    action=action.reshape(-1),
    reward=action.reshape(-1).astype(np.float32),
    discount=np.ones(total, np.float32),
    is_terminal=np.tile(np.arange(length + 1) == length, num_episodes),
    starts=np.arange(num_episodes + 1) * (length + 1),
  )


def test_the_return_earned_is_the_one_asked_for():
  spec = Spec(jax.ShapeDtypeStruct((1,), jnp.float32), Discrete(3))
  agent = dt(spec, **{**SMALL, **STILL, "target_return": 8.0, "width": 16}, optimizer=optax.adam(3e-3))
  episodes = jax.tree.map(jnp.asarray, agent.view.prepare(_paid_by_the_action()))

  @jax.jit
  def learn(key):
    first = agent.view.sample(key, episodes, 64)
    keys = jax.random.split(key, 600)
    return jax.lax.scan(lambda s, k: agent.update(s, agent.view.sample(k, episodes, 64)), agent.init(key, first), keys)

  state, _ = learn(jax.random.key(0))
  # One batch of slots, each with a target of its own; the last one asks for what params ask for.
  targets = np.array([0.0, 1.0, 3.0, 4.0, 6.0, 7.0, np.nan], np.float32)
  act, carry = jax.jit(agent.act), with_target_return(agent.carry(7), targets)
  reward, earned = jnp.zeros(7), 0.0
  for t in range(4):
    step = Step(jnp.ones((7, 1)), reward, jnp.full(7, t == 0))
    action, carry = act(state.params, carry, step, None)
    reward = action.astype(jnp.float32)
    earned = earned + reward
  np.testing.assert_array_equal(earned, [0, 1, 3, 4, 6, 7, 8])


def test_targets_of_slots():
  made = _continuous()
  step, act = Step(jnp.ones((3, 5)), jnp.zeros(3), jnp.ones(3, bool)), jax.jit(made.agent.act)

  def first(carry, params=made.params):
    return np.asarray(act(params, carry, step, None)[0])

  fresh = made.agent.carry(3)
  own, other = first(fresh), first(fresh, made.params._replace(target_return=jnp.float32(-5.0)))
  assert np.any(own != other, axis=-1).all()
  np.testing.assert_array_equal(first(with_target_return(fresh, -5.0)), other)
  mixed = first(with_target_return(fresh, [np.nan, -5.0, 3.0]))
  np.testing.assert_array_equal(mixed, [own[0], other[1], own[2]])
  # The target outlives the episode, and may be taken back.
  _, carry = act(made.params, with_target_return(fresh, -5.0), step, None)
  np.testing.assert_array_equal(first(carry), other)
  np.testing.assert_array_equal(first(with_target_return(carry, np.nan)), own)
  with pytest.raises(ValueError, match=r"target_return has shape \(2,\); expected one number or \(3,\)"):
    with_target_return(fresh, [1.0, 2.0])


def test_only_the_network_is_learnt():
  made = _continuous()
  state, _ = made.update(made.state, made.windows)
  assert float(state.params.target_return) == 3.0
  np.testing.assert_array_equal(state.params.observation.mean, made.state.params.observation.mean)
  moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.params.network, made.state.params.network)
  assert all(jax.tree.leaves(moved)), "some parameter does not take part"


def test_dropout_is_drawn_anew_at_every_update():
  made = _Made(testing.continuous_spec(), dropout=0.5)
  losses = [made.update(made.state._replace(step=jnp.int32(i)), made.windows)[1]["loss"] for i in range(3)]
  assert len({float(loss) for loss in losses}) == 3


def test_tokens_are_dropped_beside_what_the_transformer_drops():
  made = _continuous()
  network = made.network.clone(dropout=0.5)

  def play(seed, deterministic):
    given, rngs = made.inputs(made.windows), {"dropout": jax.random.key(seed)}
    return np.asarray(network.apply(made.params.network, *given, deterministic=deterministic, rngs=rngs).mode())

  assert np.all(play(0, True) == play(1, True)) and np.any(play(0, False) != play(1, False))


def test_the_activation_is_the_one_asked_for():
  relu, gelu = (_Made(testing.continuous_spec(), activation=name) for name in ("relu", "gelu"))
  assert relu.update(relu.state, relu.windows)[1]["loss"] != gelu.update(gelu.state, gelu.windows)[1]["loss"]


def test_it_begins_as_the_authors_does():
  """Tokens as PyTorch's layers, uniform within 1 / sqrt(inputs); times of a standard normal."""
  agent = dt(testing.continuous_spec(), target_return=1.0, width=64, layers=1, heads=1)
  data = agent.view.prepare(testing.fake_episodes(testing.continuous_spec()))
  params = agent.init(jax.random.key(0), agent.view.take(data, data.rows[:1])).params.network["params"]
  for name, inputs in (("embed_return", 1), ("embed_observation", 5), ("embed_action", 3)):
    for leaf in jax.tree.leaves(params[name]):
      assert 0.85 < np.abs(leaf).max() * inputs**0.5 <= 1.0, name
  np.testing.assert_allclose(np.std(params["embed_time"]["embedding"]), 1.0, atol=0.05)


def test_the_default_optimizer_is_the_papers():
  """AdamW with a decay of 1e-4, at a rate that rises to 1e-4 in 10,000 updates, of gradients clipped to 0.25."""
  weight, gradients = np.array([2000.0, -1000.0]), np.array([[3.0, 4.0], [0.03, -0.04], [0.0, 0.2]])
  optimizer, m, v = _default_optimizer(), 0.0, 0.0
  state = optimizer.init(jnp.asarray(weight))
  for i, gradient in enumerate(gradients):
    updates, state = optimizer.update(jnp.asarray(gradient), state, jnp.asarray(weight))
    clipped = gradient * min(1.0, 0.25 / np.linalg.norm(gradient))
    m, v = 0.9 * m + 0.1 * clipped, 0.999 * v + 0.001 * clipped**2
    step = m / (1 - 0.9 ** (i + 1)) / (np.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8) + 1e-4 * weight
    rate = 1e-8 + (1e-4 - 1e-8) * i / 9_999
    np.testing.assert_allclose(updates, -rate * step, rtol=2e-3)


def test_bfloat16_is_for_the_transformer_alone():
  made = _Made(testing.continuous_spec(), dtype=jnp.bfloat16)
  after, metrics = jax.eval_shape(made.agent.update, made.state, made.windows)
  assert {x.dtype for x in jax.tree.leaves(after.params)} == {jnp.dtype(jnp.float32)}
  assert metrics["loss"].dtype == jnp.float32
  assert made.agent.carry(2).context.cache.layers[0].key.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"target_return": math.nan}, "target_return=nan must be a finite number"),
    ({"return_scale": 0.0}, "return_scale=0.0 must be above 0"),
    ({"length": 0}, "length=0 must be at least 1"),
    ({"max_episode_steps": 0}, "max_episode_steps=0 must be at least 1"),
    ({"dropout": 1.0}, "dropout=1.0 must be from 0 to below 1"),
    ({"activation": "tanh"}, "activation='tanh' must be one of relu, gelu"),
    ({"head": "categorical"}, "does not fit"),
  ],
)
def test_wrong_arguments_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    dt(testing.continuous_spec(), **{**SMALL, **arguments})
