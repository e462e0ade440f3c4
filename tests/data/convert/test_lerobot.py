"""Reads what lerobot 0.3.3 (v2.1) and 0.4.4 (v3.0) wrote; ``fixtures/make_lerobot.py`` says what that is."""

import importlib.util
import json
import pathlib
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ilx.data import rlds
from ilx.data.convert import lerobot, write

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
_spec = importlib.util.spec_from_file_location("make_lerobot", FIXTURES / "make_lerobot.py")
made = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made)

VERSIONS = ["lerobot_v21", "lerobot_v30"]
VIDEO = "observation.images.top"
# What AV1 and JPEG make of a grey.
NEAR = 8


@pytest.fixture
def copy(tmp_path):
  def make(version):
    shutil.copytree(FIXTURES / version, tmp_path / version)
    return tmp_path / version

  return make


def edit_info(root, **changes):
  path = root / "meta" / "info.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_rows(root, episode, change):
  """Rewrites an episode's file of a v2.1 dataset: ``change`` maps columns to columns."""
  path = root / f"data/chunk-000/episode_{episode:06}.parquet"
  pq.write_table(pa.table(change(pq.read_table(path).to_pydict())), path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("episode", range(3))
def test_every_value_is_what_was_recorded(version, episode):
  v3 = version == "lerobot_v30"
  length = made.LENGTHS[episode]
  terminal = v3 and episode != 2
  source = lerobot.open(FIXTURES / version)
  assert len(source) == 3
  steps, metadata, split = source[episode]
  shown = [*range(length), *([length - 1] if terminal else [])]
  actions = len(shown) - 1
  assert np.array_equal(steps["observation"]["state"], [made.state(episode, t) for t in shown])
  assert np.array_equal(steps["action"][:actions], [made.action(episode, t) for t in range(actions)])
  assert steps["action"].dtype == np.float32
  assert not steps["action"][actions:].any()
  assert steps["reward"].tolist() == ([float(t) for t in range(actions)] if v3 else [0.0] * actions) + [0.0]
  assert steps["is_terminal"].tolist() == [False] * actions + [terminal]
  assert steps["discount"][actions - 1] == (0.0 if terminal else 1.0)
  assert steps["language_instruction"] == [made.task(episode, t) for t in shown]
  assert steps["timestamp"] == pytest.approx([t / 10 for t in shown])
  expected = np.stack([made.picture(episode, t) for t in shown]).astype(int)
  pictures = steps["observation"]["images"]
  assert np.abs(np.asarray(pictures["top"]).astype(int) - expected).max() <= NEAR
  assert set(pictures) == ({"top", "wrist"} if v3 else {"top"})
  if v3:  # embedded PNG files, kept as they are
    assert pictures["wrist"].encoded(0)[:4] == b"\x89PNG"
    assert np.array_equal(np.asarray(pictures["wrist"]), expected[:, :16, :16])
    assert steps["next.success"].tolist() == [t == length - 1 and episode == 0 for t in shown]
  tasks = {0: "push the block", 1: "push the block; lift the block", 2: "lift the block"}
  assert metadata == {"episode_index": episode, "task": tasks[episode]} | ({"success": episode == 0} if v3 else {})
  assert split == "train"


def test_metadata_says_what_is_known_and_what_was_made_up():
  old, new = (lerobot.open(FIXTURES / version).metadata for version in VERSIONS)
  assert (old["fps"], old["robot_type"], old["action_names"]) == (10, "toy", ["x", "y"])
  assert old["reward"].startswith("filled with 0")
  assert old["ends"].startswith("all episodes were cut")
  assert new["reward"].startswith("recorded")
  assert new["ends"] == "next.done"
  assert lerobot.open(FIXTURES / "lerobot_v30").name == "lerobot_v30"


@pytest.mark.parametrize("version", VERSIONS)
def test_any_process_reads_any_episode_in_any_order(version):
  source = pickle.loads(pickle.dumps(lerobot.open(FIXTURES / version)))
  last, first, again = source[2], source[0], source[2]
  assert np.array_equal(last.steps["observation"]["state"], again.steps["observation"]["state"])
  assert np.array_equal(
    last.steps["observation"]["images"]["top"].data, again.steps["observation"]["images"]["top"].data
  )
  assert first.steps["observation"]["state"][1].tolist() == [1, 0]


def test_splits_of_info_are_kept_and_what_is_in_none_is_counted(copy):
  root = copy("lerobot_v21")
  edit_info(root, splits={"train": "0:1", "val": "2:3"})
  source = lerobot.open(root)
  assert [source[i].split for i in range(len(source))] == ["train", "val"]
  assert source[1].metadata["episode_index"] == 2
  assert source.metadata["left_out"] == 1
  edit_info(root, splits={"train": "0:2", "val": "1:3"})
  with pytest.raises(ValueError, match=r"info\.json: splits 'train' and 'val' share episodes"):
    lerobot.open(root)
  edit_info(root, splits={"train": "all"})
  with pytest.raises(ValueError, match="split 'train' is 'all'; expected a range"):
    lerobot.open(root)


def test_cameras_and_sizes_are_chosen():
  source = lerobot.open(FIXTURES / "lerobot_v30", cameras=(VIDEO,), crop=(0, 0, 16, 8), resize=(8, 4), encoding="png")
  pictures = source[0].steps["observation"]["images"]
  assert list(pictures) == ["top"]
  assert pictures["top"].shape == (9, 4, 8, 3)
  assert pictures["top"].encoded(0)[:4] == b"\x89PNG"
  with pytest.raises(ValueError, match=r"no camera 'front'; there are observation\.images\.top, obs"):
    lerobot.open(FIXTURES / "lerobot_v30", cameras="front")
  without = lerobot.open(FIXTURES / "lerobot_v21", cameras=())
  assert list(without[0].steps["observation"]) == ["state"]


def test_done_can_be_ignored():
  steps = lerobot.open(FIXTURES / "lerobot_v30", done="ignore")[0].steps
  assert len(steps["reward"]) == made.LENGTHS[0]
  assert not steps["is_terminal"].any()


def test_done_before_the_last_row_is_refused(copy):
  root = copy("lerobot_v30")
  path = root / "data/chunk-000/file-000.parquet"
  table = pq.read_table(path)
  done = table["next.done"].to_pylist()
  done[3] = True
  table = table.set_column(table.column_names.index("next.done"), "next.done", pa.array(done))
  pq.write_table(table, path)
  with pytest.raises(ValueError, match=r"file-000.parquet: episode 0, row 3: column 'next.done' .* done='ignore'"):
    lerobot.open(root)[0]
  # All episodes are in one row group now, as in datasets that were converted from v2.1.
  assert lerobot.open(root)[2].steps["observation"]["state"][:, 1].tolist() == [20.0] * 10


def test_a_wrong_or_missing_frame_is_refused(copy):
  root = copy("lerobot_v21")
  video = root / f"videos/chunk-000/{VIDEO}/episode_000001.mp4"
  shutil.copy(video.with_name("episode_000000.mp4"), video)  # 8 frames where 9 are needed
  with pytest.raises(ValueError, match=r"episode_000001\.mp4: no frame at 0\.8000 s .*the video ends before"):
    lerobot.open(root)[1]
  edit_rows(root, 2, lambda rows: rows | {"timestamp": [t + 0.05 for t in rows["timestamp"]]})
  with pytest.raises(ValueError, match=r"no frame at 0\.0500 s .*the next frame is at 0\.1000 s"):
    lerobot.open(root)[2]
  assert len(lerobot.open(root, tolerance=0.06)[2].steps["reward"]) == 10
  video.write_bytes(video.read_bytes()[:300])
  with pytest.raises(ValueError, match=r"episode_000001\.mp4: "):
    lerobot.open(root)[1]
  video.unlink()
  with pytest.raises(FileNotFoundError, match=r"episode_000001\.mp4"):
    lerobot.open(root)[1]


def test_damaged_rows_name_file_row_and_column(copy):
  root = copy("lerobot_v21")
  cases = [
    (lambda r: r | {"timestamp": [*r["timestamp"][:3], 0.1, *r["timestamp"][4:]]}, "row 3: column 'timestamp'"),
    (lambda r: r | {"frame_index": [0, 1, 2, 4, 5, 6, 7, 8]}, "row 3: column 'frame_index'"),
    (lambda r: r | {"task_index": [7] * 8}, "column 'task_index' has 7, which meta/ has no text for"),
    (lambda r: r | {"action": [None, *r["action"][1:]]}, "row 0: column 'action' has no value"),
    (lambda r: r | {"action": [*r["action"][:5], [1.0], *r["action"][6:]]}, "row 5: column 'action' has a list"),
    (lambda r: r | {"action": [[1.0]] * 8}, "column 'action' has 8 values, meta/info.json says shape [2]"),
    (lambda r: r | {"action": ["left"] * 8}, "column 'action' is string; expected numbers"),
    (lambda r: {k: v[:-1] for k, v in r.items()}, "has 7 rows, meta/ says 8"),
    (lambda r: {k: v for k, v in r.items() if k != "action"}, "no column 'action'; there are"),
  ]
  original = (root / "data/chunk-000/episode_000000.parquet").read_bytes()
  for change, message in cases:
    (root / "data/chunk-000/episode_000000.parquet").write_bytes(original)
    edit_rows(root, 0, change)
    with pytest.raises(ValueError) as error:  # noqa: PT011
      lerobot.open(root)[0]
    assert message in str(error.value)
    assert "episode_000000.parquet" in str(error.value)
  (root / "data/chunk-000/episode_000000.parquet").write_bytes(original[:700])
  with pytest.raises(ValueError, match=r"episode_000000\.parquet: no Parquet file"):
    lerobot.open(root)[0]


def test_damaged_metadata_name_the_file_and_field(copy):
  root = copy("lerobot_v21")
  info = json.loads((root / "meta" / "info.json").read_text())
  cases = [
    ({"codebase_version": "v1.6"}, "codebase_version is 'v1.6'"),
    ({"fps": 0}, "field 'fps' is 0"),
    ({"chunks_size": 0}, "field 'chunks_size' is 0"),
    ({"data_path": "../{episode_index}"}, "field 'data_path' is '../{episode_index}', which leads out"),
    ({"data_path": "{episode_index.__class__}"}, "field 'data_path' is '{episode_index.__class__}'"),
    ({"features": {"action": {"dtype": "float32", "shape": [-1]}}}, "feature 'action' has no shape"),
    ({"features": {k: v for k, v in info["features"].items() if k != "action"}}, "no feature 'action'"),
  ]
  for change, message in cases:
    (root / "meta" / "info.json").write_text(json.dumps(info | change))
    with pytest.raises(ValueError) as error:  # noqa: PT011
      lerobot.open(root)
    assert message in str(error.value)
    assert "info.json" in str(error.value)
  (root / "meta" / "info.json").write_text(json.dumps(info))
  episodes = root / "meta" / "episodes.jsonl"
  episodes.write_text("".join(episodes.read_text().splitlines(keepends=True)[:2]))
  with pytest.raises(ValueError, match=r"info\.json: total_episodes is 3, but .*meta lists 2: an incomplete copy"):
    lerobot.open(root)
  episodes.write_bytes(b'{"episode_index": 0, "length": "\xff"}\n')
  with pytest.raises(ValueError, match=r"episodes\.jsonl, line 1: no JSON: 'utf-8' codec"):
    lerobot.open(root)
  (root / "meta" / "episodes.jsonl").write_text('{"episode_index": 0, "length": 8}\n{"episode_index": 1\n')
  with pytest.raises(ValueError, match=r"episodes\.jsonl, line 2: no JSON"):
    lerobot.open(root)
  (root / "meta" / "episodes.jsonl").write_text('{"episode_index": 0, "length": "8"}\n')
  with pytest.raises(ValueError, match=r"episodes\.jsonl, line 1: field 'length' is '8'"):
    lerobot.open(root)
  with pytest.raises(FileNotFoundError, match="is no LeRobot dataset"):
    lerobot.open(root / "meta")


@pytest.mark.parametrize("version", VERSIONS)
def test_it_becomes_an_rlds_dataset(version, tmp_path):
  path = write.write(lerobot.open(FIXTURES / version), tmp_path, name="tiny")
  episodes = rlds.load(path)
  assert episodes.num_episodes == 3
  assert episodes.num_transitions == sum(made.LENGTHS) - (1 if version == "lerobot_v30" else 3)
  assert np.asarray(episodes.observation["images"]["top"]).shape == (episodes.num_steps, 32, 32, 3)
  found = list(rlds.read_episodes(rlds.read_info(path), "train"))
  texts = found[1][2]["steps"]["language_instruction"]
  assert [text if isinstance(text, str) else text.decode() for text in texts[:5]] == [made.task(1, t) for t in range(5)]
