"""What a policy scores, as the weight files and the README state it."""

import math
from typing import Any

from experiments.demos import policy
from ilx.evaluation import environments, rollout

EPISODES = 100
# Apart from the seeds of training and of choosing among snapshots.
SCORE_SEED = 30_000


def score(
  act: policy.Forward,
  env_id: str,
  *,
  seed: int,
  sample: bool,
  episodes: int = EPISODES,
  env_kwargs: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Return and length over ``episodes`` episodes, with the mean's 95 % interval (normal approximation)."""
  player = policy.player(act, environments.spec(env_id).action)
  result = rollout.evaluate(player, (), env_id, episodes=episodes, seed=seed, sample=sample, env_kwargs=env_kwargs)
  mean, std = float(result.returns.mean()), float(result.returns.std(ddof=1))
  half = 1.96 * std / math.sqrt(episodes)
  return {
    "episodes": episodes,
    "return_mean": round(mean, 2),
    "return_std": round(std, 2),
    "return_ci95": [round(mean - half, 2), round(mean + half, 2)],
    "length_mean": round(float(result.lengths.mean()), 2),
  }
