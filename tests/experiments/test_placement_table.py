"""--explain_placement: where parameters would be, and nothing there."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

import ilx
from experiments import placement, run
from experiments.configs import bc_transformer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(tmp_path_factory.mktemp("data"), name="made-up", metadata={}) as recorder:
    for length in (20, 25):
      observation = rng.normal(size=(length + 1, 4)).astype(np.float32)
      recorder.add(ilx.data.episode(observation, (observation[:-1, 2] > 0).astype(int), np.ones(length), terminal=True))
  return recorder.path


def _config(dataset, **changes):
  config = bc_transformer.get_config()
  config.update(dataset=str(dataset), split="train", env_id="none", batch_size=16)
  config.agent.update(layers=1, width=256, heads=4, length=4)
  config.update_from_flattened_dict(changes)
  return config


def _printed(config, **options):
  file = io.StringIO()
  placement.explain(config, Console(file=file, **options))
  return file.getvalue()


@pytest.fixture(scope="module")
def printed(dataset):
  return _printed(_config(dataset, **{"mesh.fsdp": 4, "mesh.tensor": 2}))


def test_a_row_for_every_parameter_and_totals(printed):
  lines = printed.splitlines()
  assert lines[1] == "mesh: data=1 x fsdp=4 x tensor=2; a batch of 16"
  rows = {line.split()[0]: re.split(r"  +", line)[1:] for line in lines if line.startswith("params/")}
  layers = "params/network/params/transformer/layers"
  assert rows[f"{layers}/mlp/up/kernel"] == ["1 x 256 x 1024", "float32", "-, fsdp, tensor", str(f"{2**17:,}")]
  assert rows[f"{layers}/attention/qkv/bias"] == ["1 x 4 x 3 x 64", "float32", "-, tensor, -, -", "1,536"]
  assert rows[f"{layers}/mlp_norm/scale"] == ["1 x 256", "float32", "whole", "1,024"]
  assert sum(line.startswith("optimizer/") for line in lines) == 0
  held = sum(int(row[-1].replace(",", "")) for row in rows.values())
  assert f"params: {held / 1024:.1f} KiB a device, of " in printed
  assert re.search(r"optimizer: [\d.]+ KiB a device, of [\d,]+ numbers\nrest: 12 B a device, of 2 numbers\n", printed)


def test_the_memory_of_the_update_is_that_of_its_parts(printed):
  def size(text):
    number, unit = text.split()
    return float(number.replace(",", "")) * {"B": 1, "KiB": 1024, "MiB": 1024**2}[unit]

  found = re.search(
    r"updates: (.*) a device: the state, (.*) of data, (.*) of intermediate values, as compiled for cpu\n$", printed
  )
  state = re.search(r"^state: (.*) a device$", printed, re.MULTILINE)[1]
  assert size(found[1]) == pytest.approx(size(state) + size(found[2]) + size(found[3]), rel=0.05)
  assert size(found[3]) > 0


def test_a_terminal_has_a_table_of_what_would_fit_into_no_machine_of_ours(dataset):
  text = _printed(_config(dataset, **{"mesh.fsdp": 8, "agent.width": 2**16}), force_terminal=True, width=150)
  assert "\x1b[" in text
  assert "mlp/up/kernel" in text
  assert re.search(r"state: 7\d\.\d GiB a device", text)


def test_a_mesh_that_is_not_there_is_an_error_before_any_data_is_read(tmp_path):
  for explained in (lambda config: placement.explain(config), lambda config: run.run(config, tmp_path / "run")):
    with pytest.raises(ValueError, match="data=-1 x fsdp=3 x tensor=1 is not the number of devices, 8"):
      explained(_config(tmp_path / "missing", **{"mesh.fsdp": 3}))


def test_a_run_goes_on_with_another_mesh_but_not_with_another_batch(dataset, tmp_path):
  config = _config(dataset)
  run.logs.write_json(tmp_path / "config.json", config.to_dict())
  (tmp_path / "result.json").touch()
  run.check_config(_config(dataset, **{"mesh.fsdp": 2, "mesh.tensor": 2, "mesh.data": 2}), tmp_path)
  with pytest.raises(ValueError, match=r"config.batch_size: 16 there, 32 now"):
    run.check_config(_config(dataset, **{"mesh.fsdp": 2, "batch_size": 32}), tmp_path)


def test_sizes():
  assert [placement.size_of(n) for n in (0, 1023, 1536, 3 << 30)] == ["0 B", "1,023 B", "1.5 KiB", "3.0 GiB"]
