import json

import pytest

from ilx.data.convert import layouts
from ilx.data.convert.layouts import Layout

CS285 = {"meta", "observations", "actions", "rewards", "next_observations", "terminals", "episode_lengths"}
ILPYT = {"meta", "observations", "actions", "rewards", "dones", "episode_lengths"}
IMITATION = {"obs", "acts", "rews", "terminal", "indices"}
SB2 = {"obs", "actions", "rewards", "episode_starts", "episode_returns"}
DAPG = {"observations", "actions", "rewards", "episode_lengths", "init_qpos", "init_qvel"}
D4RL = {"observations", "actions", "rewards", "terminals", "timeouts"}
OFFLINE = D4RL | {"episode_lengths", "episode_returns", "final_observations", "episode_policy"}
FOUND = {
  "cs285": CS285,
  "ilpyt": ILPYT,
  "imitation": IMITATION,
  "sb2": SB2,
  "dapg": DAPG,
  "d4rl": D4RL,
  "offline": OFFLINE,
}


@pytest.mark.parametrize("name", layouts.PRESETS)
def test_auto_finds_the_preset(name):
  assert layouts.resolve("auto", FOUND[name], "a.npz") is layouts.PRESETS[name]
  assert layouts.resolve(name, FOUND[name], "a.npz") is layouts.PRESETS[name]


def test_auto_does_not_guess():
  with pytest.raises(ValueError, match=r"a\.npz: with observations, things fits no preset"):
    layouts.resolve("auto", ["observations", "things"], "a.npz")
  with pytest.raises(ValueError, match=r"a\.npz: fits cs285 and d4rl; name the preset"):
    layouts.resolve("auto", CS285 | D4RL, "a.npz")
  # lengths alone do not say how the episodes ended
  with pytest.raises(ValueError, match="fits no preset"):
    layouts.resolve("auto", ["observations", "actions", "rewards", "episode_lengths"], "a.npz")


def test_unknown_names_come_with_the_nearest():
  with pytest.raises(ValueError, match=r"preset 'imitaton' is unknown \(did you mean 'imitation'\?\)"):
    layouts.resolve("imitaton", IMITATION, "a.npz")
  with pytest.raises(ValueError, match=r"a\.npz: no array 'rewards' \(did you mean 'reward'\?\); the file has"):
    layouts.resolve("ilpyt", (ILPYT - {"rewards"}) | {"reward"}, "a.npz")


@pytest.mark.parametrize("preset", ["auto", "ilpyt", "offline"])
def test_no_observations(preset):
  with pytest.raises(ValueError, match=r"a\.npz: has no observations \(only actions, lives, meta, rewards\); play its"):
    layouts.resolve(preset, ["actions", "lives", "meta", "rewards"], "a.npz")


def test_a_layout_from_json(tmp_path):
  path = tmp_path / "layout.json"
  fields = {"observation": "o", "action": "a", "reward": "r", "stops": ["end", "cut"], "terminal": "end"}
  path.write_text(json.dumps(fields))
  expected = Layout("o", "a", "r", stops=("end", "cut"), terminal="end")
  assert layouts.resolve(str(path), ["o", "a", "r", "end", "cut"], "a.npz") == expected
  assert expected.arrays() == ["o", "a", "r", "end", "cut"]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"observatoin": "o"}, r"layout has no field 'observatoin' \(did you mean 'observation'\?\)"),
    ({"stops": "end"}, "field 'stops' is 'end'; expected a list of names"),
    ({"terminal": 3}, "field 'terminal' is 3; expected str"),
    ({"stacked": "yes"}, "field 'stacked' is 'yes'; expected bool"),
    ({"ends": "sometimes"}, "ends is 'sometimes'; expected"),
    ({"reward": None}, "field 'reward' is None"),
    ({"terminal": "x", "stops": []}, "nothing tells episodes apart"),
    ({"next_observation": "n", "extra_observation": True}, "give one of next_observation"),
  ],
)
def test_a_json_layout_that_is_none(tmp_path, change, message):
  path = tmp_path / "layout.json"
  path.write_text(
    json.dumps({"observation": "o", "action": "a", "reward": "r", "stops": ["e"], "terminal": "e"} | change)
  )
  with pytest.raises(ValueError, match=message):
    layouts.from_json(path)


def test_json_that_is_no_layout(tmp_path):
  path = tmp_path / "layout.json"
  for text, message in [
    ("{", "not JSON"),
    ("[]", "expected a JSON object"),
    ('{"action": "a"}', "lacks field 'observation'"),
  ]:
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
      layouts.from_json(path)


def test_flags_need_a_name():
  with pytest.raises(ValueError, match="ends='flags' needs the name of the array in terminal"):
    Layout("o", "a", "r", lengths="n")
