"""Learning algorithms: one file each, one constructor each, all returning `ilx.Agent`."""

from ilx.agents.bc import bc

__all__ = ["bc"]
