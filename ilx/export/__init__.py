"""Agents that travel: a trained policy as one folder that plays with jax alone, or, an MLP, with numpy alone."""

from ilx.export.play import Policy, load, numpy_policy
from ilx.export.saving import PLATFORMS, save

__all__ = ["PLATFORMS", "Policy", "load", "numpy_policy", "save"]
