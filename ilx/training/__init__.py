"""Training: large device programs, checkpoints, logs."""

from ilx.training.checkpoint import CheckpointError
from ilx.training.lock import FolderInUseError
from ilx.training.restoring import restore
from ilx.training.seeds import one_seed
from ilx.training.trainer import Interrupted, train

__all__ = ["CheckpointError", "FolderInUseError", "Interrupted", "one_seed", "restore", "train"]
