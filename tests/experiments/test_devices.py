"""Seeds of one program are spread over devices that share a CPU."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from experiments import devices
from experiments.configs import bc
from ilx.training import logs

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
  ("cores", "seeds", "expected"),
  [(1, 10, 1), (2, 1, 1), (2, 2, 2), (2, 10, 2), (2, 5, 5), (2, 11, 1), (4, 10, 5), (4, 6, 6), (16, 10, 10), (3, 8, 4)],
)
def test_all_cores_are_busy_and_devices_few(cores, seeds, expected, monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
  assert devices.of_cpu(seeds) == expected


@pytest.mark.parametrize(
  ("changes", "chosen", "expected"),
  [
    ({"seeds": 6}, {}, 3),
    ({"seeds": 1}, {}, None),
    ({"seeds": 6, "tier": "device"}, {}, None),
    ({"seeds": 6, "mesh.fsdp": 2}, {}, None),
    ({"seeds": 6, "mesh.data": 1}, {}, None),
    ({"seeds": 6}, {"devices": 8}, None),
    ({"seeds": 6}, {"flags": "--xla_force_host_platform_device_count=8"}, None),
  ],
)
def test_what_the_user_chose_stays(changes, chosen, expected, monkeypatch):
  config, updates = bc.get_config(), []
  config.update_from_flattened_dict(changes)
  monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
  monkeypatch.setenv("XLA_FLAGS", chosen.get("flags", ""))
  monkeypatch.setattr(type(jax.config), "jax_num_cpu_devices", chosen.get("devices", -1), raising=False)
  monkeypatch.setattr(type(jax.config), "update", lambda self, *update: updates.append(update))
  devices.spread_seeds(config)
  assert updates == ([("jax_num_cpu_devices", expected)] if expected else [])


def test_a_config_that_has_used_jax_is_none_the_worse(monkeypatch):
  def used(self, *update):
    raise RuntimeError("jax_num_cpu_devices config should be updated before backends are initialized")

  config = bc.get_config()
  config.seeds = 5
  monkeypatch.setattr(type(jax.config), "jax_num_cpu_devices", -1, raising=False)
  monkeypatch.setattr(type(jax.config), "update", used)
  devices.spread_seeds(config)


def test_a_run_of_many_seeds_is_spread_and_goes_on_bit_for_bit(tmp_path, record_cartpole):
  data = record_cartpole(tmp_path / "data", expert_return=500.0)
  seeds = 3
  flags = [f"--config.dataset={data}", f"--config.seeds={seeds}", "--config.split=train", "--config.batch_size=16"]
  flags += ["--config.log_every=10", "--config.agent.hidden=(8,)", "--config.evaluation.final_episodes=2"]
  flags += ["--config.agent.schedule=constant", "--config.evaluation.every=0", "--config.evaluation.video=False"]
  environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}

  def run(name, steps, **more):
    program = [sys.executable, "-m", "experiments.main", "--config=experiments/configs/bc.py", *flags]
    program += [f"--config.steps={steps}", f"--workdir={tmp_path / name}", "--json"]
    done = subprocess.run(program, cwd=ROOT, env=environment | more, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)

  whole = run("whole", 20)
  run("parts", 10)
  parts = run("parts", 20)
  alone = run("alone", 20, JAX_NUM_CPU_DEVICES="1")
  count = devices.of_cpu(seeds)
  assert [len(result["devices"]) for result in (whole, parts, alone)] == [count, count, 1]
  losses = [
    [row["train/loss"] for row in logs.read_jsonl(tmp_path / name / "log.jsonl") if "train/loss" in row]
    for name in ("whole", "parts", "alone")
  ]
  assert losses[0] == losses[1]
  assert losses[0] == pytest.approx(losses[2], rel=1e-5)
