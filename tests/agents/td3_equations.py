"""TD3+BC and ReBRAC as the papers write them: float64 numpy, gradients by central differences, gradient descent.

What a paper holds constant in a gradient (targets, lambda, the other networks) is a number here, so a gradient that
flows where it should not shows.
"""

import numpy as np

_STEP = 1e-6


def policy(layers, observation):
  """Actions in [-1, 1]: ``[B, A]``. ``layers`` are a flax module's, in float64."""
  return np.tanh(_dense(layers["head"]["mean"], _torso(layers["torso"], observation)))


def critic(layers, observation, action):
  """``[B]``."""
  x = np.concatenate([observation, action], axis=1)
  return _dense(layers["value"], _torso(layers["torso"], x))[:, 0]


def _torso(layers, x):
  for number in range(sum(name.startswith("Dense") for name in layers)):
    x = np.maximum(_dense(layers[f"Dense_{number}"], x), 0.0)
    if (norm := layers.get(f"LayerNorm_{number}")) is not None:
      centred = x - x.mean(axis=1, keepdims=True)
      x = norm["scale"] * centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6) + norm["bias"]
  return x


def _dense(layer, x):
  return x @ layer["kernel"] + layer["bias"]


def gradient(loss, tree):
  """Of ``loss(tree)`` to all leaves of ``tree``, which are changed in place and put back."""

  def within(part):
    if isinstance(part, dict):
      return {name: within(part[name]) for name in part}
    found = np.zeros_like(part)
    for index in np.ndindex(part.shape):
      kept = part[index]
      part[index] = kept + _STEP
      above = loss(tree)
      part[index] = kept - _STEP
      found[index] = (above - loss(tree)) / (2 * _STEP)
      part[index] = kept
    return found

  return within(tree)


def descend(tree, gradients, rate):
  """``tree - rate * gradients``."""
  return _map(lambda x, g: x - rate * g, tree, gradients)


def moved(target, tree, tau):
  """The target's moving average: ``tau * tree + (1 - tau) * target``."""
  return _map(lambda t, x: tau * x + (1 - tau) * t, target, tree)


def _map(function, a, b):
  if isinstance(a, dict):
    return {name: _map(function, a[name], b[name]) for name in a}
  return function(a, b)


def smoothed(action, noise, clip):
  """The target policy's action with clipped noise."""
  return np.clip(action + np.clip(noise, -clip, clip), -1, 1)


def descend_critics(critics, observation, action, target_q, rate):
  """One step on ``sum_k mean (Q_k - target)^2``: the loss before it, and the critics after."""
  total, after = 0.0, []
  for layers in critics:

    def loss(layers):
      return np.mean((critic(layers, observation, action) - target_q) ** 2)

    total += loss(layers)
    after.append(descend(layers, gradient(loss, layers), rate))
  return total, after
