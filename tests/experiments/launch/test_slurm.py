"""The script for Slurm, run by a fake Slurm: what reaches the runs, what is queued again."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from experiments.launch import __main__ as launch
from experiments.launch import check, slurm
from ilx.training import logs

ROOT = pathlib.Path(__file__).resolve().parents[3]
BC = f"--config={ROOT / 'experiments/configs/bc.py'}"
# What a shell would take apart.
NASTY = "length > 1 AND x = 'a b' \"c\" $(touch {0}/pwned) `touch {0}/pwned` ; touch {0}/pwned # \\ * ~ é"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
  """A folder of commands that stand for Slurm's: each writes down how it was called."""
  folder = tmp_path / "bin"
  folder.mkdir()

  def command(name, *lines):
    path = folder / name
    path.write_text("\n".join(["#!/bin/bash", f'printf "%s\\0" "$@" > {tmp_path}/{name}.called', *lines, ""]))
    path.chmod(0o755)

  command("sbatch", 'cp "$1" "$1.submitted"', "echo Submitted batch job 17")
  command("srun", f"pwd > {tmp_path}/pwd", f'[[ -e {tmp_path}/status ]] && exit "$(cat {tmp_path}/status)"', "exit 0")
  command("squeue", f"cat {tmp_path}/state")
  command("scontrol")
  monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
  return tmp_path


def called(cluster, name):
  """The arguments of the last call; None if there was none."""
  path = cluster / f"{name}.called"
  return path.read_text().split("\0")[:-1] if path.exists() else None


def words(folder, *more):
  return ["slurm", BC, f"--workdir={folder}", "--grid=config.seed=0,1,2", *more]


def script(capsys, folder, *more):
  assert launch.main(words(folder, *more, "--dry_run")) == 0, capsys.readouterr().err
  return capsys.readouterr().out


def directives(text):
  return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


def execute(path, element):
  environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(element), "SLURM_JOB_ID": "18"}
  return subprocess.run(["bash", path], env=environment, capture_output=True, text=True)


def test_the_script_is_submitted_and_kept(cluster, capsys):
  folder = cluster / "a sweep"
  assert launch.main(words(folder, "--partition=gpu", "--time=4:00:00")) == 0
  assert capsys.readouterr().out == "Submitted batch job 17\n"
  assert called(cluster, "sbatch") == [str(folder / "sweep.sbatch")]
  text = (folder / "sweep.sbatch.submitted").read_text()
  assert text.startswith("#!/bin/bash\n#SBATCH ")
  for wanted in ("--array=0,1,2", "--partition=gpu", "--time=4:00:00", "--requeue", "--signal=TERM@120", "--nodes=1"):
    assert wanted in directives(text)
  assert f'"--output={folder}/slurm-%A_%a.out"' in directives(text)


def test_every_flag_reaches_its_run_as_it_is(cluster, monkeypatch):
  folder, nasty = cluster / "a sweep", NASTY.format(cluster)
  here = cluster / "it's $HOME"
  here.mkdir()
  monkeypatch.chdir(here)
  assert launch.main(words(folder, f"--config.where={nasty}", "--config.agent.hidden=(3, 4)")) == 0
  path = folder / "sweep.sbatch"
  assert subprocess.run(["bash", "-n", path]).returncode == 0
  for seed in range(3):
    assert execute(path, seed).returncode == 0
    srun = called(cluster, "srun")
    given = srun[srun.index("experiments.main") + 1 :]
    expected = [BC, f"--config.where={nasty}", "--config.agent.hidden=(3, 4)", f"--config.seed={seed}"]
    assert given == [*expected, f"--workdir={folder / f'seed={seed}'}"]
    check.config_of(given)
    assert (cluster / "pwd").read_text() == f"{here}\n"
  assert not (cluster / "pwned").exists()
  ended = execute(path, 3)
  assert ended.returncode == 2 and "no element 3" in ended.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck")
def test_the_script_passes_shellcheck(cluster, capsys):
  text = script(capsys, cluster / "s", "--setup=module load cuda", "--cpus_per_task=2", f"--config.where={NASTY}")
  ended = subprocess.run(
    ["shellcheck", "--severity=warning", "-"], input=text.partition("\n")[2], capture_output=True, text=True
  )
  assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize(
  ("status", "state", "again"),
  [
    (143, "RUNNING", True),  # its time is up, or it is preempted
    (143, "CANCELLED", False),
    (143, "", False),
    (1, "RUNNING", False),
    (0, "RUNNING", False),
  ],
)
def test_what_saved_is_queued_again(cluster, status, state, again):
  assert launch.main(words(cluster / "sweep")) == 0
  (cluster / "status").write_text(str(status))
  (cluster / "state").write_text(f"{state}\n")
  assert execute(cluster / "sweep" / "sweep.sbatch", 0).returncode == status
  assert called(cluster, "scontrol") == (["requeue", "18"] if again else None)


def test_a_signal_to_the_script_does_not_keep_it_from_queueing_again(cluster):
  assert launch.main(words(cluster / "sweep")) == 0
  (cluster / "state").write_text("RUNNING\n")
  (cluster / "bin" / "srun").write_text("#!/bin/bash\nkill -TERM $PPID\nsleep 0.2\nexit 143\n")
  assert execute(cluster / "sweep" / "sweep.sbatch", 0).returncode == 143
  assert called(cluster, "scontrol") == ["requeue", "18"]


def test_on_one_node_a_run_is_one_process(cluster, capsys):
  text = script(capsys, cluster / "sweep", "--gpus_per_node=8")
  assert {"--ntasks-per-node=1", "--gpus-per-node=8"} <= set(directives(text))
  assert "--distributed" not in text


def test_on_several_nodes_a_run_is_a_process_for_each_gpu(cluster, capsys):
  text = script(capsys, cluster / "sweep", "--nodes=4", "--gpus_per_node=8", "--cpus_per_task=6")
  wanted = {"--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=6"}
  assert wanted <= set(directives(text))
  assert text.count("--distributed=auto") == 3
  assert "export SRUN_CPUS_PER_TASK=6\n" in text
  text = script(capsys, cluster / "sweep", "--nodes=4")
  assert "--ntasks-per-node=1" in directives(text)


def test_finished_runs_are_left_out(cluster, capsys):
  folder = cluster / "sweep" / "seed=1"
  (folder / "checkpoints" / "50000").mkdir(parents=True)
  logs.write_json(folder / "config.json", check.config_of([BC, "--config.seed=1"]).to_dict())
  logs.write_json(folder / "result.json", {"steps": 50_000})
  (folder / "report.html").touch()
  text = script(capsys, cluster / "sweep")
  assert "--array=0,2" in directives(text)
  assert "config.seed=1" not in text and "  2) flags=(" in text


def test_a_dry_run_touches_nothing(cluster, capsys):
  text = script(capsys, cluster / "sweep")
  assert f"# submitted by: sbatch {cluster / 'sweep' / 'sweep.sbatch'}" in text
  assert called(cluster, "sbatch") is None and not (cluster / "sweep").exists()


@pytest.mark.parametrize(
  ("wanted", "found"),
  [(None, "0,2,3"), ("%2", "0,2,3%2"), ("0-2", "0,2"), ("3,0-1%10", "0,3%10")],
)
def test_elements(wanted, found):
  assert slurm.array(wanted, 4, [0, 2, 3]) == found


@pytest.mark.parametrize("wanted", ["4", "0-4", "x", "1-", "0-3:2", "%0", "1", ",", "3-0", "2,1-0", "0-99999999999999"])
def test_elements_that_are_none(wanted):
  with pytest.raises(ValueError, match=f"--array={wanted}"):
    slurm.array(wanted, 4, [0, 2, 3])


def test_ranges_that_hold_nothing_are_named():
  with pytest.raises(ValueError, match=r"--array=2,1-0: 1-0 ends before it begins"):
    slurm.array("2,1-0", 4, [0, 2, 3])
  with pytest.raises(ValueError, match=r"there is no element 4; the 4 runs are 0 to 3"):
    slurm.array("2-99999999999999", 4, [0, 2, 3])


@pytest.mark.parametrize("option", ["--account=a\n#SBATCH --nodes=9", "account=a", "--comment='a'", "--comment=a#b"])
def test_options_that_a_directive_cannot_hold(cluster, capsys, option):
  assert launch.main(words(cluster / "sweep", f"--sbatch={option}")) == 2
  assert capsys.readouterr().err.startswith("error: ")
  assert called(cluster, "sbatch") is None and not (cluster / "sweep").exists()


def test_further_options(cluster, capsys):
  assert "--account=robots" in directives(script(capsys, cluster / "sweep", "--sbatch=--account=robots"))


def test_without_slurm_or_refused_it_says_so(cluster, capsys):
  (cluster / "bin" / "sbatch").write_text("#!/bin/bash\necho 'invalid partition' >&2\nexit 1\n")
  assert launch.main(words(cluster / "sweep")) == 2
  assert "sbatch refused" in (errors := capsys.readouterr().err) and "invalid partition" in errors
  (cluster / "bin" / "sbatch").unlink()
  if not shutil.which("sbatch"):
    assert launch.main(words(cluster / "sweep")) == 2
    assert "there is no sbatch here" in capsys.readouterr().err


def test_all_finished_is_nothing_to_submit(cluster, capsys):
  folder = cluster / "sweep" / "bc"
  (folder / "checkpoints" / "50000").mkdir(parents=True)
  (folder / "config.json").write_text(json.dumps(check.config_of([BC]).to_dict()))
  logs.write_json(folder / "result.json", {"steps": 50_000})
  (folder / "report.html").touch()
  assert launch.main(["slurm", BC, f"--workdir={cluster / 'sweep'}"]) == 0
  assert "all of 1 runs are finished" in capsys.readouterr().out
  assert called(cluster, "sbatch") is None
