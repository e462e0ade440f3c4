"""Training: large device programs, checkpoints, logs."""

from ilx.training.trainer import train

__all__ = ["train"]
