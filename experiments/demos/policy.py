"""The policies behind the built-in datasets: weight files, and their forward pass in numpy.

A weight file is an ``.npz`` without pickles: float16 arrays named by their path in the network, and ``metadata``, a
JSON string. The forward pass avoids BLAS and threads, so that a dataset is the same, bit for bit, whatever the number
of cores and devices; `agent` gives the same policy to ilx.
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from ilx.agents.bc import Params, bc
from ilx.networks import heads, mlp, scaling
from ilx.types import Agent, Continuous, Discrete, Spec

WEIGHTS = pathlib.Path(__file__).parent / "weights"

# (observations float32 [B, O], generator or None for the mode) -> actions, float32 [B, A] or int32 [B].
Act = Callable[[np.ndarray, np.random.Generator | None], np.ndarray]
Weights = Mapping[str, np.ndarray]


class Policy(NamedTuple):
  """A weight file in memory.

  Attributes:
    weights: float32, by path in the network, such as ``torso/Dense_0/kernel``.
    metadata: where it came from and what it scores; see `experiments.demos.export`.
  """

  weights: Weights
  metadata: dict[str, Any]


def load(name: str) -> Policy:
  """The shipped policy ``name``, such as "halfcheetah-expert".

  Raises:
    FileNotFoundError: where no such policy ships; the message lists those that do.
  """
  path = WEIGHTS / f"{name}.npz"
  if not path.is_file():
    raise FileNotFoundError(f"no policy {name!r}; there are {', '.join(sorted(p.stem for p in WEIGHTS.glob('*.npz')))}")
  with np.load(path, allow_pickle=False) as arrays:
    metadata = json.loads(str(arrays["metadata"]))
    weights = {key: arrays[key].astype(np.float32) for key in arrays.files if key != "metadata"}
  return Policy(weights, metadata)


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes ``arrays`` whole or not at all."""
  part = path.with_suffix(".part")
  with open(part, "wb") as file:
    np.savez(file, **arrays)
  os.replace(part, path)


def flatten(params: Any) -> dict[str, np.ndarray]:
  """Network variables by path."""
  return {key: np.asarray(x) for key, x in traverse_util.flatten_dict(params["params"], sep="/").items()}


def _dense(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
  # einsum sums in one fixed order; a matrix product of BLAS depends on the number of threads.
  return np.einsum("bi,ij->bj", x, weights[f"{name}/kernel"]) + weights[f"{name}/bias"]


def act(weights: Weights) -> Act:
  """The policy in numpy: of SAC where there is a ``head/mean``, of PPO where there are ``head/logits``."""
  layers = sum(key.startswith("torso/") and key.endswith("/kernel") for key in weights)
  continuous = "head/mean/kernel" in weights
  low, high = np.float32(heads.TanhGaussianHead.log_std_min), np.float32(heads.TanhGaussianHead.log_std_max)

  def features(x: np.ndarray) -> np.ndarray:
    for i in range(layers):
      x = _dense(weights, f"torso/Dense_{i}", x)
      x = np.maximum(x, 0) if continuous else np.tanh(x)
    return x

  def tanh_gaussian(observation, rng):
    x = features(observation)
    unsquashed = _dense(weights, "head/mean", x)
    if rng is not None:
      std = np.exp(np.clip(_dense(weights, "head/log_std", x), low, high))
      unsquashed = unsquashed + std * rng.standard_normal(std.shape, np.float32)
    return np.tanh(unsquashed)

  def categorical(observation, rng):
    logits = _dense(weights, "head/logits", features(observation))
    if rng is not None:
      logits = logits + rng.gumbel(size=logits.shape)
    return np.argmax(logits, axis=-1).astype(np.int32)

  return tanh_gaussian if continuous else categorical


def uniform(action: Continuous | Discrete) -> Act:
  """Uniformly random actions."""

  def continuous(observation, rng):
    return rng.uniform(action.low, action.high, (len(observation), action.size)).astype(np.float32)

  def discrete(observation, rng):
    return rng.integers(action.num_actions, size=len(observation), dtype=np.int32)

  return continuous if isinstance(action, Continuous) else discrete


def agent(policy: Policy) -> tuple[Agent, Params]:
  """The policy as an ilx agent and the params it plays with: ``agent.act(params, (), step, key)``."""
  weights = policy.weights
  observation_size, hidden = weights["torso/Dense_0/kernel"].shape
  observation = jax.ShapeDtypeStruct((observation_size,), np.float32)
  layers = sum(key.startswith("torso/") and key.endswith("/kernel") for key in weights)
  if "head/mean/kernel" in weights:
    ones = np.ones(weights["head/mean/bias"].size, np.float32)
    spec = Spec(observation, Continuous(-ones, ones))
    network = heads.Policy(mlp.MLP((hidden,) * layers), heads.TanhGaussianHead(spec.action.size))
  else:
    spec = Spec(observation, Discrete(weights["head/logits/bias"].size))
    head = heads.CategoricalHead(spec.action.num_actions)
    network = heads.Policy(mlp.MLP((hidden,) * layers, activation=nn.tanh), head)
  variables = {"params": traverse_util.unflatten_dict(dict(weights), sep="/")}
  return bc(spec, network=network), Params(variables, None, scaling.action_scale(spec.action))
