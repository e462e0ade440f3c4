"""Behaviour cloning of chunks of actions, played with temporal ensembling (Zhao et al. 2023), on HalfCheetah.

python -m experiments.main --config=experiments/configs/chunked_bc.py
"""

import ml_collections

from experiments.configs import defaults


def get_config() -> ml_collections.ConfigDict:
  """Fields are set as ``--config.agent.length=16 --config.agent.execute=8``; see ``defaults.py``."""
  config = defaults.get_config()

  config.agent.name = "chunked_bc"
  # Actions in a chunk.
  config.agent.length = 8
  # Of all predictions for a step the i-th, the oldest being the 0-th, weighs exp(-ensemble * i).
  config.agent.ensemble = 0.01
  # 0: predict at every step and average; else play so many actions of a chunk before the next is predicted.
  config.agent.execute = 0
  # See ``bc.py``.
  config.agent.head = ""
  defaults.head_options(config)
  # Widths of the MLP's hidden layers.
  config.agent.hidden = (256, 256)
  config.agent.learning_rate = 3e-4
  # "constant", or "cosine" to decay the learning rate to zero over the run.
  config.agent.schedule = "cosine"

  config.dataset = "halfcheetah-expert"
  return config
