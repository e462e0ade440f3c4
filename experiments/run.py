"""One experiment: a dataset, an agent, training, the score."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

import ilx
from experiments import agents
from experiments.demos import datasets
from experiments.progress import TrainingProgress
from experiments.report import write_report
from ilx.evaluation import environments
from ilx.training import logs

# Evaluations of one run use different episodes than the one that closes it, and than the videos.
_EVALUATION_SEED, _FINAL_SEED, _RANDOM_SEED, _VIDEO_SEED = 1_000_000, 2_000_000, 3_000_000, 4_000_000
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "envpool", "numpy")


class Task(NamedTuple):
  """What is learnt and where it is scored.

  Attributes:
    episodes: the data.
    spec: of the data, with the environment's action bounds.
    env_id: EnvPool's task.
    env_kwargs: its options.
    metadata: the dataset's own.
  """

  episodes: ilx.data.Episodes
  spec: ilx.Spec
  env_id: str
  env_kwargs: dict[str, Any]
  metadata: dict[str, Any]


def load_task(config: ml_collections.ConfigDict) -> Task:
  """Builds or finds the dataset, loads it, and checks it against the environment.

  Raises:
    FileNotFoundError, ValueError: naming the file or the field of the config at fault.
  """
  if config.env_id:
    environments.spec(config.env_id, **_env_kwargs(config, {}))  # an unknown task is said before anything is built
  directory = datasets.build(config.dataset) if config.dataset in datasets.NAMES else _resolve(config.dataset)
  info = ilx.data.read_info(directory)
  env_id = config.env_id or info.metadata.get("env_id")
  if not env_id:
    raise ValueError(f"{directory} names no environment; say which with --config.env_id=...")
  env_kwargs = _env_kwargs(config, info.metadata)
  env_spec = environments.spec(env_id, **env_kwargs)
  episodes = ilx.data.load(directory, config.split, config.num_episodes or None)
  metadata = dict(info.metadata)
  if isinstance(env_spec.action, ilx.Discrete):
    metadata.setdefault("num_actions", env_spec.action.num_actions)  # data may lack the last of them
  spec = ilx.data.spec(episodes, metadata)
  environments.check_spec(spec, env_spec, env_id)
  return Task(episodes, spec._replace(action=env_spec.action), env_id, env_kwargs, info.metadata)


def _resolve(dataset: str) -> pathlib.Path:
  try:
    return ilx.data.resolve(dataset)
  except FileNotFoundError as error:
    raise FileNotFoundError(f"config.dataset: {error}; built-in: {', '.join(datasets.NAMES)}") from None


def _env_kwargs(config: ml_collections.ConfigDict, recorded: Mapping[str, Any]) -> dict[str, Any]:
  if not config.env_kwargs:
    return dict(recorded.get("env_kwargs") or {})
  try:
    given = json.loads(config.env_kwargs)
  except json.JSONDecodeError as error:
    raise ValueError(f"config.env_kwargs is not JSON ({error}): {config.env_kwargs!r}") from None
  if not isinstance(given, dict):
    raise ValueError(f"config.env_kwargs must be a JSON object, got {config.env_kwargs}")
  return given


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains, scores and reports; an interrupted run goes on when called again with the same config.

  Leaves in ``workdir``: config.json, log.jsonl, tensorboard/, checkpoints/, result.json, report.html, episode.mp4.

  Returns:
    The content of result.json.

  Raises:
    ValueError: when ``workdir`` holds a run of another config.
    ilx.training.Interrupted: on SIGINT or SIGTERM during training, once the state is saved.
  """
  check_config(config, workdir)
  for field in ("episodes", "final_episodes"):
    if config.evaluation[field] < 1:
      raise ValueError(f"config.evaluation.{field}={config.evaluation[field]} must be at least 1")
  task = load_task(config)
  agent = agents.make(config.agent, task.spec, config.steps)
  workdir.mkdir(parents=True, exist_ok=True)
  logs.write_json(workdir / "config.json", config.to_dict())

  def evaluate(params: Any, step: int) -> dict[str, Any]:
    final = step == config.steps
    episodes = config.evaluation.final_episodes if final else config.evaluation.episodes
    played = ilx.evaluate(
      agent,
      params,
      task.env_id,
      episodes=episodes,
      seed=(_FINAL_SEED if final else _EVALUATION_SEED) + config.seed,
      env_kwargs=task.env_kwargs,
      progress=progress.evaluation,
    )
    summary = ilx.evaluation.summary(played.returns)
    row = {"return_mean": summary["mean"], "return_ci95": summary["mean_ci95"], "length_mean": played.lengths.mean()}
    if final:
      evaluate.result = played
    return row

  evaluate.result = None

  def open_logs(step: int) -> tuple[logs.Log, ...]:
    progress.resume(step)
    return logs.JsonlLog(workdir / "log.jsonl", step), logs.TensorBoardLog(workdir / "tensorboard", step)

  progress = TrainingProgress(config.steps)
  with progress:
    state = ilx.train(
      agent,
      task.episodes,
      steps=config.steps,
      batch_size=config.batch_size,
      seed=config.seed,
      workdir=workdir,
      log_every=config.log_every,
      checkpoint_every=config.checkpoint_every,
      evaluate=evaluate,
      evaluate_every=config.evaluation.every,
      logs=open_logs,
      on_progress=progress.update,
    )
  result = summarise(config, task, evaluate.result, workdir)
  logs.write_json(workdir / "result.json", result)
  if config.evaluation.video:
    ilx.evaluation.record_video(
      agent,
      state.params,
      task.env_id,
      workdir / "episode.mp4",
      seed=_VIDEO_SEED + config.seed,
      env_kwargs=task.env_kwargs,
    )
  write_report(workdir)
  return result


def check_config(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Raises ValueError, naming the fields, when ``workdir`` holds a run that this config does not continue.

  More steps continue a run only where nothing else depends on their number: with a constant learning rate.
  """
  path = workdir / "config.json"
  learnt = (workdir / "result.json").exists() or any(
    path.name.isdigit() for path in (workdir / "checkpoints").glob("*")
  )
  if not learnt or not path.exists():
    return
  before, now = _flat(json.loads(path.read_text())), _flat(logs.jsonable(config.to_dict()))
  free = ("evaluation.video",) + (("steps",) if config.agent.get("schedule") == "constant" else ())
  changed = [k for k in sorted(before.keys() | now.keys()) if k not in free and before.get(k) != now.get(k)]
  if changed:
    what = "; ".join(f"config.{k}: {before.get(k)!r} there, {now.get(k)!r} now" for k in changed)
    raise ValueError(f"{workdir} holds a run of another config ({what}); choose another --workdir")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
  return flat


def summarise(
  config: ml_collections.ConfigDict, task: Task, played: ilx.evaluation.Result, workdir: pathlib.Path
) -> dict[str, Any]:
  """What result.json holds."""
  summary = ilx.evaluation.summary(played.returns)
  expert, random = task.metadata.get("expert_return"), task.metadata.get("random_return")
  if random is None:
    random = _random_return(task)
  normalized = None if expert is None else float(ilx.evaluation.normalized(summary["mean"], random, expert))
  rows = logs.read_jsonl(workdir / "log.jsonl")
  speeds = [row["updates_per_second"] for row in rows if "updates_per_second" in row]
  return {
    "agent": config.agent.name,
    "dataset": config.dataset,
    "env_id": task.env_id,
    "env_kwargs": task.env_kwargs,
    "episodes": len(played.returns),
    "return_mean": summary["mean"],
    "return_std": summary["std"],
    "return_ci95": summary["mean_ci95"],
    "return_iqm": summary["iqm"],
    "return_iqm_ci95": summary["iqm_ci95"],
    "length_mean": played.lengths.mean(),
    "normalized_score": normalized,
    "expert_return": expert,
    "data_return": ilx.data.returns(task.episodes).mean(),
    "random_return": random,
    "data_episodes": task.episodes.num_episodes,
    "data_transitions": task.episodes.num_transitions,
    "returns": played.returns,
    "lengths": played.lengths,
    "steps": config.steps,
    "updates_per_second": float(np.median(speeds)),
    "seconds": rows[-1]["seconds"],
    "seed": config.seed,
    "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
    "versions": {
      "python": sys.version.split()[0],
      "ilx": ilx.__version__,
      **{name: metadata.version(name) for name in _PACKAGES},
    },
    "git_commit": git_commit(),
    "command": [sys.executable, "-m", "experiments.main", *sys.argv[1:]],
  }


def _random_return(task: Task) -> float:
  spec = environments.spec(task.env_id, **task.env_kwargs)
  policy = ilx.evaluation.random_policy(spec)
  played = ilx.evaluate(
    policy, (), task.env_id, episodes=100, seed=_RANDOM_SEED, env_kwargs=task.env_kwargs, sample=True
  )
  return float(played.returns.mean())


def git_commit() -> str | None:
  """The commit of the code that runs, "-dirty" appended where files differ from it; None outside a checkout."""
  folder = pathlib.Path(__file__).parent
  try:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    changes = subprocess.run(
      ["git", "status", "--porcelain", "--untracked-files=no"], cwd=folder, capture_output=True, text=True, check=True
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return commit.stdout.strip() + ("-dirty" if changes.stdout.strip() else "")
