"""Which fields become which columns."""

import io
import itertools

import jax
import numpy as np
import pytest
from PIL import Image
from test_rlds import FLOAT, TREE, make, write

import ilx.data
from ilx.data import rlds
from ilx.data.features import Feature, Sequence
from ilx.data.images import Images
from ilx.data.rlds import Selection

_INT, _UINT8, _OBJECT = (np.dtype(x) for x in (np.int64, np.uint8, object))
_STEPS = 4


def _pictures(seed, kind="PNG"):
  pixels = np.random.default_rng(seed).integers(0, 256, (_STEPS, 6, 5, 3), np.uint8)
  contents = []
  for picture in pixels:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    contents.append(file.getvalue())
  return pixels, contents


def _record(seed):
  record = make(seed=seed)
  state = record.pop("steps/observation")
  action = record.pop("steps/action")
  return record | {
    "steps/observation/state": state,
    "steps/observation/cameras/left": _pictures(seed)[1],
    "steps/observation/cameras/right": _pictures(seed + 10)[1],
    "steps/observation/note": [b"a"] * _STEPS,
    "steps/observation/tokens/ragged_flat_values": np.arange(_STEPS),
    "steps/observation/tokens/ragged_row_lengths_0": np.ones(_STEPS, int),
    "steps/action/arm": action,
    "steps/action/grip": np.arange(_STEPS) * 1000,
    "steps/embedding": np.arange(_STEPS * 3, dtype=np.float32),
    "steps/info/count": np.arange(_STEPS),
    "steps/info/pairs/ragged_flat_values": np.arange(_STEPS * 2, dtype=np.float32),
    "steps/info/pairs/ragged_row_lengths_0": np.full(_STEPS, 2),
  }


_TREE = {name: feature for name, feature in TREE.items() if name not in ("observation", "action")} | {
  "observation": {
    "state": Feature("tensor", (4,), FLOAT),
    "cameras": {name: Feature("image", (6, 5, 3), _UINT8, "png") for name in ("left", "right")},
    "note": Feature("text", (), _OBJECT),
    "tokens": Sequence(Feature("tensor", (), _INT)),
  },
  "action": {"arm": Feature("tensor", (2,), FLOAT), "grip": Feature("tensor", (), _INT)},
  "embedding": Feature("tensor", (3,), FLOAT),
  "info": {"count": Feature("tensor", (), _INT), "pairs": Sequence(Feature("tensor", (), FLOAT), 2)},
  "strange": Feature("text", (), _OBJECT),
}


@pytest.fixture
def folder(tmp_path):
  return write(tmp_path, [_record(seed) for seed in range(3)], _TREE, lengths=[2, 1])


def _load(folder, **selection):
  return ilx.data.load(folder, selection=Selection(**selection))


def _shapes(tree):
  return jax.tree.map(lambda x: (x.shape, x.dtype.name), tree)


def test_everything_by_default(folder):
  found = _load(folder)
  picture = ((12, 6, 5, 3), "uint8")
  assert _shapes(found.observation) == {"cameras": {"left": picture, "right": picture}, "state": ((12, 4), "float32")}
  assert _shapes(found.action) == {"arm": ((12, 2), "float32"), "grip": ((12,), "int32")}
  assert found.extras == {}
  np.testing.assert_array_equal(found.observation["cameras"]["left"][4:8], _pictures(1)[0])
  np.testing.assert_array_equal(found.action["grip"], np.tile(np.arange(4) * 1000, 3))


def test_one_observation_and_one_action(folder):
  found = _load(folder, observation="observation/state", action="action/arm")
  np.testing.assert_array_equal(found.observation[:4], _record(0)["steps/observation/state"])
  np.testing.assert_array_equal(found.action[:4], _record(0)["steps/action/arm"])


def test_several_keep_their_folders(folder):
  found = _load(folder, observation=("observation/cameras/right", "observation/state", "embedding"), action=("action",))
  assert _shapes(found.observation) == {
    "cameras": {"right": ((12, 6, 5, 3), "uint8")},
    "embedding": ((12, 3), "float32"),
    "state": ((12, 4), "float32"),
  }
  assert set(found.action) == {"arm", "grip"}


def test_a_folder_as_the_observation(folder):
  assert set(_load(folder, observation="observation/cameras").observation) == {"left", "right"}


def test_extras(folder):
  found = _load(folder, observation="observation/state", extras=("embedding", "info", "observation/cameras/left"))
  assert _shapes(found.extras) == {
    "embedding": ((12, 3), "float32"),
    "info": {"count": ((12,), "int32"), "pairs": ((12, 2), "float32")},
    "observation": {"cameras": {"left": ((12, 6, 5, 3), "uint8")}},
  }
  np.testing.assert_array_equal(found.extras["info"]["pairs"][:4], np.arange(8, dtype=np.float32).reshape(4, 2))


def test_pictures_stay_encoded(folder):
  found = _load(folder, lazy=True)
  left = found.observation["cameras"]["left"]
  assert isinstance(left, Images) and left.shape == (12, 6, 5, 3)
  assert left.nbytes < 5000
  np.testing.assert_array_equal(left[4:8], _pictures(1)[0])
  np.testing.assert_array_equal(left, _load(folder).observation["cameras"]["left"])


def test_only_what_is_chosen_is_decoded(tmp_path):
  record = _record(0)
  record["steps/observation/cameras/left"] = [b"damaged"] * _STEPS
  folder = write(tmp_path, [record], _TREE)
  _load(folder, observation=("observation/cameras/right", "observation/state"))
  with pytest.raises(ValueError, match="cameras/left', step 0: no PNG or JPEG file"):
    _load(folder)


@pytest.mark.parametrize("lazy", [False, True])
def test_pictures_of_an_open_size_are_as_in_the_first_episode(tmp_path, lazy):
  tree = TREE | {"observation": Feature("image", (None, None, 3), _UINT8, "png")}
  records = [make(seed=seed) | {"steps/observation": _pictures(seed)[1]} for seed in range(2)]
  found = _load(write(tmp_path / "a", records, tree), lazy=lazy)
  np.testing.assert_array_equal(found.observation[4:], _pictures(1)[0])
  file = io.BytesIO()
  Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(file, "PNG")
  records[1]["steps/observation"] = [file.getvalue()] * _STEPS
  with pytest.raises(ValueError, match=r"episode 1 .*'steps/observation' has shape \[9, 9, 3\], but \[6, 5, 3\]"):
    _load(write(tmp_path / "b", records, tree), lazy=lazy)


def _lacking(tmp_path, *names):
  tree = {name: feature for name, feature in TREE.items() if name not in names}
  record = {name: value for name, value in make().items() if name.split("/")[1] not in names}
  return write(tmp_path, [record, record], tree)


def test_missing_fields_are_filled_in(tmp_path):
  folder = _lacking(tmp_path, "reward", "discount", "is_first", "is_last", "is_terminal")
  found = _load(folder, fill=(("reward", 2.5), ("discount", 0.5), ("is_terminal", True)))
  np.testing.assert_array_equal(found.reward, np.full(8, 2.5, np.float32))
  np.testing.assert_array_equal(found.discount, np.full(8, 0.5, np.float32))
  assert found.is_terminal.tolist() == [False, False, False, True] * 2
  assert not _load(folder, fill=(("reward", 0), ("is_terminal", False))).is_terminal.any()
  with pytest.raises(ValueError, match=r"'steps/reward' is missing; .*Selection\(fill=\(\('reward', 0.0\),\)\)"):
    _load(folder)
  with pytest.raises(ValueError, match=r"'steps/is_terminal' is missing; .*\('is_terminal', False\)"):
    _load(folder, fill=(("reward", 0.0),))


def test_what_is_there_is_not_filled_in(tmp_path):
  folder = write(tmp_path, [make()])
  found = _load(folder, fill=(("reward", 9.0), ("is_terminal", False)))
  np.testing.assert_array_equal(found.reward, make()["steps/reward"])
  np.testing.assert_array_equal(found.is_terminal, make()["steps/is_terminal"])


@pytest.mark.parametrize(
  ("selection", "problem"),
  [
    ({"observation": "observation/stat"}, r"no step field 'observation/stat' \(nearest: observation/state"),
    ({"observation": ()}, "Selection.observation names no field"),
    ({"observation": "observation/note"}, "field 'steps/observation/note' is text; expected numbers"),
    ({"observation": "observation/tokens"}, "'steps/observation/tokens' is a Sequence inside a step"),
    ({"extras": ("strange",)}, "field 'steps/strange' is text"),
    ({"extras": ("reword",)}, r"no step field 'reword' \(nearest: reward"),
    ({"action": "observation/cameras/left"}, "'steps/observation/cameras/left' is an image; actions are numbers"),
    ({"observation": ("action/arm", "observation/state"), "action": ("arm",)}, "no step field 'arm'"),
    ({"fill": (("rewards", 1.0),)}, "fill: 'rewards' cannot be filled in"),
    ({"fill": (("reward", float("nan")),)}, "fill: 'reward' is nan"),
  ],
)
def test_errors(folder, selection, problem):
  with pytest.raises(ValueError, match=problem) as error:
    _load(folder, **selection)
  assert "features.json" in str(error.value)


def test_an_unknown_field_hurts_only_where_it_is_used(tmp_path):
  tree = _TREE | {"strange": Feature("tensor", (), FLOAT)}
  folder = write(tmp_path, [_record(0)], tree)
  path = folder / "features.json"
  path.write_text(path.read_text().replace("tensor_feature.Tensor", "odd.Odd", 1))
  assert "odd.Odd" in path.read_text()
  unknown = [leaf for leaf in rlds.decode.leaves(rlds.read_info(folder).features) if leaf.feature.kind == "unknown"]
  assert [leaf.name for leaf in unknown] == ["steps/action/arm"]
  assert _load(folder, action="action/grip").num_steps == _STEPS
  with pytest.raises(ValueError, match=r"'steps/action/arm' cannot be read: it is a .*odd\.Odd"):
    _load(folder)


def test_selections_are_keys():
  a, b = (Selection(observation=("observation/state",), fill=(("reward", 0.0),)) for _ in range(2))
  assert hash(a) == hash(b)
  assert repr(a) == repr(b)


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize("split", ["train[2:7]", "train[-3:]+train[:1]", "train[1shard]", "train[:50%]"])
def test_parts_of_splits(tmp_path, file_format, split):
  lengths = [3, 4, 1]
  folder = write(tmp_path, [make(2 + i, i) for i in range(8)], file_format=file_format, lengths=lengths)
  rows = {
    "train[2:7]": range(2, 7),
    "train[-3:]+train[:1]": [5, 6, 7, 0],
    "train[1shard]": range(3, 7),
    "train[:50%]": range(4),
  }[split]
  found = ilx.data.load(folder, split)
  np.testing.assert_array_equal(found.reward, np.concatenate([make(2 + i, i)["steps/reward"] for i in rows]))
  info = rlds.read_info(folder)
  records = list(rlds.read_records(info, split))
  with rlds.open_split(info, split) as part:
    assert [part[k] for k in range(len(part))] == records
    assert part[-1] == records[-1]
    with pytest.raises(IndexError, match=f"episode {len(rows)} of {len(rows)}"):
      part[len(rows)]
    firsts = list(itertools.accumulate([0, *lengths]))
    for place, (row, (file, number)) in enumerate(zip(rows, map(part.where, range(len(part))), strict=True)):
      shard = info.splits["train"].files.index(file)
      assert firsts[shard] + number == row, place


def test_open_split_keeps_few_files_open_and_survives_pickling(tmp_path, monkeypatch):
  import pickle

  from ilx.data import records

  monkeypatch.setattr(records, "_MAX_OPEN_FILES", 2)
  folder = write(tmp_path, [make(seed=i) for i in range(6)], lengths=[1] * 6)
  part = rlds.open_split(rlds.read_info(folder))
  expected = [part[k] for k in range(6)]
  assert len(part._open) == 2
  other = pickle.loads(pickle.dumps(part))
  assert not other._open
  assert [other[k] for k in range(6)] == expected


def test_a_part_needs_only_its_own_shards(tmp_path):
  folder = write(tmp_path, [make(seed=i) for i in range(4)], lengths=[2, 2])
  first, _ = rlds.read_info(folder).splits["train"].files
  first.unlink()
  assert ilx.data.load(folder, "train[2:]").num_episodes == 2
  with pytest.raises(FileNotFoundError, match=f"{first.name} is missing"):
    ilx.data.load(folder, "train[1:]")
  with pytest.raises(ValueError, match=r"no split 'trian'; there: train; did you mean 'train'\?"):
    ilx.data.load(folder, "trian")
