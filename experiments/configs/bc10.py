"""Behaviour cloning of the best 10 % (Chen et al. 2021, "%BC"): the episodes with the highest returns.

python -m experiments.main --config=experiments/configs/bc10.py --config.dataset=hopper-medium-replay
"""

import ml_collections

from experiments.configs import bc


def get_config() -> ml_collections.ConfigDict:
  """As ``bc.py``, on a tenth of the transitions of a whole dataset."""
  config = bc.get_config()
  config.dataset = "halfcheetah-medium-replay"
  config.split = "train"
  config.top_return = 0.1
  return config
