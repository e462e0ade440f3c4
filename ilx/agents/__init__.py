"""Learning algorithms: one file each, one constructor each, all returning `ilx.Agent`; combinators take one, too.

`frozen` makes optimizers that leave parameters as they are.
"""

from ilx.agents.augmented import augmented
from ilx.agents.averaged import averaged
from ilx.agents.bc import bc
from ilx.agents.bc_transformer import bc_transformer
from ilx.agents.chunked_bc import chunked_bc
from ilx.agents.dt import dt
from ilx.agents.frozen import frozen
from ilx.agents.iql import iql
from ilx.agents.rebrac import rebrac
from ilx.agents.td3_bc import td3_bc

__all__ = [
  "augmented",
  "averaged",
  "bc",
  "bc_transformer",
  "chunked_bc",
  "dt",
  "frozen",
  "iql",
  "rebrac",
  "td3_bc",
]
