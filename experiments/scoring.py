"""Scores of the policy under training: episodes played in the environment, and likeness to held-out actions."""

from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

import ilx
from experiments.task import Task
from ilx.evaluation.fidelity import DiscreteFidelity, Fidelity, fidelity

# Evaluations of one run use different episodes than the one that closes it, and than the videos.
_EVALUATION_SEED, _FINAL_SEED, _RANDOM_SEED, _VIDEO_SEED = 1_000_000, 2_000_000, 3_000_000, 4_000_000


class Scorer:
  """Called by `ilx.train` with params and step; what the last call found is kept for ``result.json``.

  Attributes:
    played: of the evaluation that closes the run; None before it, and without an environment.
    compared: the same, of held-out actions.
  """

  def __init__(
    self, config: ml_collections.ConfigDict, task: Task, agent: ilx.Agent, progress: Callable[[float], None]
  ):
    self._config, self._task, self._agent, self._progress = config, task, agent, progress
    self.played: ilx.evaluation.Result | None = None
    self.compared: Fidelity | None = None

  @property
  def scores_anything(self) -> bool:
    """Whether there is an environment or something held out."""
    return self._task.env_id is not None or self._task.data.heldout is not None

  def __call__(self, params: Any, step: int) -> dict[str, Any]:
    """The row to log."""
    final = step == self._config.steps
    row: dict[str, Any] = {}
    if self._task.env_id is not None:
      played = self._play(params, final)
      summary = ilx.evaluation.summary(played.returns)
      row |= {"return_mean": summary["mean"], "return_ci95": summary["mean_ci95"], "length_mean": played.lengths.mean()}
      if final:
        self.played = played
    if self._task.data.heldout is not None:
      compared = self._compare(params)
      row |= {f"heldout_{name}": value for name, value in compared.scores.items() if value is not None}
      if final:
        self.compared = compared
    return row

  def _play(self, params: Any, final: bool) -> ilx.evaluation.Result:
    section = self._config.evaluation
    return ilx.evaluate(
      self._agent,
      params,
      self._task.env_id,
      episodes=section.final_episodes if final else section.episodes,
      seed=(_FINAL_SEED if final else _EVALUATION_SEED) + self._config.seed,
      env_kwargs=self._task.env_kwargs,
      progress=self._progress,
    )

  def _compare(self, params: Any) -> Fidelity:
    heldout = self._task.data.heldout
    return fidelity(
      self._agent,
      params,
      heldout.episodes,
      action=self._task.data.spec.action,
      clip=self._task.env_id is not None,  # bounds that are the data's own say nothing about what is not in them
      frame_stack=self._config.frame_stack,
      keep=heldout.keep,
      progress=self._progress,
    )


def random_return(task: Task) -> float:
  """Mean return of a hundred episodes of uniform actions."""
  policy = ilx.evaluation.random_policy(ilx.evaluation.spec(task.env_id, **task.env_kwargs))
  played = ilx.evaluate(
    policy, (), task.env_id, episodes=100, seed=_RANDOM_SEED, env_kwargs=task.env_kwargs, sample=True
  )
  return float(played.returns.mean())


def record_video(config: ml_collections.ConfigDict, task: Task, agent: ilx.Agent, params: Any, path: Any) -> None:
  """One episode that no score is of."""
  seed = _VIDEO_SEED + config.seed
  ilx.evaluation.record_video(agent, params, task.env_id, path, seed=seed, env_kwargs=task.env_kwargs)


def of_play(task: Task, played: ilx.evaluation.Result | None) -> dict[str, Any]:
  """What ``result.json`` says of play; None everywhere without an environment."""
  expert, random = task.metadata.get("expert_return"), task.metadata.get("random_return")
  if played is None:
    names = ("episodes", "return_mean", "return_std", "return_ci95", "return_iqm", "return_iqm_ci95", "length_mean")
    names += ("normalized_score", "expert_return", "random_return", "returns", "lengths")
    return dict.fromkeys(names)
  summary = ilx.evaluation.summary(played.returns)
  if random is None:
    random = random_return(task)
  return {
    "episodes": len(played.returns),
    "return_mean": summary["mean"],
    "return_std": summary["std"],
    "return_ci95": summary["mean_ci95"],
    "return_iqm": summary["iqm"],
    "return_iqm_ci95": summary["iqm_ci95"],
    "length_mean": played.lengths.mean(),
    "normalized_score": None if expert is None else float(ilx.evaluation.normalized(summary["mean"], random, expert)),
    "expert_return": expert,
    "random_return": random,
    "returns": played.returns,
    "lengths": played.lengths,
  }


def of_heldout(split: str, compared: Fidelity | None) -> Mapping[str, Any] | None:
  """What ``result.json`` says of held-out actions; None where nothing was held out."""
  if compared is None:
    return None
  about = {"split": split, "episodes": compared.episodes, "transitions": compared.transitions, **compared.scores}
  if isinstance(compared, DiscreteFidelity):
    each = {"count": compared.count, "recall": compared.recall}
    return about | {"commonest_share": compared.count.max() / compared.transitions, "actions": each}
  names = ("mean_absolute_error", "root_mean_squared_error", "explained", "std")
  return about | {"dimensions": {name: getattr(compared, name) for name in names}}
