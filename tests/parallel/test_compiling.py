"""What the compiler is asked for, and that all programs ask for it."""

import jax
import jax.numpy as jnp
import jaxlib
import pytest

import ilx
from ilx.evaluation import fidelity
from ilx.networks.convolution import Conv
from ilx.parallel import compiling
from ilx.testing import fake


def _compiled(function, *arguments, **options):
  return jax.jit(function, **options).lower(*arguments).compile().as_text()


@pytest.mark.skipif(jaxlib.__version__ != "0.10.2", reason="about the convolutions of jaxlib 0.10.2")
def test_convolutions_are_not_ynnpacks_and_the_rest_is_as_it_was(monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  x = jnp.ones((32, 21, 21, 64))
  layer = Conv(32, 2, padding="VALID")
  params = layer.init(jax.random.key(0), x)
  assert "__ynn" in _compiled(layer.apply, params, x)
  assert "__ynn" not in _compiled(layer.apply, params, x, compiler_options=compiling.options())
  square = jnp.ones((256, 256))
  for function in (jnp.matmul, lambda a, b: jnp.sum(jnp.exp(a) + b, axis=1), lambda a, b: jax.nn.relu(a @ b) @ a):
    counts = [
      _compiled(function, square, square, compiler_options=options).count("__ynn")
      for options in (None, compiling.options())
    ]
    assert counts[0] == counts[1] > 0


def test_what_the_user_asks_for_stays(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
  assert compiling.options() is None


def test_other_versions_are_left_alone(monkeypatch):
  monkeypatch.setattr(jaxlib, "__version__", "0.11.0")
  assert compiling.options() is None


def test_play_on_the_cpu_beside_a_gpu_is_play_on_a_cpu(monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  monkeypatch.setattr(jaxlib, "__version__", "0.10.2")
  asked = compiling.options()
  assert asked
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert compiling.options() is None
  for device in (jax.devices("cpu")[0], "cpu"):
    with jax.default_device(device):
      assert compiling.options() == asked


@pytest.mark.parametrize("seeds", [None, 2])
def test_updates_are_compiled_so(seeds, monkeypatch):
  """The compiler's refusal shows that it was asked."""
  monkeypatch.setattr(compiling, "options", lambda: {"xla_no_such_option": "1"})
  spec = fake.continuous_spec()
  agent = ilx.agents.bc(spec, hidden=(8,))
  with pytest.raises(Exception, match="xla_no_such_option"):
    ilx.train(agent, fake.fake_episodes(spec), steps=1, log_every=1, seeds=seeds)


@pytest.mark.parametrize("batch_size", [None, 1])
def test_play_is_compiled_so(batch_size, monkeypatch):
  monkeypatch.setattr(compiling, "options", lambda: {"xla_no_such_option": "1"})
  policy = ilx.evaluation.random_policy(ilx.evaluation.spec("CartPole-v1"))
  with pytest.raises(Exception, match="xla_no_such_option"):
    ilx.evaluate(policy, (), "CartPole-v1", episodes=2, sample=True, batch_size=batch_size)


def test_held_out_actions_are_compiled_so(monkeypatch):
  spec = fake.continuous_spec()
  episodes, agent = fake.fake_episodes(spec), ilx.agents.bc(spec, hidden=(8,))
  state = ilx.train(agent, episodes, steps=1, log_every=1)
  monkeypatch.setattr(compiling, "options", lambda: {"xla_no_such_option": "1"})
  with pytest.raises(Exception, match="xla_no_such_option"):
    fidelity.fidelity(agent, state.params, episodes, action=spec.action)
