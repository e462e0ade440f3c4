"""The policies behind the built-in datasets: weight files, and their forward pass in numpy.

A weight file is an ``.npz`` without pickles: float16 arrays named by their path in the network, and ``metadata``, a
JSON string. The forward pass avoids BLAS, threads and accelerators, so that a dataset is the same, bit for bit,
whatever the number of cores and devices. `agent` is the same policy as any other of ilx.
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

from ilx.agents.bc import bc
from ilx.agents.policies import Params
from ilx.evaluation import acting
from ilx.networks import heads, mlp, scaling
from ilx.types import Agent, Continuous, Discrete, Spec, Tree

WEIGHTS = pathlib.Path(__file__).parent / "weights"

# (observations float32 [B, O], or a tree; generator, or None for the mode) -> actions, float32 [B, A] or int32 [B].
Forward = Callable[[Tree, np.random.Generator | None], np.ndarray]
Weights = Mapping[str, np.ndarray]


class Policy(NamedTuple):
  """A weight file in memory.

  Attributes:
    weights: float32, by path in the network, such as ``torso/Dense_0/kernel``.
    metadata: where it came from and what it scores; see `experiments.demos.export`.
  """

  weights: Weights
  metadata: dict[str, Any]


def path(name: str) -> pathlib.Path:
  """The weight file of the shipped policy ``name``, such as "halfcheetah-expert".

  Raises:
    FileNotFoundError: where no such policy ships; the message lists those that do.
  """
  file = WEIGHTS / f"{name}.npz"
  if not file.is_file():
    raise FileNotFoundError(f"no policy {name!r}; there are {', '.join(sorted(p.stem for p in WEIGHTS.glob('*.npz')))}")
  return file


def load(name: str) -> Policy:
  """The shipped policy ``name``; raises as `path` does."""
  with np.load(path(name), allow_pickle=False) as arrays:
    metadata = json.loads(str(arrays["metadata"]))
    weights = {key: arrays[key].astype(np.float32) for key in arrays.files if key != "metadata"}
  return Policy(weights, metadata)


def write_npz(file: pathlib.Path, arrays: dict[str, np.ndarray], *, compressed: bool = False) -> None:
  """Writes ``arrays`` whole or not at all."""
  part = file.with_suffix(".part")
  with open(part, "wb") as stream:
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
  os.replace(part, file)


def flatten(params: Any) -> dict[str, np.ndarray]:
  """Network variables by path."""
  return {key: np.asarray(x) for key, x in traverse_util.flatten_dict(params["params"], sep="/").items()}


def spec(weights: Weights) -> Spec:
  """What the policy plays."""
  observation = jax.ShapeDtypeStruct((weights["torso/Dense_0/kernel"].shape[0],), np.float32)
  if "head/mean/bias" in weights:
    ones = np.ones(weights["head/mean/bias"].size, np.float32)
    return Spec(observation, Continuous(-ones, ones))
  return Spec(observation, Discrete(weights["head/logits/bias"].size))


def _num_layers(weights: Weights) -> int:
  return sum(key.startswith("torso/") and key.endswith("/kernel") for key in weights)


def _dense(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
  # einsum sums in one fixed order; a matrix product of BLAS depends on the number of threads.
  return np.einsum("bi,ij->bj", x, weights[f"{name}/kernel"]) + weights[f"{name}/bias"]


def forward(weights: Weights) -> Forward:
  """The policy in numpy: of SAC where the actions are continuous, of PPO where they are discrete."""
  layers = _num_layers(weights)
  continuous = isinstance(spec(weights).action, Continuous)
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


def uniform(action: Continuous | Discrete) -> Forward:
  """Uniformly random actions; they have no mode."""

  def continuous(observation, rng):
    return rng.uniform(action.low, action.high, (_batch_size(observation), action.size)).astype(np.float32)

  def discrete(observation, rng):
    return rng.integers(action.num_actions, size=_batch_size(observation), dtype=np.int32)

  return continuous if isinstance(action, Continuous) else discrete


def _batch_size(observation: Tree) -> int:
  return len(jax.tree.leaves(observation)[0])


def player(act: Forward, action: Continuous | Discrete) -> acting.Policy:
  """A numpy policy for `ilx.evaluate`, to be played with params ``()``; the key seeds numpy's generator."""

  def on_host(observation, *key):
    rng = np.random.Generator(np.random.Philox(key=np.asarray(key[0], np.uint64))) if key else None
    return act(jax.tree.map(np.asarray, observation), rng)

  def jax_act(params, carry, step, key):
    del params
    batch_size = step.reward.shape[0]
    if isinstance(action, Continuous):
      result = jax.ShapeDtypeStruct((batch_size, action.size), np.float32)
    else:
      result = jax.ShapeDtypeStruct((batch_size,), np.int32)
    bits = () if key is None else (jax.random.key_data(key),)
    return jax.pure_callback(on_host, result, step.observation, *bits), carry

  return acting.Policy(act=jax_act, carry=lambda batch_size: ())


def agent(policy: Policy) -> tuple[Agent, Params]:
  """The policy as an ilx agent and the params it plays with."""
  task, weights = spec(policy.weights), policy.weights
  hidden = (weights["torso/Dense_0/bias"].size,) * _num_layers(weights)
  if isinstance(task.action, Continuous):
    network = heads.Policy(mlp.MLP(hidden), heads.TanhGaussianHead(task.action.size))
  else:
    network = heads.Policy(mlp.MLP(hidden, activation=nn.tanh), heads.CategoricalHead(task.action.num_actions))
  variables = {"params": traverse_util.unflatten_dict(dict(weights), sep="/")}
  return bc(task, network=network), Params(variables, None, scaling.action_scale(task.action))
