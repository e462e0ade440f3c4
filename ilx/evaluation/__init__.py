"""Scores of policies: rollouts in EnvPool, statistics over episodes and seeds, videos."""

from ilx.evaluation import aggregates
from ilx.evaluation.acting import Policy, random_policy
from ilx.evaluation.budget import budget
from ilx.evaluation.environments import make, spec
from ilx.evaluation.matching import check_spec
from ilx.evaluation.playing import play
from ilx.evaluation.rollout import Result, evaluate
from ilx.evaluation.scores import iqm, normalized, summary
from ilx.evaluation.trajectories import Episode
from ilx.evaluation.video import record_video
from ilx.evaluation.visitation import visitation

__all__ = [
  "Episode",
  "Policy",
  "Result",
  "aggregates",
  "budget",
  "check_spec",
  "evaluate",
  "iqm",
  "make",
  "normalized",
  "play",
  "random_policy",
  "record_video",
  "spec",
  "summary",
  "visitation",
]
