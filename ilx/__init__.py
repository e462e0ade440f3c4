"""ilx: imitation learning and offline RL in JAX, from RLDS demonstrations to EnvPool scores."""

from ilx import agents, data, evaluation, export, networks, parallel, training
from ilx.evaluation import evaluate
from ilx.training import train
from ilx.types import Agent, Continuous, Discrete, MultiDiscrete, Spec, Statistics, Step, Transition

__version__ = "0.1.0"

__all__ = [
  "Agent",
  "Continuous",
  "Discrete",
  "MultiDiscrete",
  "Spec",
  "Statistics",
  "Step",
  "Transition",
  "agents",
  "data",
  "evaluate",
  "evaluation",
  "export",
  "networks",
  "parallel",
  "train",
  "training",
]
