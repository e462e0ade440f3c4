"""An exported folder on its own: played without ilx, flax, optax and orbax, and what is said of damaged ones."""

import hashlib
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import ilx
import ilx.export
from ilx.testing import continuous_spec, discrete_spec, fake_episodes
from ilx.types import Step

_BLOCKER = """
import sys
class Blocked:
  def find_spec(self, name, path=None, target=None):
    if name.split(".")[0] in {blocked}:
      raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {folder!r})
import numpy as np
import play
try:
  import {first}
  raise SystemExit("not blocked")
except ImportError:
  pass
"""
_JAX = """
policy, given = play.load({folder!r}), np.load({given!r})
carry, actions = policy.carry(len(given["reward"])), []
for observation, is_first in zip(given["observation"], given["is_first"]):
  action, carry = policy.act(policy.params, carry, (observation, given["reward"], is_first), None)
  actions.append(np.asarray(action))
np.save({out!r}, np.stack(actions))
"""


def _agent(**arguments):
  spec = discrete_spec(4, 2)
  agent = ilx.agents.bc(spec, hidden=(8,), **arguments)
  episodes = agent.view.prepare(fake_episodes(spec))
  return spec, agent, agent.init(jax.random.key(0), agent.view.take(episodes, episodes.rows[:4])).params


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
  spec, agent, params = _agent()
  folder = tmp_path_factory.mktemp("exported") / "policy"
  about = {"name": "bc", "hidden": [8]}
  assert ilx.export.save(agent, params, spec, folder, about=about, env_id="CartPole-v1") == folder
  return folder, agent, params


def _play_alone(folder, tmp_path, blocked, code=_JAX):
  rng = np.random.default_rng(0)
  given = {
    "observation": rng.normal([0, 1, 2, 3], [1, 20, 40, 0.01], (3, 6, 4)).astype(np.float32),
    "reward": np.ones(6, np.float32),
  }
  given["is_first"] = np.array([[True] * 6, [False] * 6, [True, False] * 3])
  np.savez(tmp_path / "given.npz", **given)
  values = {"folder": str(folder), "given": str(tmp_path / "given.npz"), "out": str(tmp_path / "out.npy")}
  program = (_BLOCKER + code).format(blocked=blocked, first=blocked[0], **values)
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  return given, np.load(tmp_path / "out.npy")


def test_plays_without_ilx_flax_optax_orbax_to_the_bit(exported, tmp_path):
  folder, agent, params = exported
  shutil.copytree(folder, tmp_path / "travelled")
  blocked = ["ilx", "flax", "optax", "orbax", "chex", "ml_collections", "envpool"]
  given, actions = _play_alone(tmp_path / "travelled", tmp_path, blocked)
  expected = [
    agent.act(params, (), Step(observation, given["reward"], is_first), None)[0]
    for observation, is_first in zip(given["observation"], given["is_first"], strict=True)
  ]
  np.testing.assert_array_equal(actions, np.stack(expected))
  assert 0 < actions.mean() < 1


def test_numpy_plays_without_jax(exported, tmp_path):
  folder, agent, params = exported
  given, actions = _play_alone(
    folder, tmp_path, ["jax", "ilx", "jaxlib", "flax"], _JAX.replace("play.load", "play.numpy_policy")
  )
  expected = agent.act(params, (), Step(given["observation"][0], given["reward"], given["is_first"][0]), None)[0]
  np.testing.assert_array_equal(actions[0], expected)


def test_scores_as_before(exported):
  folder, agent, params = exported
  policy = ilx.export.load(folder)
  expected = ilx.evaluate(agent, params, "CartPole-v1", episodes=3)
  played = ilx.evaluate(policy, policy.params, policy.spec["env_id"], episodes=3)
  np.testing.assert_array_equal(played.returns, expected.returns)


def test_what_the_spec_says(exported):
  spec = json.loads((exported[0] / "policy.json").read_text())
  assert spec["agent"] == {"name": "bc", "hidden": [8]} and spec["ilx"] == ilx.__version__
  assert spec["observation"] == {"observation": {"shape": [4], "dtype": "float32"}}
  assert spec["action"] == {"kind": "discrete", "num_actions": 2} and spec["carry"] == {}
  assert spec["platforms"] == ["cpu", "cuda", "tpu"]
  assert spec["params"]["network/params/torso/Dense_0/kernel"] == {"shape": [4, 8], "dtype": "float32"}


def test_wrong_input_is_refused(exported):
  policy = ilx.export.load(exported[0])
  for observation, wrong in (
    (np.zeros((2, 5), np.float32), r"observation 'observation' is \[2, 5\]; expected \['B', 4\]"),
    ({"position": np.zeros((2, 4))}, r"the observation has \['position'\]; the policy's has \['observation'\]"),
    (np.zeros((2, 4), np.complex64), "is complex64; expected float32"),
  ):
    with pytest.raises(ValueError, match=wrong):
      policy.act(policy.params, {}, (observation, np.zeros(2), np.ones(2, bool)), None)
  step = np.zeros((2, 4), np.float32), np.zeros(2), np.ones(2, bool)
  with pytest.raises(ValueError, match=r"key has \(4,\) numbers"):
    policy.act(policy.params, {}, step, jax.random.key(0, impl="rbg"))


def test_what_is_there_is_not_replaced_unless_asked(exported, tmp_path):
  spec, agent, params = _agent()
  folder = tmp_path / "policy"
  shutil.copytree(exported[0], folder)
  with pytest.raises(ValueError, match="policy exists; choose another folder, or overwrite it"):
    ilx.export.save(agent, params, spec, folder)
  changed = params._replace(network=jax.tree.map(lambda x: x + 1, params.network))
  ilx.export.save(agent, changed, spec, folder, platforms=["cpu"], overwrite=True)
  found = ilx.export.load(folder).params["network/params/head/logits/bias"]
  np.testing.assert_array_equal(found, changed.network["params"]["head"]["logits"]["bias"])
  assert [path.name for path in tmp_path.iterdir()] == ["policy"]
  (folder / "NOTES.md").write_text("years of work")
  with pytest.raises(ValueError, match=r"policy holds NOTES\.md, too, so it is not overwritten"):
    ilx.export.save(agent, params, spec, folder, overwrite=True)
  assert (folder / "NOTES.md").exists()
  foreign = tmp_path / "thesis"
  foreign.mkdir()
  (foreign / "chapter.tex").write_text("years of work")
  with pytest.raises(ValueError, match="thesis is no exported policy, so it is not overwritten"):
    ilx.export.save(agent, params, spec, foreign, overwrite=True)
  assert (foreign / "chapter.tex").exists()
  with pytest.raises(ValueError, match="nowhere is no folder"):
    ilx.export.save(agent, params, spec, tmp_path / "nowhere" / "policy")


def test_a_full_disk_leaves_what_was_there(exported, tmp_path, monkeypatch):
  spec, agent, params = _agent()
  folder = tmp_path / "policy"
  shutil.copytree(exported[0], folder)

  def full(descriptor):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr("os.fsync", full)
  with pytest.raises(OSError, match="No space left"):
    ilx.export.save(agent, params, spec, folder, platforms=["cpu"], overwrite=True)
  assert [path.name for path in tmp_path.iterdir()] == ["policy"]
  ilx.export.load(folder)


def _rewrite(folder, change):
  spec = json.loads((folder / "policy.json").read_text())
  change(spec)
  (folder / "policy.json").write_text(json.dumps(spec))


def _replace_params(folder, arrays):
  content = safetensors.numpy.save(arrays)
  (folder / "params.safetensors").write_bytes(content)
  entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
  _rewrite(folder, lambda spec: spec["files"].update({"params.safetensors": entry}))


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def _huge(folder):
  def change(spec):
    spec["params"]["network/params/head/logits/bias"]["shape"] = [1 << 40]

  _rewrite(folder, change)


def _other_program(folder):
  spec = continuous_spec(4, 2)
  agent = ilx.agents.bc(spec, hidden=(8,))
  episodes = agent.view.prepare(fake_episodes(spec))
  params = agent.init(jax.random.key(0), agent.view.take(episodes, episodes.rows[:4])).params
  other = ilx.export.save(agent, params, spec, folder.parent / "other", platforms=["cpu"])
  shutil.copy(other / "act.stablehlo", folder)
  entry = json.loads((other / "policy.json").read_text())["files"]["act.stablehlo"]
  _rewrite(folder, lambda spec: spec["files"].update({"act.stablehlo": entry}))


DAMAGES = {
  "no folder": (lambda f: shutil.rmtree(f), r"policy.json cannot be read, so .* is no exported policy"),
  "no spec": (lambda f: (f / "policy.json").unlink(), r"policy.json cannot be read"),
  "no json": (lambda f: (f / "policy.json").write_text("{"), r"policy.json is damaged"),
  "deep": (lambda f: (f / "policy.json").write_text("[" * 200_000), r"policy.json is damaged"),
  "list": (lambda f: (f / "policy.json").write_text("[]"), 'it has no "format"'),
  "large": (lambda f: (f / "policy.json").write_text(" " * (17 << 20)), r"17,825,792 bytes, at most"),
  "later": (lambda f: _rewrite(f, lambda s: s.update(format_version=9)), "version 9 of the format"),
  "field": (lambda f: _rewrite(f, lambda s: s.pop("params")), "policy.json .* has no 'params'"),
  "kind": (lambda f: _rewrite(f, lambda s: s["action"].update(kind="x")), "policy.json .* action is 'x'"),
  "type": (lambda f: _rewrite(f, lambda s: s.update(carry=[])), "policy.json is damaged"),
  "huge": (_huge, r"params.safetensors is damaged or not of this policy.json: .*bias is F32 \[2\]"),
  "flip": (lambda f: _flip(f / "params.safetensors"), "params.safetensors has not the checksum"),
  "cut": (lambda f: (f / "params.safetensors").write_bytes(b"12"), "params.safetensors has 2 bytes where"),
  "names": (lambda f: _replace_params(f, {"x": np.zeros(2)}), "its arrays have other names"),
  "program": (lambda f: _flip(f / "sample.stablehlo"), "sample.stablehlo has not the checksum"),
  "missing": (lambda f: (f / "carry.stablehlo").unlink(), "carry.stablehlo cannot be read"),
  "other": (_other_program, "act.stablehlo takes other arrays than policy.json says"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folders_are_one_sentence(exported, tmp_path, damage):
  folder = tmp_path / "policy"
  shutil.copytree(exported[0], folder)
  harm, wrong = DAMAGES[damage]
  harm(folder)
  with pytest.raises(ValueError, match=wrong):
    ilx.export.load(folder)
  if not any(word in wrong for word in ("sample", "carry.", "act.")):
    with pytest.raises(ValueError, match=wrong):
      ilx.export.numpy_policy(folder)


def test_numpy_refuses_layers_that_do_not_fit(exported, tmp_path):
  for layers in (
    [["dense", "nothing"]],
    [["dense", "network/params/head/logits"]],
    [["system"]],
    [[]],
    [["dense"]],
    [3],
  ):
    folder = tmp_path / "policy"
    shutil.copytree(exported[0], folder, dirs_exist_ok=True)
    _rewrite(folder, lambda spec, layers=layers: spec.update(numpy=layers))
    with pytest.raises(ValueError, match=r"policy.json describes layers that are not those of its parameters"):
      ilx.export.numpy_policy(folder)


def test_numpy_refuses_what_is_no_mlp(tmp_path):
  spec, agent, params = _agent(network=None)
  agent = agent._replace(act=lambda *given: agent_act(*given))
  agent_act = ilx.agents.bc(spec, hidden=(8,)).act
  folder = ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"])
  with pytest.raises(ValueError, match=r"is no MLP on flat observations .* StableHLO with load, which needs jax"):
    ilx.export.numpy_policy(folder)


def test_what_cannot_be_exported(tmp_path):
  spec, agent, params = _agent()
  with pytest.raises(ValueError, match="about and env_kwargs must be JSON values"):
    ilx.export.save(agent, params, spec, tmp_path / "policy", about={"x": object()}, platforms=["cpu"])
  with pytest.raises(ValueError, match=r"platforms=\['abacus'\]: choose of cpu, cuda"):
    ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["abacus"])
  with pytest.raises(ValueError, match="the policy cannot be lowered for cpu"):
    ilx.export.save(agent, {"other": np.zeros(2)}, spec, tmp_path / "policy", platforms=["cpu"])
  assert not list(tmp_path.iterdir())
