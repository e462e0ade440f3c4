"""Convolutions in float64, from their definition."""

import numpy as np


def conv(x: np.ndarray, layer: dict, stride: int = 1, padding: int = 0) -> np.ndarray:
  """``[H, W, C]`` to ``[H', W', O]``: a flax layer's kernel ``[K, K, C, O]`` and bias; zeros around the picture."""
  kernel, bias = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)
  x = np.pad(np.asarray(x, np.float64), ((padding, padding), (padding, padding), (0, 0)))
  size = kernel.shape[0]
  height, width = ((n - size) // stride + 1 for n in x.shape[:2])
  out = np.empty((height, width, kernel.shape[-1]))
  for i in range(height):
    for j in range(width):
      patch = x[i * stride : i * stride + size, j * stride : j * stride + size]
      out[i, j] = np.einsum("abc,abco->o", patch, kernel) + bias
  return out


def dense(x: np.ndarray, layer: dict) -> np.ndarray:
  """``[F]`` to ``[O]``."""
  return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def relu(x: np.ndarray) -> np.ndarray:
  """``max(x, 0)``."""
  return np.maximum(x, 0.0)
