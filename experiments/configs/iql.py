"""Implicit Q-learning on HalfCheetah, from as many transitions by an expert as by a mediocre policy.

python -m experiments.main --config=experiments/configs/iql.py

The paper's hyper-parameters; its runs are a million updates (`--config.steps=1_000_000`). For antmaze it has
`--config.agent.expectile=0.9 --config.agent.temperature=10 --config.agent.reward_scale=1
--config.agent.reward_shift=-1`, for kitchen and adroit `--config.agent.temperature=0.5 --config.agent.dropout=0.1
--config.agent.reward_scale=1`: it scales the rewards of locomotion alone.
"""

import ml_collections
from ml_collections import config_dict

from experiments.configs import defaults


def get_config() -> ml_collections.ConfigDict:
  """Fields are set as ``--config.dataset=hopper-expert --config.agent.expectile=0.9``; see ``defaults.py``."""
  config = defaults.get_config()

  config.agent.name = "iql"
  # Which expectile of Q, over the data's actions, V is: 0.5 is the mean, 1 the maximum.
  config.agent.expectile = 0.7
  # How sharply the policy prefers better actions; 0: behaviour cloning.
  config.agent.temperature = 3.0
  # Where the weight of an action is clipped.
  config.agent.max_weight = 100.0
  config.agent.discount = 0.99
  # Of the target Q's moving average.
  config.agent.tau = 0.005
  # What the rewards are multiplied by; None: by 1000 / (highest - lowest return of the data's episodes), as the paper
  # does for locomotion. And what is then added to them.
  config.agent.reward_scale = config_dict.placeholder(float)
  config.agent.reward_shift = 0.0
  # "gaussian", "tanh_gaussian", "deterministic" or "categorical"; empty: the first for continuous actions, the last
  # for discrete.
  config.agent.head = ""
  # How many Q there are, of which the smallest counts. More than two are divided over the mesh's tensor.
  config.agent.num_critics = 2
  # Widths of the hidden layers of policy, V and Q.
  config.agent.hidden = (256, 256)
  # In the policy, and layer norm in V and Q.
  config.agent.dropout = 0.0
  config.agent.layer_norm = False
  config.agent.n_step = 1
  config.agent.learning_rate = 3e-4
  # "constant", or "cosine" to decay the policy's learning rate to zero over the run.
  config.agent.schedule = "cosine"

  config.dataset = "halfcheetah-medium-expert"
  config.steps = 100_000
  return config
