"""Scores of the policy under training: episodes played in the environment, and likeness to held-out actions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ml_collections
import numpy as np

import ilx
from experiments import naming
from experiments.task import Task
from ilx.evaluation.acting import on_one_device
from ilx.evaluation.fidelity import DiscreteFidelity, FactoredFidelity, Fidelity, MultiDiscreteFidelity, fidelity

# Evaluations of one run use different episodes than the one that closes it, and than the videos.
_EVALUATION_SEED, FINAL_SEED, _RANDOM_SEED, _VIDEO_SEED = 1_000_000, 2_000_000, 3_000_000, 4_000_000

T = TypeVar("T")


class Scorer:
  """Called by `ilx.train` with params and step; what the last call found is kept for ``result.json``.

  Of many seeds each is scored on its own, one after the other, by the same program and in the same episodes as in a
  run of that seed alone.

  Attributes:
    played: by every seed in the evaluation that closes the run; empty before it, and without an environment.
    compared: the same, of held-out actions.
  """

  def __init__(
    self, config: ml_collections.ConfigDict, task: Task, agent: ilx.Agent, progress: Callable[[float], None]
  ):
    self._config, self._task, self._agent, self._progress = config, task, agent, progress
    self.played: list[ilx.evaluation.Result] = []
    self.compared: list[Fidelity] = []

  @property
  def scores_anything(self) -> bool:
    """Whether there is an environment or something held out."""
    return self._task.env_id is not None or self._task.data.heldout is not None

  def __call__(self, params: Any, step: int) -> dict[str, Any]:
    """The row to log: of all seeds together, then, where there are several, of each as ``name/seed3``."""
    final = step == self._config.steps
    row: dict[str, Any] = {}
    if self._task.env_id is not None:
      played = self._each(params, lambda own, seed, progress: self._play(own, seed, final, progress))
      returns = np.array([one.returns for one in played])
      summary = ilx.evaluation.summary(returns)
      row |= {"return_mean": summary["mean"], "return_ci95": summary["mean_ci95"]}
      row["length_mean"] = np.mean([one.lengths for one in played])
      row |= self._by_seed("return_mean", returns.mean(axis=1))
      if final:
        self.played = played
    if self._task.data.heldout is not None:
      compared = self._each(
        params, lambda own, seed, progress: compare(self._config, self._task, self._agent, own, progress)
      )
      for name, value in mean_scores(compared).items():
        if value is not None:
          row[f"heldout_{name}"] = value
          row |= self._by_seed(f"heldout_{name}", [one.scores[name] for one in compared])
      if final:
        self.compared = compared
    return row

  def _each(self, params: Any, score: Callable[[Any, int, Callable[[float], None]], T]) -> list[T]:
    found, count = [], self._config.seeds
    for place, own in enumerate(each_seed(self._config, params)):
      progress = lambda fraction, place=place: self._progress((place + fraction) / count)  # noqa: E731
      found.append(score(own, self._config.seed + place, progress))
    return found

  def _by_seed(self, name: str, values: Sequence[float]) -> dict[str, float]:
    if self._config.seeds == 1:
      return {}
    return {f"{name}/seed{self._config.seed + place}": float(value) for place, value in enumerate(values)}

  def _play(self, params: Any, seed: int, final: bool, progress: Callable[[float], None]) -> ilx.evaluation.Result:
    section = self._config.evaluation
    return ilx.evaluate(
      self._agent,
      params,
      self._task.env_id,
      episodes=section.final_episodes if final else section.episodes,
      seed=(FINAL_SEED if final else _EVALUATION_SEED) + seed,
      env_kwargs=self._task.env_kwargs,
      across_hosts=True,
      progress=progress,
    )


def compare(
  config: ml_collections.ConfigDict, task: Task, agent: ilx.Agent, params: Any, progress: Callable[[float], None]
) -> Fidelity:
  """Likeness to the task's held-out actions, of which there must be some."""
  heldout = task.data.heldout
  return fidelity(
    agent,
    params,
    heldout.episodes,
    action=task.data.spec.action,
    clip=task.env_id is not None,  # bounds that are the data's own say nothing about what is not in them
    frame_stack=config.frame_stack,
    keep=heldout.keep,
    progress=progress,
  )


def each_seed(config: ml_collections.ConfigDict, params: Any) -> list[Any]:
  """The params of every seed of a run; of seeds that are spread, on one device."""
  if config.seeds == 1:
    return [params]
  params = on_one_device(params)
  return [ilx.training.one_seed(params, place) for place in range(config.seeds)]


def with_random_return(task: Task) -> Task:
  """The task whose metadata have ``random_return``: where the data's do not, a hundred episodes of uniform actions."""
  if task.metadata.get("random_return") is not None:
    return task
  policy = ilx.evaluation.random_policy(ilx.evaluation.spec(task.env_id, **task.env_kwargs))
  played = ilx.evaluate(
    policy, (), task.env_id, episodes=100, seed=_RANDOM_SEED, env_kwargs=task.env_kwargs, sample=True
  )
  return task._replace(metadata={**task.metadata, "random_return": float(played.returns.mean())})


def record_video(config: ml_collections.ConfigDict, task: Task, agent: ilx.Agent, params: Any, path: Any) -> None:
  """One episode that no score is of."""
  seed = _VIDEO_SEED + config.seed
  ilx.evaluation.record_video(agent, params, task.env_id, path, seed=seed, env_kwargs=task.env_kwargs)


def target_return(params: Any) -> float | None:
  """What a policy that is asked for a return was asked for, of all seeds alike; None of others."""
  asked = getattr(params, "target_return", None)
  return None if asked is None else float(np.ravel(asked)[0])


def of_play(task: Task, played: Sequence[ilx.evaluation.Result]) -> dict[str, Any]:
  """What ``result.json`` says of play; None everywhere without an environment.

  Args:
    task: what was played, ``with_random_return``.
    played: by every seed. Of several, intervals are over seeds and episodes, and the episodes are left to ``per_seed``.
  """
  expert, random = task.metadata.get("expert_return"), task.metadata.get("random_return")
  if not played:
    names = ("episodes", "return_mean", "return_std", "return_ci95", "return_iqm", "return_iqm_ci95", "length_mean")
    names += ("success_rate", "normalized_score", "expert_return", "random_return", "returns", "lengths")
    return dict.fromkeys(names)
  returns, lengths = np.array([one.returns for one in played]), np.array([one.lengths for one in played])
  summary = ilx.evaluation.summary(returns)
  return {
    "episodes": returns.shape[1],
    "return_mean": summary["mean"],
    "return_std": summary["std"],
    "return_ci95": summary["mean_ci95"],
    "return_iqm": summary["iqm"],
    "return_iqm_ci95": summary["iqm_ci95"],
    "length_mean": lengths.mean(),
    "success_rate": success_rate(played),
    "normalized_score": normalized(summary["mean"], random, expert),
    "expert_return": expert,
    "random_return": random,
    **({"returns": returns[0], "lengths": lengths[0]} if len(played) == 1 else {}),
  }


def normalized(mean: float, random: float | None, expert: float | None) -> float | None:
  """The normalised score of a mean return; None where a reference is not known or the two are one."""
  if random is None or expert is None or random == expert:
    return None
  return float(ilx.evaluation.normalized(mean, random, expert))


def success_rate(played: Sequence[ilx.evaluation.Result]) -> float | None:
  """The share of episodes in which the task was done; None where the environment does not tell."""
  if any(one.successes is None for one in played):
    return None
  return float(np.mean([one.successes for one in played]))


def of_heldout(config: ml_collections.ConfigDict, task: Task, compared: Sequence[Fidelity]) -> Mapping[str, Any] | None:
  """What ``result.json`` says of held-out actions, means over the seeds; None where nothing was held out."""
  if not compared:
    return None
  first, dataset = compared[0], config.heldout_dataset
  about = {"split": config.heldout, "episodes": first.episodes, "transitions": first.transitions}
  return about | ({"dataset": dataset} if dataset else {}) | _of_action(compared, task.data.heldout.names)


def _of_action(compared: Sequence[Fidelity], names: naming.Names, path: str = "") -> dict[str, Any]:
  first = compared[0]
  if isinstance(first, FactoredFidelity):
    return {"parts": {path: _of_action([one.parts[path] for one in compared], names, path) for path in first.parts}}
  about, named = mean_scores(compared), {"names": names[path]} if path in names else {}
  if isinstance(first, MultiDiscreteFidelity):
    choices = [_of_action([one.choices[k] for one in compared], {}) for k in range(len(first.choices))]
    common = float(np.mean([choice["commonest_share"] for choice in choices]))
    if named:
      choices = [{"name": name} | choice for name, choice in zip(names[path], choices, strict=True)]
    return about | {"commonest_share": common, "choices": choices}
  if isinstance(first, DiscreteFidelity):
    each = named | {"count": first.count, "recall": _mean(compared, "recall")}
    return about | {"commonest_share": first.count.max() / first.transitions, "actions": each}
  numbers = ("mean_absolute_error", "root_mean_squared_error", "explained", "std")
  return about | {"dimensions": named | {name: _mean(compared, name) for name in numbers}}


def mean_scores(compared: Sequence[Fidelity]) -> dict[str, float | None]:
  """The scores of likeness, means over the seeds; None where nothing varies, which is the data's doing."""
  scores = [one.scores for one in compared]
  return {
    name: None if value is None else float(np.mean([one[name] for one in scores])) for name, value in scores[0].items()
  }


def _mean(compared: Sequence[Fidelity], name: str) -> np.ndarray:
  return np.mean([getattr(one, name) for one in compared], axis=0)
