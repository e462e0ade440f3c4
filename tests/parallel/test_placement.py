"""Rules: which leaf is divided how, for every agent, network and optimizer."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from ilx import agents, parallel, testing
from ilx.networks import vit
from ilx.parallel import placement

SPEC = testing.continuous_spec()
EPISODES = testing.fake_episodes(SPEC)
CONSTRUCTORS = [name for name in agents.__all__ if "spec" in inspect.signature(getattr(agents, name)).parameters]
AGENTS = [name for name in CONSTRUCTORS if name != "augmented"]
OPTIONS = {"dt": {"target_return": 1.0, "max_episode_steps": 1000}}
ADAM = optax.adam(1e-3)


def _state(agent):
  episodes = agent.view.prepare(EPISODES)
  batch = agent.view.take(episodes, np.asarray(episodes.rows[:4]))
  return jax.eval_shape(agent.init, jax.random.key(0), batch)


def _specs(tree, rules=parallel.DEFAULT, **sizes):
  """Paths to specs."""
  found = parallel.shardings(tree, parallel.make_mesh(**sizes), rules)
  return {placement.name_of(path): where.spec for path, where in jax.tree_util.tree_leaves_with_path(found)}


def _leaf(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def test_transformer():
  specs = _specs(_state(agents.bc_transformer(SPEC, positions="learnt", length=1024)), fsdp=2, tensor=4)
  layers = {k.split("/layers/")[1]: v for k, v in specs.items() if k.startswith("params") and "/layers/" in k}
  assert layers == {
    "attention/qkv/kernel": P(None, "fsdp", "tensor"),
    "attention/qkv/bias": P(None, "tensor"),
    "attention/out/kernel": P(None, "tensor"),  # 3 x 4 x 32 x 128: small
    "attention/out/bias": P(),
    "attention_norm/bias": P(),
    "attention_norm/scale": P(),
    "mlp/up/kernel": P(None, "fsdp", "tensor"),
    "mlp/up/bias": P(None, "tensor"),
    "mlp/down/kernel": P(None, "tensor", "fsdp"),
    "mlp/down/bias": P(),
    "mlp_norm/bias": P(),
    "mlp_norm/scale": P(),
  }
  assert specs["params/network/params/transformer/positions"] == P(None, "fsdp")
  assert specs["step"] == specs["key"] == P()


def test_layers_that_are_not_stacked_and_the_vision_transformer():
  tree = {"layer_7": {"attention": {"qkv": {"kernel": _leaf(512, 4, 3, 128)}, "out": {"kernel": _leaf(4, 128, 512)}}}}
  assert _specs(tree, fsdp=2, tensor=4) == {
    "layer_7/attention/qkv/kernel": P("fsdp", "tensor"),
    "layer_7/attention/out/kernel": P("tensor", None, "fsdp"),
  }
  module = vit.ViT(width=512, layers=1, heads=4)
  specs = _specs(jax.eval_shape(module.init, jax.random.key(0), _leaf(1, 64, 64, 3)), fsdp=2, tensor=4)
  assert {k.rpartition("layers/")[2]: v for k, v in specs.items() if "kernel" in k and "layers" in k} == {
    "attention/qkv/kernel": P(None, "fsdp", "tensor"),
    "attention/out/kernel": P(None, "tensor", None, "fsdp"),
    "mlp/up/kernel": P(None, "fsdp", "tensor"),
    "mlp/down/kernel": P(None, "tensor", "fsdp"),
  }


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_has_a_place_for_every_leaf(name):
  state = _state(getattr(agents, name)(SPEC, **OPTIONS.get(name, {})))
  assert set(_specs(state).values()) == {P()}  # one axis, data: nothing is divided
  for sizes in ({"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"tensor": 8}):
    mesh = parallel.make_mesh(**sizes)
    for x, where in zip(jax.tree.leaves(state), jax.tree.leaves(parallel.shardings(state, mesh)), strict=True):
      where.shard_shape(x.shape)  # raises where it does not come out even


def test_large_leaves_are_divided_along_the_largest_axis_that_divides():
  tree = {
    "a": _leaf(300, 512),
    "b": _leaf(1024, 300),
    "c": _leaf(1001, 304),
    "d": _leaf(999, 101),
    "e": _leaf(256, 256),
  }
  assert _specs(tree, fsdp=8) == {"a": P(None, "fsdp"), "b": P("fsdp"), "c": P(None, "fsdp"), "d": P(), "e": P()}


def test_what_does_not_divide_is_left_whole_or_divided_elsewhere():
  up, qkv = "mlp/up/kernel", "attention/qkv/kernel"
  # 1001 does not divide over fsdp, so hidden does; 3 heads do not over tensor.
  tree = {up: _leaf(1001, 512), qkv: _leaf(512, 3, 3, 100)}
  assert _specs(tree, fsdp=4, tensor=2) == {up: P(None, "tensor"), qkv: P("fsdp")}
  assert _specs(tree, fsdp=8) == {up: P(None, "fsdp"), qkv: P("fsdp")}
  # Layers are no axis to divide: a loop over them would gather all for each.
  tree = {"layers/mlp/up/bias": _leaf(40, 8192), "layers/norm/scale": _leaf(64, 2049)}
  assert _specs(tree, fsdp=4, tensor=2) == {"layers/mlp/up/bias": P(None, "tensor"), "layers/norm/scale": P()}
  assert _specs(tree, fsdp=8) == {"layers/mlp/up/bias": P(None, "fsdp"), "layers/norm/scale": P()}
  # As adafactor's moments of one axis.
  assert _specs({f"v_row/{qkv}": _leaf(1 << 17)}, fsdp=8) == {f"v_row/{qkv}": P("fsdp")}


OPTIMIZERS = {
  "adam": ADAM,
  "adamw behind a clip": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
  "masked": optax.masked(ADAM, lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)),
  "several steps": optax.MultiSteps(ADAM, 4),
  "several optimizers": optax.multi_transform(
    {"learnt": ADAM, "fixed": optax.set_to_zero()},
    lambda tree: jax.tree_util.tree_map_with_path(lambda p, _: "fixed" if "norm" in str(p) else "learnt", tree),
  ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_are_where_their_parameters_are(name):
  optimizer = OPTIMIZERS[name]
  rules = [("head/mean/kernel$", P("tensor")), *placement.default_rules(small=64)]
  specs = _specs(_state(agents.bc_transformer(SPEC, optimizer=optimizer)), rules, fsdp=4, tensor=2)
  params = {k.removeprefix("params/network/"): v for k, v in specs.items() if k.startswith("params/network/")}
  assert params["params/head/mean/kernel"] == P("tensor")
  assert params["params/transformer/layers/mlp/up/kernel"] == P(None, "fsdp", "tensor")
  moments = [(k, params[own], v) for k, v in specs.items() for own in params if k.startswith("opt") and k.endswith(own)]
  assert len(moments) > len(params)
  assert all(mine == own for _, own, mine in moments)
  rest = {k: v for k, v in specs.items() if k.startswith("opt")}.keys() - {k for k, *_ in moments}
  assert all(specs[k] == P() for k in rest)  # counters


def test_critics_targets_and_their_moments_are_alike():
  rules = placement.default_rules(small=64)
  specs = _specs(_state(agents.iql(SPEC, optimizer=ADAM)), rules, fsdp=8)
  kernel = "/params/torso/Dense_1/kernel"
  same = [v for k, v in specs.items() if k.endswith(kernel)]
  assert len(same) == 1 + 1 + 2 + 2 + 2 * (1 + 1 + 2)  # policy, V, both Q, both targets, and two moments of all learnt
  assert set(same) == {P(None, "fsdp")}


@pytest.mark.parametrize(
  ("spec", "problem"),
  [
    (P("fsdp"), r"divides axis 0, of 6, into 4 parts, which does not come out even"),
    (P(None, None, "fsdp"), "has 3 axes, the leaf 2"),
    (P(None, ("data", "fsdp", "tensor"), None), "has 3 axes"),
    (P("model"), r"names 'model', which is no axis of the mesh \(data, fsdp, tensor\)"),
    (P("tensor", "tensor"), "names an axis of the mesh twice"),
  ],
)
def test_own_rules_must_fit(spec, problem):
  with pytest.raises(ValueError, match=rf"placement of net/kernel \(6, 8\): the rule \('ker', .*\) {problem}"):
    _specs({"net": {"kernel": _leaf(6, 8)}}, [("ker", spec), ("", P())], fsdp=4, tensor=2)


def test_what_functions_give_must_fit_too():
  rules = [("x", placement.divided("fsdp", "fsdp", small=0))]
  with pytest.raises(ValueError, match=r"placement of x \(8, 8\): the rule \('x', .*names an axis of the mesh twice"):
    placement.shardings({"x": jax.ShapeDtypeStruct((8, 8), np.float32)}, parallel.make_mesh(fsdp=2), rules)


def test_the_first_rule_that_matches_counts_and_one_must():
  tree = {"a": {"kernel": _leaf(8, 8)}, "b": {"kernel": _leaf(8, 8)}, "count": _leaf(), "key": jax.random.key(0)}
  specs = _specs(tree, [("a/", P("fsdp")), ("kernel", P(None, "tensor")), ("", P("data"))], fsdp=4, tensor=2)
  assert specs == {"a/kernel": P("fsdp"), "b/kernel": P(None, "tensor"), "count": P(), "key": P()}
  with pytest.raises(ValueError, match=r"placement of b/kernel \(8, 8\): none of the 1 rules matches; end them with"):
    _specs(tree, [("a/", P("fsdp"))], fsdp=4, tensor=2)
  with pytest.raises(ValueError, match="'model' is no axis of the mesh"):
    parallel.divided("model")


def test_bytes_of_a_device_fall_as_one_over_fsdp():
  """Of leaves that are divided; scalars and small ones are everywhere."""
  params = _state(agents.bc_transformer(SPEC)).params.network

  def held(fsdp):
    where = parallel.shardings(params, parallel.make_mesh(fsdp=fsdp), placement.default_rules(small=64))
    made = jax.tree.map(lambda x, s: jax.device_put(np.zeros(x.shape, x.dtype), s), params, where)
    assert placement.bytes_per_device(made) == placement.bytes_per_device(placement.place(params, where))
    kernels = [x for x in jax.tree.leaves(made) if x.size > 4096]
    return sum(s.data.nbytes for x in kernels for s in x.addressable_shards if s.device == jax.devices()[3])

  whole = held(1)
  assert whole > 2**20
  assert [held(fsdp) for fsdp in (2, 4, 8)] == [whole // 2, whole // 4, whole // 8]


def test_bytes_are_those_of_a_devices_part():
  mesh = parallel.make_mesh(data=2, fsdp=4)
  divided = jax.device_put(jnp.zeros((8, 3)), jax.sharding.NamedSharding(mesh, P("fsdp")))
  whole = jax.device_put(jnp.zeros(5, jnp.int8), jax.sharding.NamedSharding(mesh, P()))
  assert placement.bytes_per_device([divided, whole]) == 8 * 3 * 4 // 4 + 5


def test_a_leading_axis_is_divided_once():
  sizes = {"data": 1, "fsdp": 4, "tensor": 2}
  assert placement.leading("fsdp")((8, 512, 512), sizes) == P("fsdp")
