"""A policy that is an MLP as the list of its layers, which numpy can compute."""

from typing import Any

import flax.linen as nn

from ilx.agents.rebrac import Head, Torso
from ilx.networks import compound_heads, encoders, heads, mlp
from ilx.types import Agent

# Heads whose mode is tanh of a linear map.
_TANH = (heads.DeterministicHead, heads.GaussianHead, heads.TanhGaussianHead, Head)


def of(agent: Agent) -> list[list[Any]] | None:
  """The layers from standardised, flattened observations to the mode: ``[operation]`` or ``[operation, argument]``.

  Operations are "dense" and "layer_norm", whose argument is a prefix of names in params; "relu", "tanh" and "argmax",
  which have none; "choices", whose argument is the number of actions of each; and "parts", the last one of actions in
  dicts, whose argument has each part's layers by its name. None where the policy is anything but an MLP on flat
  observations, or has a head whose mode is neither tanh of a linear map nor the largest of some logits.
  """
  policy = getattr(agent.act, "network", None)
  if not isinstance(policy, heads.Policy) or not _is_flat(policy.encoder):
    return None
  torso, head = policy.torso, policy.head
  if isinstance(torso, mlp.MLP) and torso.activation is nn.relu:
    order = ("layer_norm", "relu")
  elif isinstance(torso, Torso):
    order = ("relu", "layer_norm")
  else:
    return None
  layers = []
  for place in range(len(torso.features)):
    layers.append(["dense", f"network/params/torso/Dense_{place}"])
    for operation in order:
      if operation == "relu":
        layers.append(["relu"])
      elif torso.layer_norm:
        layers.append(["layer_norm", f"network/params/torso/LayerNorm_{place}"])
  last = _head(head, "network/params/head")
  return None if last is None else [*layers, *last]


def _head(head: nn.Module, name: str) -> list[list[Any]] | None:
  """The layers from features to the mode; ``name``: of the head's parameters."""
  if isinstance(head, _TANH):
    return [["dense", f"{name}/mean"], ["tanh"]]
  if isinstance(head, heads.CategoricalHead):
    return [["dense", f"{name}/logits"], ["argmax"]]
  if isinstance(head, compound_heads.MultiCategoricalHead):
    return [["dense", f"{name}/logits"], ["choices", list(head.num_actions)]]
  if isinstance(head, compound_heads.FactoredHead):
    parts = {part: _head(module, f"{name}/parts_{part}") for part, module in head.parts.items()}
    return None if None in parts.values() else [["parts", parts]]
  return None


def _is_flat(encoder: nn.Module | None) -> bool:
  return encoder is None or (
    isinstance(encoder, encoders.Encoder) and all(leaf.encoder is None for leaf in encoder.leaves)
  )
