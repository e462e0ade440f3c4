import importlib
import sys

import numpy as np
import pyarrow
import pytest

import ilx
from ilx.data import images, rlds
from ilx.data.features import Feature
from ilx.data.table import _rank, _return, query, select, subset, table

# By its name, which a function of the same name may hide in the package.
table_lib = importlib.import_module("ilx.data.table")
_REWARDS = {"train": ([1.0, 2.0, 4.0], [5.0], [3.0, 4.0]), "val": ([0.5, 0.5],)}


def _record(root, metadata=None):
  """Four episodes in two splits; (split, number) gives the metadata."""
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(root, name="fake", metadata={}, episodes_per_shard=2) as recorder:
    for split, episodes in _REWARDS.items():
      for number, reward in enumerate(episodes):
        steps = len(reward) + 1
        observation = {"state": rng.standard_normal((steps, 2))}
        episode = ilx.data.episode(observation, rng.standard_normal((steps - 1, 1)), reward, terminal=number == 1)
        episode["reward"][-1] = 1000.0  # carries no meaning
        recorder.add(episode, metadata=metadata(split, number) if metadata else None, split=split)
  return rlds.read_info(recorder.path)


def _annotated(split, number):
  return {
    "success": number != 1,
    "level": number,
    "score": [0.25, float("nan"), 0.5][number],
    "player": ["ada", "", "Grüße"][number],
    "Length": 7,
    "name": f"{split}{number}",
    "goal": np.zeros(3, np.float32),
  }


def test_by_hand(tmp_path):
  found = table(_record(tmp_path, _annotated))
  assert found.column_names[:8] == list(table_lib._OWN)
  rows = found.to_pydict()
  assert rows["split"] == ["train"] * 3 + ["val"]
  assert rows["file"] == [f"fake-train.array_record-0000{i}-of-00002" for i in (0, 0, 1)] + [
    "fake-val.array_record-00000-of-00001"
  ]
  assert rows["index"] == [0, 1, 0, 0]
  assert rows["episode"] == [0, 1, 2, 3]
  assert rows["length"] == [3, 1, 2, 2]
  assert rows["episode_return"] == [7.0, 5.0, 7.0, 1.0]
  assert rows["return_rank"] == [1, 3, 1, 4]
  assert rows["is_terminal"] == [False, True, False, False]
  assert rows["success"] == [True, False, True, True]
  assert rows["level"] == [0, 1, 2, 0]
  assert rows["score"] == [0.25, None, 0.5, 0.25]  # NaN is what nobody knows
  assert rows["player"] == ["ada", "", "Grüße", "ada"]
  assert rows["stored_Length"] == [7] * 4  # in SQL it would be the same name as length
  assert rows["name"] == ["train0", "train1", "train2", "val0"]
  assert "goal" not in rows
  assert found.schema.field("success").type == pyarrow.bool_()
  assert found.schema.field("level").type == pyarrow.int64()


def _kept(info):
  return sorted(info.directory.glob(".ilx/*/episodes-*[!k]"))


def test_it_is_kept(tmp_path, monkeypatch):
  info = _record(tmp_path, _annotated)
  made = {split: table(info, split) for split in ("all", "train", "train[1:]")}
  assert len(_kept(info)) == 3
  monkeypatch.setattr(table_lib, "_build", lambda *_: pytest.fail("read again"))
  for split, rows in made.items():
    assert table(info, split).equals(rows)
  assert table(info, "train+val").equals(made["all"])  # the same episodes in the same order
  assert select(info, "length > 1", "train").tolist() == [0, 2]


@pytest.mark.parametrize("damage", ["cut", "changed", "another"])
def test_a_kept_one_that_is_damaged_is_made_anew(tmp_path, damage):
  info = _record(tmp_path, _annotated)
  whole, part = table(info), table(info, "val")
  kept = {path.stat().st_size: path for path in _kept(info)}
  small, large = (kept[size].read_bytes() for size in sorted(kept))
  path = kept[max(kept)]
  place = large.index(b"fake-train")
  path.write_bytes({"cut": large[:-9], "changed": large[:place] + b"x" + large[place + 1 :], "another": small}[damage])
  with pytest.warns(UserWarning, match=f"{path.name} is damaged and made anew"):
    assert table(info).equals(whole)
  assert table(info).equals(whole)
  assert table(info, "val").equals(part)


def test_names_of_classes_may_change(tmp_path):
  info = _record(tmp_path, _annotated)

  def named(*names):
    label = Feature("label", (), np.dtype(np.int64), num_classes=3, names=names)
    inside = info.features["episode_metadata"] | {"level": label}
    return info._replace(features=info.features | {"episode_metadata": inside})

  assert table(named("a", "b", "c"), "train").column("level").to_pylist() == ["a", "b", "c"]
  assert table(named("b", "a", "c"), "train").column("level").to_pylist() == ["b", "a", "c"]


def test_another_state_of_the_dataset_has_another_one(tmp_path):
  info = _record(tmp_path)
  table(info)
  info.splits["train"].files[0].touch()
  assert table(info).num_rows == 4
  assert len({path.parent for path in _kept(info)}) == 2


def test_a_part_of_a_split_and_no_metadata(tmp_path):
  info = _record(tmp_path)
  found = table(info, "val+train[1:]")
  assert found.column_names == list(table_lib._OWN)
  rows = found.to_pydict()
  assert rows["split"] == ["val", "train", "train"]
  assert rows["episode"] == [0, 1, 2]
  assert rows["index"] == [0, 1, 0]
  assert rows["episode_return"] == ilx.data.returns(ilx.data.load(info.directory, "val+train[1:]")).tolist()
  with pytest.raises(ValueError, match="no split 'test'"):
    table(info, "test")


def test_query(tmp_path):
  info = _record(tmp_path, _annotated)
  found = query(
    info, 'SELECT split, sum(length)::INT AS steps, max("name") AS last FROM episodes GROUP BY 1 ORDER BY 1'
  )
  assert found.to_pylist() == [
    {"split": "train", "steps": 6, "last": "train2"},
    {"split": "val", "steps": 2, "last": "val0"},
  ]
  assert query(table(info), "FROM episodes WHERE player = 'Grüße'").column("level").to_pylist() == [2]
  assert query(info, "SELECT count(*) AS n FROM episodes", split="train[:2]").to_pydict() == {"n": [2]}
  assert query(info, "SELECT * FROM episodes WHERE length > 99").num_rows == 0


@pytest.mark.parametrize(
  ("sql", "message"),
  [
    ("SELEC 1", 'syntax error at or near "SELEC"'),
    ("SELECT succes FROM episodes", '(?s)"succes" not found.*columns split, file, .*success'),
    ("SELECT 1; SELECT 2", "expected one SELECT"),
    ("", "expected one SELECT"),
    ("CREATE TABLE x AS SELECT 1", "expected one SELECT"),
    ("SELECT 'a'::INT", "Could not convert"),
  ],
)
def test_wrong_sql_is_said_clearly(tmp_path, sql, message):
  with pytest.raises(ValueError, match=message):
    query(_record(tmp_path, _annotated), sql)


@pytest.fixture
def rows():
  return pyarrow.table({"episode": [0, 1]})


_FORBIDDEN = [
  "SELECT * FROM read_csv('{file}')",
  "SELECT * FROM read_text('{file}')",
  "SELECT * FROM '{file}'",
  "SELECT * FROM glob('{folder}/*')",
  "SELECT * FROM read_parquet('https://example.com/x.parquet')",
  "SELECT * FROM rows",  # a variable of ours
  "COPY episodes TO '{folder}/copy.csv'",
  "EXPORT DATABASE '{folder}/export'",
  "ATTACH '{folder}/other.db'",
  "INSTALL httpfs",
  "LOAD httpfs",
  "SET enable_external_access=true",
  "SET temp_directory='{folder}'",
]


@pytest.mark.parametrize("sql", _FORBIDDEN)
def test_sql_sees_nothing_but_the_table(tmp_path, rows, sql):
  import duckdb

  file = tmp_path / "secret.csv"
  file.write_text("x\nsecret\n")
  before = sorted(tmp_path.iterdir())
  sql = sql.format(file=file, folder=tmp_path)
  with pytest.raises(ValueError, match="SQL: "):
    query(rows, sql)
  # Not only since it is no SELECT.
  connection = table_lib.connect(rows)
  with pytest.raises(duckdb.Error, match=r"disabled|locked|does not exist"):
    connection.execute(sql).fetchall()
  connection.close()
  assert sorted(tmp_path.iterdir()) == before


def test_select_and_subset(tmp_path):
  info = _record(tmp_path, _annotated)
  assert select(info, "success AND length > 2").tolist() == [0]
  assert select(info, "level >= 0 ORDER BY episode_return LIMIT 2").tolist() == [0, 1]
  assert select(info, "success", split="val+train").tolist() == [0, 1, 3]
  assert select(info, "length > 50").tolist() == []
  with pytest.raises(ValueError, match="expected one SELECT"):
    select(info, "true; DROP TABLE episodes")
  data = ilx.data.load(info.directory)
  numbers = select(info, "success")
  chosen = subset(data, numbers)
  assert numbers.tolist() == [0, 2]
  assert chosen.starts.tolist() == [0, 4, 7]
  np.testing.assert_array_equal(chosen.observation["state"], data.observation["state"][[0, 1, 2, 3, 6, 7, 8]])
  np.testing.assert_array_equal(ilx.data.returns(chosen), ilx.data.returns(data)[numbers])
  assert chosen.rows.tolist() == [0, 1, 2, 4, 5]
  backwards = subset(data, [2, 0])
  np.testing.assert_array_equal(backwards.action[:3], data.action[6:9])


def test_a_return_that_is_no_number_is_null_and_has_no_rank():
  returns = [_return(np.array([reward, 1.0, 0.0])) for reward in (np.nan, 3.0, np.inf, 1.0, 3.0)]
  assert returns == [None, 4.0, None, 2.0, 4.0]
  assert _rank(returns) == [None, 1, None, 3, 1]


def test_a_subset_keeps_pictures_encoded(tmp_path):
  data = ilx.data.load(_record(tmp_path).directory)
  pictures = images.Images.of([bytes([i]) * (i + 1) for i in range(9)], (4, 4, 3))
  extras = {"task": np.arange(9)}
  chosen = subset(data.replace(observation={"camera": pictures}, extras=extras), [1, 2])
  camera = chosen.observation["camera"]
  assert isinstance(camera, images.Images)
  assert [camera.encoded(i) for i in range(5)] == [bytes([i]) * (i + 1) for i in range(4, 9)]
  assert chosen.extras["task"].tolist() == [4, 5, 6, 7, 8]


def test_subsets_that_cannot_be(tmp_path):
  data = ilx.data.load(_record(tmp_path).directory)
  with pytest.raises(ValueError, match="no episode is chosen"):
    subset(data, [])
  for numbers in (np.array([False, True, True]), np.array([1.9]), np.array([[1]])):
    with pytest.raises(ValueError, match=r"numbers are .*; expected integers \[n\]"):
      subset(data, numbers)
  for number in (-1, 3):
    with pytest.raises(ValueError, match=r"chosen are (-1 to 0|0 to 3) of 3"):
      subset(data, [0, number])
  with pytest.raises(ValueError, match="narrowed or weighted"):
    subset(data.replace(rows=data.rows[1:]), [0])


def test_names_of_columns(tmp_path):
  number, text = Feature("tensor", (), np.dtype(np.float32)), Feature("text", (), np.dtype(object))
  metadata = {
    "agent": {"level": number},
    "INDEX": number,
    "Team": text,
    "team": text,
    "vector": Feature("tensor", (3,), number.dtype),
  }
  info = _record(tmp_path)
  info = info._replace(features=info.features | {"episode_metadata": metadata, "id": text, "file": text})
  assert dict(table_lib._stored_fields(info)) == {
    "agent/level": "episode_metadata/agent/level",
    "stored_INDEX": "episode_metadata/INDEX",
    "Team": "episode_metadata/Team",
    "stored_team": "episode_metadata/team",
    "id": "id",
    "stored_file": "file",
  }


def test_labels_and_text_that_is_none():
  label = Feature("label", (), np.dtype(np.int64), num_classes=2, names=("push", "pull"))
  assert [table_lib._scalar(np.int64(i), label) for i in (0, 1, -1)] == ["push", "pull", None]
  assert table_lib._scalar(b"\xffa", Feature("text", (), np.dtype(object))) == r"\xffa"


@pytest.mark.parametrize("name", ["pyarrow", "duckdb"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, rows, name):
  info = _record(tmp_path)
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ImportError, match=rf'{name}: pip install "ilx\[data\]"'):
    query(info, "FROM episodes")


def test_others_metadata(shared_data):
  info = rlds.read_info(rlds.resolve(shared_data / "rlds" / "bridge_dataset"))
  found = table(info)
  assert found.num_rows == 50
  rows = query(found, "SELECT split, count(*) AS n, min(length) AS least FROM episodes GROUP BY 1")
  assert sorted(map(tuple, (row.values() for row in rows.to_pylist()))) == [("train", 25, 9), ("val", 25, 9)]
  assert {row["file_path"].rsplit("/", 1)[1] for row in found.to_pylist()} == {"out.npy"}
  assert 0 < len(select(info, "file_path LIKE '%sink%' AND has_language")) <= 25
