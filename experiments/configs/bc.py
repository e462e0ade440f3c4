"""Behaviour cloning of HalfCheetah from 25 episodes of an expert.

python -m experiments.main --config=experiments/configs/bc.py
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Every field can be set on the command line: ``--config.dataset=hopper-expert --config.agent.hidden="(64, 64)"``."""
  config = ml_collections.ConfigDict()

  config.agent = ml_collections.ConfigDict()
  config.agent.name = "bc"
  # "deterministic", "tanh_gaussian" or "categorical"; empty: the first for continuous actions, the last for discrete.
  config.agent.head = ""
  # Widths of the MLP's hidden layers.
  config.agent.hidden = (256, 256)
  config.agent.learning_rate = 3e-4
  # "constant", or "cosine" to decay the learning rate to zero over the run.
  config.agent.schedule = "cosine"

  # A built-in name (built on first use), a name under $ILX_DATA_DIR, or the folder of a TFDS dataset.
  config.dataset = "halfcheetah-expert"
  config.split = "train"
  # The first so many episodes of the split; 0 for all.
  config.num_episodes = 25

  # EnvPool's task; empty: the one that the dataset names.
  config.env_id = ""
  # Its options as a JSON object; empty: those that the dataset names.
  config.env_kwargs = ""

  # Fixes the run.
  config.seed = 0
  # Updates, and transitions in the batch of each, over all devices together.
  config.steps = 50_000
  config.batch_size = 256
  # Updates between two lines of the log, and between two checkpoints.
  config.log_every = 1_000
  config.checkpoint_every = 10_000

  config.evaluation = ml_collections.ConfigDict()
  # Updates between evaluations, and the episodes of each.
  config.evaluation.every = 10_000
  config.evaluation.episodes = 20
  # Of the evaluation that closes the run.
  config.evaluation.final_episodes = 100
  # Of one episode, where the task can be drawn.
  config.evaluation.video = True
  return config
