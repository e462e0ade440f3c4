"""A policy that is an MLP as the list of its layers, which numpy can compute."""

import flax.linen as nn

from ilx.agents.rebrac import Head, Torso
from ilx.networks import encoders, heads, mlp
from ilx.types import Agent

# Heads whose mode is tanh of a linear map.
_TANH = (heads.DeterministicHead, heads.GaussianHead, heads.TanhGaussianHead, Head)


def of(agent: Agent) -> list[list[str]] | None:
  """The layers from standardised, flattened observations to the mode: ``[operation]`` or ``[operation, parameters]``.

  Operations are "dense", "layer_norm", "relu", "tanh" and "argmax"; parameters are a prefix of names in params. None
  where the policy is anything but an MLP on flat observations with one action of continuous numbers or one choice.
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
  if isinstance(head, _TANH):
    return [*layers, ["dense", "network/params/head/mean"], ["tanh"]]
  if isinstance(head, heads.CategoricalHead):
    return [*layers, ["dense", "network/params/head/logits"], ["argmax"]]
  return None


def _is_flat(encoder: nn.Module | None) -> bool:
  return encoder is None or (
    isinstance(encoder, encoders.Encoder) and all(leaf.encoder is None for leaf in encoder.leaves)
  )
