"""One experiment: a dataset, an agent, training, the score."""

import json
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import ml_collections
import numpy as np

import ilx
from experiments import agents, loading, scoring, versions
from experiments.progress import LoadingProgress, TrainingProgress
from experiments.report import write_report
from experiments.report.compare import fields
from experiments.revision import git_commit
from experiments.task import Task
from experiments.task import load as load_task
from ilx import parallel
from ilx.evaluation import environments
from ilx.parallel import hosts
from ilx.training import lock, logs, signals
from ilx.training.lock import locked

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "envpool", "numpy")

# Fields that may change when a run is resumed: what is learnt does not depend on them, or is meant to.
_FREE = (
  *("evaluation.video", "evaluation.beside", "strategy", "mesh.data", "mesh.fsdp", "mesh.tensor"),
  *("checkpoint_minutes", "keep", "keep_every", "on_nonfinite", "data_timeout", "data_deadline"),
)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any] | None:
  """Trains, scores and reports; an interrupted run goes on when called again with the same config.

  Of several processes (``ilx.parallel.hosts``) all train, and play their share of the episodes; the first writes what
  the run leaves. ``workdir`` is a folder that all of them see.

  Leaves in ``workdir``: config.json, datasets.json, log.jsonl, tensorboard/, checkpoints/, result.json, report.html,
  episode.mp4; diverged.json and diverged.npz where training diverged.

  Returns:
    The content of result.json; None in processes other than the first.

  Raises:
    FileNotFoundError: where a dataset is not there, or not in the version that the run began with.
    ValueError: when ``workdir`` holds a run of another config.
    ilx.training.FolderInUseError: when another process is at work in it.
    ilx.training.Interrupted: on SIGINT or SIGTERM during training, once the state is saved, and after it, until the
      report is written.
  """
  check_values(config)
  check_config(config, workdir)
  recorded = _recorded(workdir)
  mesh = parallel.make_mesh(**config.mesh)
  with LoadingProgress() as loading_progress:
    task = load_task(config, loading_progress, recorded)
  versions.check_agreed(task.data.versions)
  print(loading.describe(task.data), flush=True)
  agent = agents.make(config.agent, task.data.spec, config.steps, config.frame_stack, task.data.facts, task.data.train)
  there = workdir.exists()
  with locked(workdir):
    try:
      check_config(config, workdir)  # another process may have been there meanwhile
      if _recorded(workdir) != recorded:
        raise ValueError(f"another process began the run in {workdir} meanwhile; give the command again to go on")
      return _run(config, workdir, task, agent, mesh)
    except ValueError:
      # What training refuses before it begins leaves nothing.
      if not there and hosts.is_first() and [path.name for path in workdir.iterdir()] == [lock.NAME]:
        shutil.rmtree(workdir)
      raise


def _run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, task: Task, agent: ilx.Agent, mesh: jax.sharding.Mesh
) -> dict[str, Any] | None:
  learns = False

  def open_logs(step: int) -> tuple[logs.Log, ...]:
    nonlocal learns
    learns = step < config.steps
    progress.resume(step)
    if not hosts.is_first():
      return ()
    # Not before: what training refuses changes nothing.
    if step == 0:  # a run that is older than this record goes on without: what it learnt from is not known
      versions.write(workdir, task.data.versions)
    logs.write_json(workdir / "config.json", config.to_dict())
    return logs.JsonlLog(workdir / "log.jsonl", step), logs.TensorBoardLog(workdir / "tensorboard", step)

  progress = TrainingProgress(config.steps)
  scorer = scoring.Scorer(config, task, agent, progress.evaluation)
  with progress:
    state = ilx.train(
      agent,
      task.data.train,
      steps=config.steps,
      batch_size=config.batch_size,
      seed=config.seed,
      seeds=None if config.seeds == 1 else config.seeds,
      mesh=mesh,
      strategy=config.strategy,
      tier=task.data.tier,
      workdir=workdir,
      log_every=config.log_every,
      checkpoint_every=config.checkpoint_every,
      checkpoint_minutes=config.checkpoint_minutes,
      keep=config.keep,
      keep_every=config.keep_every,
      on_nonfinite=config.on_nonfinite,
      data_timeout=config.data_timeout,
      data_deadline=config.data_deadline,
      evaluate=scorer if scorer.scores_anything else None,
      evaluate_every=config.evaluation.every if scorer.scores_anything else 0,
      evaluate_beside=config.evaluation.beside and scorer.scores_anything,
      logs=open_logs,
      on_progress=progress.update,
      on_updates=progress.updates,
    )
  params = hosts.readable(state.params)
  if not hosts.is_first():
    return None

  def close() -> dict[str, Any]:
    return _close(config, workdir, task, agent, scorer, params, learns)

  if jax.process_count() > 1:  # the others have ended, and would have to agree
    return close()
  with signals.StopSignals() as stop:
    result = stop.unless_signalled(close)
  if result is None:
    name, number = stop.received.name, int(stop.received)
    raise ilx.training.Interrupted(f"stopped by {name}; all is learnt, but the report is not written", number)
  return result


def _close(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  task: Task,
  agent: ilx.Agent,
  scorer: scoring.Scorer,
  params: Any,
  learns: bool,
) -> dict[str, Any]:
  """Writes the result, the video and the report of a run that has learnt all."""
  before = _result(workdir)
  same = not learns and before.get("steps") == config.steps
  result = summarise(config, task, scorer, params, workdir) | (_origin(before) if same else {})
  if not same:
    (workdir / "episode.mp4").unlink(missing_ok=True)  # an earlier one is of fewer updates
  logs.write_json(workdir / "result.json", result)
  if config.evaluation.video and task.env_id is not None:
    first_seed = scoring.each_seed(config, params)[0]
    scoring.record_video(config, task, agent, first_seed, workdir / "episode.mp4")
  write_report(workdir)  # last: a run without it is not finished
  return result


def _result(workdir: pathlib.Path) -> dict[str, Any]:
  """The result that is there; empty where there is none that can be read."""
  try:
    found = json.loads((workdir / "result.json").read_text())
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def _origin(before: Mapping[str, Any]) -> dict[str, Any]:
  """What made a result, for a call that learns nothing more."""
  return {name: before[name] for name in ("devices", "versions", "git_commit", "command") if name in before}


def check_values(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError, naming the field, for numbers that are out of range whatever the data."""
  values = flat(config.to_dict())
  for field in ("steps", "batch_size", "seeds", "evaluation.episodes", "evaluation.final_episodes"):
    if values[field] < 1:
      raise ValueError(f"config.{field}={values[field]} must be at least 1")


def check_config(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Raises ValueError, naming the fields, when ``workdir`` holds a run that this config does not continue.

  More steps continue a run only where nothing else depends on their number: with a constant learning rate.
  """
  path = workdir / "config.json"
  if not has_learnt(workdir) or not path.exists():
    return
  try:
    before, now = flat(json.loads(path.read_text())), flat(logs.jsonable(config.to_dict()))
  except (AttributeError, ValueError) as error:
    raise ValueError(f"{path} is no config of a run ({error}); choose another --workdir") from None
  # A run that is older than a field did as the field's default does.
  newer = {name: value for name, value in fields.defaults(config.agent.name).items() if name in now}
  before = newer | before
  free = _FREE + (("steps",) if config.agent.get("schedule") == "constant" else ())
  changed = [k for k in sorted(before.keys() | now.keys()) if k not in free and before.get(k) != now.get(k)]
  if changed:
    what = "; ".join(f"config.{k}: {before.get(k)!r} there, {now.get(k)!r} now" for k in changed)
    raise ValueError(f"{workdir} holds a run of another config ({what}); choose another --workdir")


def has_learnt(workdir: pathlib.Path) -> bool:
  """Whether ``workdir`` holds a run that goes on; one that saved nothing begins anew."""
  return (workdir / "result.json").exists() or any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))


def _recorded(workdir: pathlib.Path) -> dict[str, versions.Version]:
  """The versions of the datasets that a run which goes on began with; empty where none are known."""
  return versions.read(workdir) if has_learnt(workdir) else {}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Nested fields by their names joined with dots."""
  found = {}
  for key, value in tree.items():
    found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
  return found


def summarise(
  config: ml_collections.ConfigDict, task: Task, scorer: scoring.Scorer, params: Any, workdir: pathlib.Path
) -> dict[str, Any]:
  """What result.json holds; None where something does not apply."""
  if scorer.played:
    task = scoring.with_random_return(task)
  rows = logs.read_jsonl(workdir / "log.jsonl")
  speeds = [row["updates_per_second"] for row in rows if "updates_per_second" in row]
  return {
    "agent": config.agent.name,
    "dataset": config.dataset,
    "dataset_versions": versions.numbers(versions.read(workdir)) or None,
    "env_id": task.env_id,
    "env_kwargs": task.env_kwargs,
    **scoring.of_play(task, scorer.played),
    "target_return": scoring.target_return(params) if scorer.played else None,
    "heldout": scoring.of_heldout(config, task, scorer.compared),
    **_each_seed(config, task, scorer, rows),
    **_facts(task),
    "loss": _last(rows, "train/loss"),
    "steps": config.steps,
    "updates_per_second": float(np.median(speeds)) if speeds else None,
    "seconds": rows[-1]["seconds"] if rows else None,
    "seed": config.seed,
    "seeds": config.seeds,
    "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
    "versions": {
      "python": sys.version.split()[0],
      "ilx": ilx.__version__,
      **{name: metadata.version(name) for name in (*_PACKAGES, *_played_by(task))},
    },
    "git_commit": git_commit(),
    "command": [sys.executable, "-m", "experiments.main", *sys.argv[1:]],
  }


def _facts(task: Task) -> dict[str, Any]:
  """Of the data; their returns say nothing of another environment than theirs."""
  if task.as_recorded:
    return task.data.facts

  def without(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if name.startswith("data_return") else value for name, value in facts.items()}

  datasets = task.data.facts["datasets"]
  return without(task.data.facts) | {"datasets": [without(one) for one in datasets] if datasets else datasets}


def _played_by(task: Task) -> tuple[str, ...]:
  """The package of the environment."""
  return (environments.library(task.env_id),) if task.env_id else ()


def _each_seed(
  config: ml_collections.ConfigDict, task: Task, scorer: scoring.Scorer, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  """What result.json has of many seeds: in ``per_seed`` each one's part, as in the result of a run of its own."""
  if config.seeds == 1:
    return {}
  found = [
    {
      "seed": config.seed + place,
      **scoring.of_play(task, scorer.played[place : place + 1]),
      "heldout": scoring.of_heldout(config, task, scorer.compared[place : place + 1]),
      "loss": _last(rows, f"train/loss/seed{config.seed + place}"),
    }
    for place in range(config.seeds)
  ]
  return {"per_seed": found}


def _last(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
  return next((row[name] for row in reversed(rows) if name in row), None)
