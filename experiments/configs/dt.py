"""Decision transformer on Hopper, from the replay of a training run, with the paper's hyper-parameters for Gym.

python -m experiments.main --config=experiments/configs/dt.py
"""

import ml_collections
from ml_collections import config_dict

from experiments.configs import defaults


def get_config() -> ml_collections.ConfigDict:
  """See ``defaults.py`` for the fields of data, run and evaluation."""
  config = defaults.get_config()

  config.agent.name = "dt"
  # The return to ask for at play; None: the highest of the data's episodes. The paper asks for about what an expert
  # earns, on D4RL's data 6000 for HalfCheetah, 3600 for Hopper and 5000 for Walker2d.
  config.agent.target_return = config_dict.placeholder(float)
  # By which returns are divided; such that those of the data come out at about 1 to 10.
  config.agent.return_scale = 1000.0
  # Steps of a context.
  config.agent.length = 20
  # Of the transformer.
  config.agent.layers = 3
  config.agent.heads = 1
  config.agent.width = 128
  config.agent.activation = "relu"
  # Of tokens and of what attention and MLPs add to them, and of attention weights.
  config.agent.dropout = 0.1
  config.agent.attention_dropout = 0.1
  # How many steps of an episode have an embedding of their own; all later ones share the last of them.
  config.agent.max_episode_steps = 1_000
  # As in ``bc_transformer.py``.
  config.agent.dtype = "float32"
  config.agent.remat = ""
  # As in ``bc.py``.
  config.agent.head = ""
  defaults.head_options(config)
  # AdamW on gradients clipped to a global norm; the learning rate rises linearly for ``warmup`` updates.
  config.agent.learning_rate = 1e-4
  config.agent.schedule = "constant"
  config.agent.warmup = 10_000
  config.agent.weight_decay = 1e-4
  config.agent.gradient_clip = 0.25

  config.dataset = "hopper-medium-replay"
  config.steps = 100_000
  config.batch_size = 64
  return config
