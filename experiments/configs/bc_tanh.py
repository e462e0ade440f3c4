"""Behaviour cloning with a squashed Gaussian, which plays its mode: for actions that were sampled from such a policy.

python -m experiments.main --config=experiments/configs/bc_tanh.py --config.dataset=hopper-medium
"""

import ml_collections

from experiments.configs import bc


def get_config() -> ml_collections.ConfigDict:
  """As ``bc.py``, with the head of soft actor-critic, whose samples the built-in datasets of locomotion are."""
  config = bc.get_config()
  config.dataset = "hopper-medium"
  config.agent.head = "tanh_gaussian"
  return config
