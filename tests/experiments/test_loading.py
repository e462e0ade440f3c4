import functools
import json
import shutil
import signal
import warnings

import jax
import numpy as np
import pytest

import ilx
from experiments import agents, choosing, loading, run, task
from experiments.configs import bc
from ilx import training
from ilx.data import rlds
from ilx.training import logs, memory
from ilx.training.checkpoint import Checkpoints
from ilx.training.metrics import Metrics

EPISODES = 12


def _record(root, name, *, env_id=None, seed=0, size=4, actions=2, metadata=None, **counts):
  """Episodes whose action follows from the observation; episode e has 5 + e transitions and returns e."""
  rng = np.random.default_rng(seed)
  about = ({"env_id": env_id} if env_id else {}) | (metadata or {})
  with ilx.data.Recorder(root, name=name, metadata=about) as recorder:
    for split, count in {"train": EPISODES, **counts}.items():
      for episode in range(count):
        observation = rng.normal(size=(6 + episode, size)).astype(np.float32)
        action = np.tanh(observation[:-1, :actions]) if actions else (observation[:-1, 0] > 0).astype(np.int32)
        reward = np.zeros(5 + episode, np.float32)
        reward[-1] = episode
        one = ilx.data.episode(observation, action, reward, terminal=episode % 2 == 0)
        recorder.add(one, metadata={"success": episode % 3 == 0}, split=split)
  return recorder.path


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
  """No environment; splits train and val."""
  return _record(tmp_path_factory.mktemp("data"), "robot", val=3)


@pytest.fixture(scope="module")
def finished(robot, tmp_path_factory):
  """tier -> the folder of a run that was never stopped."""

  @functools.cache
  def folder(tier):
    workdir = tmp_path_factory.mktemp("runs") / tier
    run.run(_config(robot, tier=tier, heldout="val"), workdir)
    return workdir

  return folder


def _config(dataset, **changes):
  config = bc.get_config()
  config.update(dataset=str(dataset), split="train", env_id="none", steps=60, batch_size=16, log_every=10)
  config.update(checkpoint_every=20)
  config.agent.update(hidden=(8,), learning_rate=1e-2)
  config.evaluation.update(every=20, video=False)
  config.update_from_flattened_dict(changes)
  return config


def _params(config, workdir):
  found = task.load(config)
  agent = agents.make(config.agent, found.data.spec, config.steps)
  data = rlds.load(config.dataset, config.split)
  like = jax.jit(agent.init)(jax.random.key(0), agent.view.sample(jax.random.key(0), jax.device_put(data), 16))
  with Checkpoints(workdir / "checkpoints") as checkpoints:
    return jax.tree.map(np.asarray, checkpoints.restore(config.steps, like).params.network)


# Choosing.


@pytest.mark.parametrize(
  ("text", "found"),
  [
    ("a", {"a": None}),
    ("a,b/1.0.0", {"a": None, "b/1.0.0": None}),
    ("a=0.7, /b/c=0.3", {"a": 0.7, "/b/c": 0.3}),
    ("a=2", {"a": 2.0}),
  ],
)
def test_shares(text, found):
  assert choosing.shares(text) == found


def test_a_folder_is_one_dataset_whatever_its_name(tmp_path):
  (tmp_path / "a=1,b").mkdir()
  assert choosing.shares(str(tmp_path / "a=1,b")) == {str(tmp_path / "a=1,b"): None}


@pytest.mark.parametrize("text", ["a=x", "a=0.5,b", "a,a", "a,", "=1"])
def test_shares_that_are_none_are_said(text):
  with pytest.raises(ValueError, match=r"config\.dataset="):
    choosing.shares(text)


@pytest.mark.parametrize("text", ["a=1,b", "a, b=1"])
def test_the_example_of_a_share_is_one(text):
  with pytest.raises(ValueError, match="give all datasets a share, such as a=1, or none"):
    choosing.shares(text)


def test_fill():
  assert choosing.fill("reward=0, is_terminal=false") == (("reward", 0.0), ("is_terminal", False))
  assert choosing.fill("") == ()
  with pytest.raises(ValueError, match=r"config\.fill='reward'"):
    choosing.fill("reward")


def test_fields_are_found_within_the_observation(shared_data):
  info = rlds.read_info(shared_data / "rlds" / "bridge_dataset" / "1.0.0")
  config = _config("x", action="action/arm/stick")
  metadata = {"env_id": "x", "num_actions": {"arm": {"fire": 2}}, "action_low": {"arm": {"stick": [-1]}}}
  assert choosing.of_action(config, metadata) == {"env_id": "x", "action_low": [-1]}
  assert choosing.of_action(_config("x"), metadata) == metadata
  chosen = choosing.selection(_config("x", observation="state, image_0", action="action"), info)
  assert chosen.observation == ("observation/state", "observation/image_0")
  assert choosing.selection(_config("x", observation="language_embedding"), info).observation == "language_embedding"
  assert choosing.selection(_config("x"), info).observation is None


def test_texts_that_are_left_out_are_told(shared_data, tmp_path):
  folder = shutil.copytree(shared_data / "rlds" / "bridge_dataset" / "1.0.0", tmp_path / "bridge" / "1.0.0")
  data = task.load(_config(folder, split="train[:2]")).data
  assert data.facts["left_out"] == ["language_instruction"]
  assert data.facts["observation"]["observation/state"] == "float32 [7]"
  words = loading.describe(data)
  assert "2 episodes, 18 transitions (device)" in words and "numbers: language_instruction" in words
  chosen = task.load(_config(folder, split="train[:2]", observation="state")).data
  assert chosen.facts["left_out"] == [] and "not learnt" not in loading.describe(chosen)
  with pytest.raises(ValueError, match="language_instruction' is text; expected numbers"):
    task.load(_config(folder, observation="state,language_instruction"))


def test_overlap_is_counted_episode_by_episode(robot):
  info = rlds.read_info(robot)
  found = choosing.overlap(info, "train[2:5]+train[8:]", None, "train[4:9]+val")
  assert found.tolist() == [True, False, False, False, True, False, False, False]
  weights = np.array([1, 1, 0, 1, 1, 1, 1])
  assert choosing.overlap(info, "train[2:5]+train[8:]", weights, "train[4:9]").tolist() == [False] * 4 + [True]


# Loading.


@pytest.mark.parametrize("tier", ["auto", "device", "host", "mapped", "streamed"])
def test_the_best_episodes_of_those_that_a_condition_chooses(robot, tier):
  # Success is 0, 3, 6 and 9: 5, 8, 11 and 14 transitions. Half of these 38 is episode 9 and a part of 6.
  config = _config(robot, tier=tier, where="success", top_return=0.5)
  data = task.load(config).data
  assert (data.facts["data_episodes"], data.facts["data_transitions"], data.facts["data_return"]) == (2, 25, 7.5)
  assert data.facts["tier"] == ("device" if tier == "auto" else tier)
  seen = set()
  batches = (
    data.train.batches(ilx.data.Transitions(), 16, 0)
    if tier == "streamed"
    else (ilx.data.Transitions().sample(jax.random.key(i), jax.device_put(data.train), 16) for i in range(20))
  )
  for batch, _ in zip(batches, range(20), strict=False):
    seen |= {row.tobytes() for row in np.asarray(batch.observation)}
  everything = rlds.load(robot)
  starts = np.asarray(everything.starts)
  wanted = np.concatenate([everything.observation[starts[e] : starts[e + 1] - 1] for e in (6, 9)])
  assert seen == {row.tobytes() for row in wanted}


@pytest.mark.parametrize("tier", ["host", "mapped", "streamed"])
def test_a_mixture_gives_each_its_share(robot, tmp_path, tier):
  other = _record(tmp_path, "other", seed=1)
  data = task.load(_config(f"{robot}=0.8,{other}=0.2", tier=tier, heldout="train[10:]", split="train[:10]")).data
  assert [part["share"] for part in data.facts["datasets"]] == [0.8, 0.2]
  assert data.facts["data_episodes"] == 20
  assert data.heldout.episodes.num_episodes == 4
  both = [rlds.load(path, "train[:10]") for path in (robot, other)]
  first = {row.tobytes() for row in both[0].observation}
  batches = (
    data.train.batches(ilx.data.Transitions(), 100, 0)
    if tier == "streamed"
    else (data.train.observation[data.train.rows[_draw(data.train, i)]] for i in range(10))
  )
  rows = [
    row
    for batch, _ in zip(batches, range(10), strict=False)
    for row in (batch.observation if tier == "streamed" else batch)
  ]
  assert np.mean([row.tobytes() in first for row in rows]) == pytest.approx(0.8, abs=0.06)
  together = np.concatenate([part.observation for part in both])
  np.testing.assert_allclose(data.spec.statistics.mean, together.mean(axis=0), atol=1e-5)
  np.testing.assert_allclose(data.spec.statistics.std, together.std(axis=0), rtol=1e-5)


def _draw(episodes, i):
  return np.asarray(ilx.data.sampling.positions(jax.random.key(i), episodes.table, len(episodes.rows), 100))


def test_datasets_that_differ_are_reported_in_every_field(robot, tmp_path):
  other = _record(tmp_path, "other", size=5, actions=3)
  for tier in ("host", "streamed"):
    with pytest.raises(
      ValueError, match=r"(?s)observation: .*\[4\].*\[5\].*action: .*\[2\].*\[3\]|action.*observation"
    ):
      task.load(_config(f"{robot},{other}", tier=tier))


def test_bounds_that_differ_are_joined_with_a_warning(robot, tmp_path):
  bounds = {"action_low": [-3.0, -1.0], "action_high": [1.0, 2.0]}
  other = _record(tmp_path, "other", metadata=bounds)
  with pytest.warns(UserWarning, match="different bounds"):
    action = task.load(_config(f"{robot},{other}")).data.spec.action
  np.testing.assert_array_equal(action.low, [-3, -1])
  np.testing.assert_array_equal(action.high, [1, 2])


def _pad(root, name, names, weapons=2, high=1.0):
  """Sticks, buttons and a weapon, whose ``action_names`` are ``names``."""
  rng = np.random.default_rng(0)
  metadata = {
    "action_names": names, "num_actions": {"weapon": weapons},
    "action_low": {"stick": [-1.0, -1.0]}, "action_high": {"stick": [1.0, high]},
  }  # fmt: skip
  with ilx.data.Recorder(root, name=name, metadata=metadata) as recorder:
    for _ in range(3):
      seen = rng.normal(size=(9, 3)).astype(np.float32)
      action = {
        "stick": np.tanh(seen[:-1, :2]),
        "hand": {"keys": seen[:-1] > 0},
        "weapon": (seen[:-1, 0] > 0).astype(np.int32),
      }
      recorder.add(ilx.data.episode(seen, action, np.zeros(8), terminal=True))
  return recorder.path


def test_choices_in_another_order_are_no_mixture(tmp_path):
  one, two = _pad(tmp_path, "a", {"weapon": ["sword", "bow"]}), _pad(tmp_path, "b", {"weapon": ["bow", "sword"]})
  with pytest.raises(ValueError, match=r"config\.dataset.*action_names") as error:
    task.load(_config(f"{one},{two}"))
  assert f"action/weapon: '{one}' has sword, bow; '{two}' has bow, sword" in str(error.value)
  assert "keys" not in str(error.value)


def test_other_words_for_a_choice_are_an_error_and_more_choices_are_not(tmp_path):
  one = _pad(tmp_path, "a", {"weapon": ["sword", "bow"]})
  two, more = _pad(tmp_path, "b", {"weapon": ["sword", "axe"]}), ["sword", "bow", "axe"]
  with pytest.raises(ValueError, match="sword, axe"):
    task.load(_config(f"{one},{two}"))
  three = _pad(tmp_path, "c", {"weapon": more}, weapons=3)
  with pytest.warns(UserWarning, match="different bounds"):
    data = task.load(_config(f"{one},{three}")).data
  assert data.names == {"weapon": more}


def test_buttons_in_another_order_are_an_error_and_other_labels_a_warning(tmp_path, recwarn):
  lists = {"a": ["w", "a", "s"], "b": ["s", "a", "w"], "c": ["w", "a", "s"], "d": ["w", "a", "s pressed"], "e": "was"}
  paths = {name: _pad(tmp_path, name, {"hand": {"keys": keys}}) for name, keys in lists.items()}

  def names(*found):
    return task.load(_config(",".join(str(paths[name]) for name in found))).data.names

  with pytest.raises(ValueError, match=r"action/hand/keys: .*w, a, s; .* has s, a, w"):
    names("a", "b")
  assert names("a", "c") == names("a", "e") == {"hand/keys": ["w", "a", "s"]}
  assert not recwarn
  with pytest.warns(UserWarning, match=r"place by place.*\n  action/hand/keys: .*s pressed"):
    assert names("a", "d") == {}


@pytest.mark.parametrize("names", [None, 7, ["x"], {"weapon": ["a"]}, {"weapon": [1, 2]}, {"stick": {"x": 1}}])
def test_names_that_do_not_fit_are_left_out(tmp_path, names):
  one, two = _pad(tmp_path, "a", names), _pad(tmp_path, "b", {"weapon": ["bow", "sword"], "jump": ["jump"]})
  assert task.load(_config(one)).data.names == {}
  assert task.load(_config(f"{one},{two}")).data.names == {"weapon": ["bow", "sword"]}
  assert task.load(_config(two, action="action/weapon")).data.names == {"": ["bow", "sword"]}


def test_the_warning_of_bounds_names_the_parts_that_differ_alone(tmp_path):
  one, two = _pad(tmp_path, "a", None), _pad(tmp_path, "b", None, high=2.0)
  with pytest.warns(UserWarning, match="different bounds") as found:
    task.load(_config(f"{one},{two}"))
  (said,) = [str(warning.message) for warning in found]
  own, other = "[-1. -1.] to [1. 1.]", "[-1. -1.] to [1. 2.]"
  assert said.splitlines()[1:] == [f"  action/stick: {own} in '{one}', {other} in '{two}'; taken: {other}"]


def test_what_is_too_large_for_memory_is_mapped(robot, monkeypatch):
  data = task.load(_config(robot)).data
  assert data.facts["tier"] == "device"
  size = loading.size_in_memory(
    rlds.read_info(robot), "train", choosing.selection(_config(robot), rlds.read_info(robot))
  )
  loaded = sum(leaf.nbytes for leaf in jax.tree.leaves(rlds.load(robot)))
  assert size == pytest.approx(loaded, rel=0.1)
  monkeypatch.setattr(memory, "free_memory", lambda: 2 * size - 2)
  assert task.load(_config(robot)).data.facts["tier"] == "mapped"
  monkeypatch.setattr(memory, "free_memory", lambda: 2 * size)
  assert task.load(_config(robot)).data.facts["tier"] == "host"  # encoded it fits, decoded it does not
  monkeypatch.setattr(memory, "free_memory", lambda: 1000 * size)
  assert task.load(_config(robot)).data.facts["tier"] == "device"
  assert memory.free_memory() > 0


def test_what_a_dataset_lacks_can_be_filled_in(tmp_path):
  folder = _record(tmp_path, "silent")
  features = json.loads((folder / "features.json").read_text())
  del features["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]["reward"]
  (folder / "features.json").write_text(json.dumps(features))
  with pytest.raises(ValueError, match="reward"):
    task.load(_config(folder))
  data = task.load(_config(folder, fill="reward=0")).data
  assert data.facts["data_return"] is None
  assert not np.asarray(data.train.reward).any()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"tier": "disk"}, "config.tier='disk': choose one of auto, device, host, mapped, streamed"),
    ({"top_return": 0.0}, "config.top_return=0.0"),
    ({"heldout": "test"}, "config.heldout: .*no split 'test'; there: train, val"),
    ({"split": "train[:100]"}, r"config.split: .*reaches beyond the 12 episodes"),
    ({"where": "sucess"}, "(?s)config.where='sucess': .*success"),
    ({"where": "length > 1000"}, "config.where='length > 1000' holds for none of the 12 episodes"),
    ({"observation": "stat"}, "no step field 'stat'"),
    ({"env_id": ""}, "names no environment; say which with --config.env_id=..., or --config.env_id=none"),
  ],
)
def test_wrong_fields_are_named(robot, changes, message):
  with pytest.raises(ValueError, match=message):
    task.load(_config(robot, **changes))


def test_agents_that_do_not_stack_frames_say_so(robot, monkeypatch):
  monkeypatch.setattr(ilx.agents, "bc", lambda spec, *, optimizer: None)
  section = {"name": "bc", "learning_rate": 1e-3, "schedule": "constant"}
  spec = task.load(_config(robot)).data.spec
  with pytest.raises(ValueError, match=r"config.frame_stack=4: the agent 'bc' does not stack frames"):
    agents.make(section, spec, 10, frame_stack=4)
  assert agents.make(section, spec, 10) is None


def test_held_out_episodes_that_are_learnt_from_are_warned_of(robot):
  with pytest.warns(UserWarning, match=r"2 of 4 held-out episodes are among those learnt from"):
    task.load(_config(robot, split="train[:10]", heldout="train[8:]"))
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    task.load(_config(robot, split="train[:8]", heldout="train[8:]+val"))


# Running.


def test_a_run_without_an_environment(finished):
  workdir = finished("device")
  result = json.loads((workdir / "result.json").read_text())
  nothing = [
    key for key in result if ("return" in key or key in ("episodes", "lengths")) and not key.startswith("data_")
  ]
  assert len(nothing) > 8 and all(result[key] is None for key in [*nothing, "env_id", "normalized_score"])
  held = result["heldout"]
  assert (held["split"], held["episodes"], held["transitions"]) == ("val", 3, 5 + 6 + 7)
  assert len(held["dimensions"]["mean_absolute_error"]) == 2
  assert result["data_episodes"] == EPISODES
  rows = logs.read_jsonl(workdir / "log.jsonl")
  scored = [row for row in rows if "eval/heldout_mean_absolute_error" in row]
  assert [row["step"] for row in scored] == [20, 40, 60]
  errors = [row["eval/heldout_mean_absolute_error"] for row in scored]
  assert errors[-1] == held["mean_absolute_error"] < errors[0]
  assert scored[0]["eval/heldout_explained"] < held["explained"]
  assert not any("eval/return_mean" in row for row in rows)
  assert "held-out episodes" in (workdir / "report.html").read_text()


def test_a_run_without_any_score(robot, tmp_path):
  result = run.run(_config(robot), tmp_path)
  assert result["heldout"] is None and result["loss"] > 0
  assert "Nothing was scored" in (tmp_path / "report.html").read_text()


def test_held_out_actions_beside_returns(tmp_path):
  folder = _record(tmp_path, "cart", env_id="CartPole-v1", actions=0)
  config = _config(folder, env_id="", split="train[:10]", heldout="train[10:]")
  config.evaluation.update(every=60, episodes=2, final_episodes=2)
  result = run.run(config, tmp_path / "run")
  assert result["return_mean"] > 0
  assert result["heldout"]["accuracy"] > 0.6
  assert sum(result["heldout"]["actions"]["count"]) == 15 + 16


def test_tiers_with_the_same_batches_end_alike(robot, finished):
  params = {tier: _params(_config(robot), finished(tier)) for tier in ("device", "host", "mapped")}
  for tier in ("host", "mapped"):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), params[tier], params["device"])


def test_the_same_command_again_changes_nothing_but_what_it_looks_at(robot, tmp_path, monkeypatch):
  config = _config(robot, heldout="val", **{"agent.schedule": "constant"})
  run.run(config, tmp_path)
  written = (tmp_path / "config.json").read_text()
  for change in ({"steps": 30}, {"strategy": "none"}):  # what training refuses
    with pytest.raises(ValueError, match=r"beyond steps=30|strategy='none'"):
      run.run(_config(robot, heldout="val", **{"agent.schedule": "constant"}, **change), tmp_path)
  assert (tmp_path / "config.json").read_text() == written

  before = json.loads((tmp_path / "result.json").read_text())
  (tmp_path / "episode.mp4").write_text("drawn before")
  (tmp_path / "log.jsonl").unlink()
  monkeypatch.setattr(run, "git_commit", lambda: "another")
  run.run(config, tmp_path)
  again = json.loads((tmp_path / "result.json").read_text())
  assert {name: again[name] for name in ("git_commit", "heldout", "steps")} == {
    name: before[name] for name in ("git_commit", "heldout", "steps")
  }
  assert before["loss"] is not None and again["loss"] is None  # it is not known any more
  assert (tmp_path / "episode.mp4").exists()

  # Killed in its last evaluation after more updates: the result is still that of fewer.
  more = _config(robot, heldout="val", steps=80, **{"agent.schedule": "constant"})
  run.run(more, tmp_path)
  logs.write_json(tmp_path / "result.json", before)
  (tmp_path / "episode.mp4").write_text("of 60 updates")
  assert run.run(more, tmp_path)["steps"] == 80 and not (tmp_path / "episode.mp4").exists()


class Killed(Exception):
  pass


@pytest.mark.parametrize(("tier", "by"), [("mapped", Killed), ("streamed", Killed), ("streamed", training.Interrupted)])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(robot, finished, tmp_path, monkeypatch, tier, by):
  config = _config(robot, tier=tier, heldout="val")
  row = Metrics.row

  def die(self, sums, length, step):
    if step == 50 and by is Killed:
      raise Killed
    if step == 50:
      signal.raise_signal(signal.SIGTERM)
    return row(self, sums, length, step)

  monkeypatch.setattr(Metrics, "row", die)
  with pytest.raises(by):
    run.run(config, tmp_path)
  monkeypatch.undo()
  saved = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
  assert max(map(int, saved)) == (40 if by is Killed else 50)
  run.run(config, tmp_path)
  whole = finished(tier)
  jax.tree.map(np.testing.assert_array_equal, _params(config, whole), _params(config, tmp_path))
  ended, expected = (json.loads((folder / "result.json").read_text()) for folder in (tmp_path, whole))
  assert ended["heldout"] == expected["heldout"]
  rows = [
    [{k: v for k, v in row.items() if "second" not in k} for row in logs.read_jsonl(folder / "log.jsonl")]
    for folder in (tmp_path, whole)
  ]
  assert rows[0] == rows[1]
