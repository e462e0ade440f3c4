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
from ilx.testing import continuous_spec, discrete_spec, factored_spec, fake_episodes
from ilx.types import Continuous, Discrete, MultiDiscrete, Step

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


@pytest.mark.parametrize("sample", [False, True])
def test_scores_as_before_where_slots_step_apart(exported, sample):
  folder, agent, params = exported
  policy = ilx.export.load(folder)
  kwargs = {"episodes": 9, "num_envs": 4, "batch_size": 2, "sample": sample}
  played = ilx.evaluate(policy, policy.params, "CartPole-v1", **kwargs)
  np.testing.assert_array_equal(played.returns, ilx.evaluate(agent, params, "CartPole-v1", **kwargs).returns)
  if not sample:
    together = ilx.evaluate(policy, policy.params, "CartPole-v1", **kwargs | {"batch_size": None})
    np.testing.assert_array_equal(played.returns, together.returns)


def test_evaluate_says_that_it_does_not_play_numpy(exported):
  policy = ilx.export.numpy_policy(exported[0])
  for batch_size in (None, 2):
    with pytest.raises(ValueError, match=r"program that jax compiles, as ilx\.evaluate .* do; play with load"):
      ilx.evaluate(policy, policy.params, "CartPole-v1", episodes=4, batch_size=batch_size)


def test_what_the_spec_says(exported):
  spec = json.loads((exported[0] / "policy.json").read_text())
  assert spec["agent"] == {"name": "bc", "hidden": [8]} and spec["ilx"] == ilx.__version__
  assert spec["observation"] == {"observation": {"shape": [4], "dtype": "float32"}}
  assert spec["action"] == {"kind": "discrete", "num_actions": 2} and spec["carry"] == {}
  assert spec["platforms"] == ["cpu", "cuda", "tpu"]
  assert spec["params"]["network/params/torso/Dense_0/kernel"] == {"shape": [4, 8], "dtype": "float32"}


def test_lists_are_arrays(exported):
  rows = np.random.default_rng(0).normal(size=(6, 4))
  for make in (ilx.export.load, ilx.export.numpy_policy):
    policy = make(exported[0])
    expected, _ = policy.act(policy.params, {}, (rows.astype(np.float32), np.zeros(6), np.ones(6, bool)), None)
    action, _ = policy.act(policy.params, {}, (rows.tolist(), [0.0] * 6, [True] * 6), None)
    np.testing.assert_array_equal(action, expected)


def test_lists_are_trees_where_the_observation_is_one(tmp_path):
  spec = continuous_spec(2, 1)
  spec = spec._replace(observation=[spec.observation, {"x": spec.observation}], statistics=None)
  agent = ilx.agents.bc(spec, hidden=(8,))
  episodes = agent.view.prepare(fake_episodes(spec))
  batch = agent.view.take(episodes, episodes.rows[:4])
  params = agent.init(jax.random.key(0), batch).params
  folder = ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"])
  expected = agent.act(params, (), Step(batch.observation, batch.reward, np.ones(4, bool)), None)[0]
  for policy in (ilx.export.load(folder), ilx.export.numpy_policy(folder)):
    action, _ = policy.act(policy.params, {}, (batch.observation, batch.reward, np.ones(4, bool)), None)
    np.testing.assert_allclose(action, expected, atol=1e-5)


WRONG = {
  "shape": (
    (np.zeros((2, 5)), np.zeros(2), [True] * 2),
    r"observation 'observation' is \[2, 5\]; expected \['B', 4\]$",
  ),
  "no batch": ((np.zeros(4), np.zeros(1), [True]), r"observation 'observation' is \[4\]; expected \['B', 4\]$"),
  "nobody": ((np.zeros((0, 4)), np.zeros(0), []), r"observation 'observation' is of no environment: \[0, 4\]"),
  "tree": (
    ({"position": np.zeros((2, 4))}, np.zeros(2), [True] * 2),
    r"the observation has \['position'\]; the policy's has \['observation'\]$",
  ),
  "type": ((np.zeros((2, 4), np.complex64), np.zeros(2), [True] * 2), "is complex64; expected float32$"),
  "ragged": (([[0.0] * 4, [0.0] * 3], np.zeros(2), [True] * 2), "observation 'observation' is no array of numbers: "),
  "texts": (([["left"] * 4] * 2, np.zeros(2), [True] * 2), "observation 'observation' is "),
  "reward": ((np.zeros((2, 4)), np.zeros(3), [True] * 2), r"^reward is \[3\]; expected \[2\], as many as observations"),
  "rewards": ((np.zeros((2, 4)), np.zeros((2, 1)), [True] * 2), r"^reward is \[2, 1\]; expected \[2\]"),
  "one reward": ((np.zeros((2, 4)), 0.0, [True] * 2), r"^reward is \[\]; expected \[2\]"),
  "is_first": ((np.zeros((2, 4)), np.zeros(2), True), r"^is_first is \[\]; expected \[2\]"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_refused(exported, wrong):
  step, message = WRONG[wrong]
  for make in (ilx.export.load, ilx.export.numpy_policy):
    policy = make(exported[0])
    with pytest.raises(ValueError, match=message) as raised:
      policy.act(policy.params, {}, step, None)
    assert len(str(raised.value)) < 250


def test_other_wrong_input_is_refused(exported, tmp_path):
  policy = ilx.export.load(exported[0])
  step = np.zeros((2, 4), np.float32), np.zeros(2), np.ones(2, bool)
  with pytest.raises(ValueError, match=r"key has \(4,\) numbers"):
    policy.act(policy.params, {}, step, jax.random.key(0, impl="rbg"))
  for make in (ilx.export.load, ilx.export.numpy_policy):
    with pytest.raises(ValueError, match="batch_size is 0; at least 1"):
      make(exported[0]).carry(0)
  spec = continuous_spec(4, 2)._replace(observation={name: jax.ShapeDtypeStruct((4,), np.float32) for name in "ab"})
  spec = spec._replace(statistics=None)
  agent = ilx.agents.chunked_bc(spec, hidden=(8,), length=3)
  episodes = agent.view.prepare(fake_episodes(spec))
  params = agent.init(jax.random.key(0), agent.view.take(episodes, episodes.rows[:4])).params
  policy = ilx.export.load(ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"]))
  given = {"a": np.zeros((2, 4)), "b": np.zeros((3, 4))}
  with pytest.raises(ValueError, match=r"observation 'b' is of 3 environments, other parts of .* are of 2"):
    policy.act(policy.params, policy.carry(2), (given, *step[1:]), None)
  given["b"] = given["a"]
  with pytest.raises(ValueError, match=r"carry 'age' is \[5\]; the observation is of 2 environments"):
    policy.act(policy.params, policy.carry(5), (given, *step[1:]), None)
  with pytest.raises(ValueError, match=r"carry has \[\]; the policy's has \['age', 'total'\]"):
    policy.act(policy.params, {}, (given, *step[1:]), None)
  with pytest.raises(ValueError, match=r"carry is a tuple; expected"):
    policy.act(policy.params, (), (given, *step[1:]), None)


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


def test_a_link_stays_one_and_what_it_leads_to_is_replaced(exported, tmp_path):
  spec, agent, params = _agent()
  (tmp_path / "real").mkdir()
  (tmp_path / "links").mkdir()
  real, link = tmp_path / "real" / "policy", tmp_path / "links" / "latest"
  link.symlink_to(real)
  assert ilx.export.save(agent, params, spec, link, platforms=["cpu"]) == link
  assert ilx.export.load(real).spec["platforms"] == ["cpu"]
  with pytest.raises(ValueError, match="real/policy exists"):
    ilx.export.save(agent, params, spec, link, platforms=["cpu"])
  changed = params._replace(network=jax.tree.map(lambda x: x + 1, params.network))
  ilx.export.save(agent, changed, spec, link, platforms=["cpu"], overwrite=True)
  found = ilx.export.load(real).params["network/params/head/logits/bias"]
  np.testing.assert_array_equal(found, changed.network["params"]["head"]["logits"]["bias"])
  assert link.is_symlink() and link.resolve() == real and not real.is_symlink()
  assert [path.name for path in link.parent.iterdir()] == ["latest"]
  assert [path.name for path in real.parent.iterdir()] == ["policy"]


_KILLED = """
import os, pathlib, signal, sys
import jax
from tests.export.test_export_alone import _agent
import ilx.export
spec, agent, params = _agent()
rename = pathlib.Path.rename
def killed(self, target):
  if f".{{self.name}}"[1:].startswith({before!r}):
    os.kill(os.getpid(), signal.SIGKILL)
  return rename(self, target)
pathlib.Path.rename = killed
ilx.export.save(agent, params, spec, {folder!r}, platforms=["cpu"], overwrite=True)
"""


@pytest.mark.parametrize("before", ["policy", ".policy.new-"])
def test_the_next_save_clears_up_after_a_killed_one(exported, tmp_path, before):
  """Killed before it moves the old policy away, or before the new one takes its place."""
  spec, agent, params = _agent()
  folder = tmp_path / "policy"
  shutil.copytree(exported[0], folder)
  done = subprocess.run([sys.executable, "-c", _KILLED.format(before=before, folder=str(folder))], capture_output=True)
  assert done.returncode == -9, done.stderr
  left = sorted(path.name.rsplit("-")[0] for path in tmp_path.iterdir())
  assert left == ([".policy.new", "policy"] if before == "policy" else [".policy.new", ".policy.old"])
  # Of somebody else, whatever their names.
  others = [".policy.old-thesis", ".policy.new-0123456", ".policy.old-abcdef01", ".policies.old-01234567"]
  for other in others:
    (tmp_path / other).mkdir()
    (tmp_path / other / "chapter.tex").write_text("years of work")
  with pytest.raises(ValueError, match="policy exists"):
    ilx.export.save(agent, params, spec, folder, platforms=["cpu"])
  assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "policy"])
  np.testing.assert_equal(ilx.export.load(folder).spec, ilx.export.load(exported[0]).spec)  # what was there
  ilx.export.save(agent, params, spec, folder, platforms=["cpu"], overwrite=True)
  assert ilx.export.load(folder).spec["platforms"] == ["cpu"]
  assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "policy"])


def test_what_another_process_is_writing_is_left_alone(exported, tmp_path):
  spec, agent, params = _agent()
  theirs = tmp_path / ".policy.new-01234567"
  theirs.mkdir()
  holder = subprocess.Popen(
    [
      sys.executable,
      "-c",
      f"import fcntl, os; fcntl.flock(os.open({str(theirs)!r}, 0), 2); print(1, flush=True); input()",
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  try:
    assert holder.stdout.readline() == b"1\n"
    ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"])
    assert theirs.exists()
  finally:
    holder.communicate(b"\n")
  ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"], overwrite=True)
  assert [path.name for path in tmp_path.iterdir()] == ["policy"]


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
  "frames": (lambda f: _rewrite(f, lambda s: s.update(frame_stack="4")), "policy.json .* frame_stack is '4'"),
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


def _parts(**parts):
  return [["dense", "network/params/torso/Dense_0"], ["relu"], ["parts", parts]]


_LOGITS = [["dense", "network/params/head/logits"]]
_ALL = [["dense", "network/params/torso/Dense_0"], ["relu"], *_LOGITS]


@pytest.mark.parametrize(
  "layers",
  [
    [["dense", "nothing"]],
    _LOGITS,
    [["system"]],
    [[]],
    [["dense"]],
    [3],
    _ALL,  # no choice
    [*_ALL, ["tanh"]],
    [*_ALL, ["argmax"], ["tanh"]],
    [*_ALL, ["choices", [2]]],
    [*_ALL, ["choices", [1 << 60, 1 << 60]]],
    [*_ALL, ["choices", [0, -2]]],
    [*_ALL, ["choices", []]],
    [*_ALL, ["choices", 2]],
    [*_ALL, ["choices"]],
    _parts(a=[*_LOGITS, ["argmax"]]),
    _parts(),
    [*_parts(), ["argmax"]],
    [["parts"]],
    [["parts", []]],
  ],
)
def test_numpy_refuses_layers_that_do_not_fit(exported, tmp_path, layers):
  folder = tmp_path / "policy"
  shutil.copytree(exported[0], folder)
  _rewrite(folder, lambda spec: spec.update(numpy=layers))
  with pytest.raises(ValueError, match=r"policy.json describes layers that are not those of its parameters"):
    ilx.export.numpy_policy(folder)


def test_numpy_refuses_parts_that_do_not_fit(tmp_path):
  spec = factored_spec()
  agent = ilx.agents.bc(spec, hidden=(8,))
  episodes = agent.view.prepare(fake_episodes(spec))
  params = agent.init(jax.random.key(0), agent.view.take(episodes, episodes.rows[:4])).params
  folder = ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"])
  layers = json.loads((folder / "policy.json").read_text())["numpy"]
  hand = layers[-1][1]["hand"][-1][1]
  changes = [
    lambda s: s["numpy"][-1][1].pop("stick"),
    lambda s: s["numpy"][-1][1].update(more=[["argmax"]]),
    lambda s: s["numpy"][-1][1].update(weapon=layers[-1][1]["stick"]),
    lambda s: s["numpy"][-1][1].update(stick=layers[-1][1]["weapon"]),
    lambda s: s["numpy"][-1][1].update(hand=hand["buttons"]),
    lambda s: s["numpy"][-1][1]["hand"][-1][1].update(buttons=hand["trigger"]),
    lambda s: s["numpy"][-1][1]["hand"][-1][1]["buttons"][-1].__setitem__(1, [2, 5, 2]),
    lambda s: s["action"]["parts"]["stick"].update(low=[0.0]),
    lambda s: s["action"]["parts"]["stick"].pop("low"),
    lambda s: s["action"]["parts"]["weapon"].update(num_actions=1 << 60),
  ]
  ilx.export.numpy_policy(folder)
  for change in changes:
    text = (folder / "policy.json").read_text()
    _rewrite(folder, change)
    with pytest.raises(ValueError, match=r"policy.json describes layers that are not those of its parameters"):
      ilx.export.numpy_policy(folder)
    (folder / "policy.json").write_text(text)


def test_folders_exported_before_are_read(exported, tmp_path):
  """Those of actions in one part are as they were, but for the number of stacked frames."""
  folder = tmp_path / "policy"
  shutil.copytree(exported[0], folder)
  spec = json.loads((folder / "policy.json").read_text())
  assert spec["numpy"] == [*_ALL, ["argmax"]]
  _rewrite(folder, lambda spec: spec.pop("frame_stack"))
  step = np.zeros((2, 4), np.float32), np.zeros(2), np.ones(2, bool)
  for make in (ilx.export.load, ilx.export.numpy_policy):
    policy = make(folder)
    assert policy.act(policy.params, policy.carry(2), step, None)[0].shape == (2,)


def test_numpy_refuses_what_is_no_mlp(tmp_path):
  spec, agent, params = _agent(network=None)
  agent = agent._replace(act=lambda *given: agent_act(*given))
  agent_act = ilx.agents.bc(spec, hidden=(8,)).act
  folder = ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["cpu"])
  with pytest.raises(ValueError, match=r"is no MLP on flat observations .* StableHLO with load, which needs jax"):
    ilx.export.numpy_policy(folder)


def _of_parts():
  sticks = Continuous(-np.ones(2), np.ones(2))
  action = {"hand": {"keys": MultiDiscrete((2, 2, 2))}, "stick": sticks, "weapon": Discrete(2)}
  spec = discrete_spec(4, 2)._replace(action=action)
  agent = ilx.agents.bc(spec, hidden=(8,))
  episodes = agent.view.prepare(fake_episodes(spec))
  return spec, agent, agent.init(jax.random.key(0), agent.view.take(episodes, episodes.rows[:4])).params


def test_names_of_actions_travel(tmp_path):
  spec, agent, params = _of_parts()
  names = {"hand": {"keys": ["w", "a", "space"]}, "weapon": ("sword", "bow")}
  folder = ilx.export.save(agent, params, spec, tmp_path / "policy", action_names=names, platforms=["cpu"])
  parts = ilx.export.load(folder).spec["action"]["parts"]
  assert parts["hand"]["parts"]["keys"] == {
    "kind": "multi_discrete",
    "num_actions": [2, 2, 2],
    "names": ["w", "a", "space"],
  }
  assert parts["weapon"]["names"] == ["sword", "bow"] and "names" not in parts["stick"]
  policy, step = ilx.export.numpy_policy(folder), (np.zeros((2, 4), np.float32), np.zeros(2), np.ones(2, bool))
  assert policy.act(policy.params, {}, step, None)[0]["hand"]["keys"].shape == (2, 3)
  spec, agent, params = _agent()
  folder = ilx.export.save(agent, params, spec, tmp_path / "one", action_names=["left", "right"], platforms=["cpu"])
  assert ilx.export.load(folder).spec["action"]["names"] == ["left", "right"]


@pytest.mark.parametrize(
  ("names", "wrong"),
  [
    ({"weapon": ["sword"]}, r"action_names\['weapon'\] is \['sword'\]; expected a list of 2 names"),
    ({"weapon": "bo"}, "expected a list of 2 names"),
    ({"stick": ["x", 3]}, r"action_names\['stick'\]"),
    ({"hand": ["w"]}, r"action_names\['hand'\] is \['w'\]; expected a dict of some of the parts keys"),
    ({"wepon": ["sword", "bow"]}, "expected a dict of some of the parts hand, stick, weapon"),
    (["sword", "bow"], "expected a dict of some of the parts"),
  ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, names, wrong):
  spec, agent, params = _of_parts()
  with pytest.raises(ValueError, match=wrong):
    ilx.export.save(agent, params, spec, tmp_path / "policy", action_names=names, platforms=["cpu"])
  assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(tmp_path):
  spec, agent, params = _agent()
  with pytest.raises(ValueError, match="about and env_kwargs must be JSON values"):
    ilx.export.save(agent, params, spec, tmp_path / "policy", about={"x": object()}, platforms=["cpu"])
  with pytest.raises(ValueError, match=r"platforms=\['abacus'\]: choose of cpu, cuda"):
    ilx.export.save(agent, params, spec, tmp_path / "policy", platforms=["abacus"])
  with pytest.raises(ValueError, match="the policy cannot be lowered for cpu"):
    ilx.export.save(agent, {"other": np.zeros(2)}, spec, tmp_path / "policy", platforms=["cpu"])
  assert not list(tmp_path.iterdir())
