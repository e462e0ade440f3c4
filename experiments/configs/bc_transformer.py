"""Behaviour cloning with history: a causal transformer over the last steps, on HalfCheetah, 100 episodes of an expert.

python -m experiments.main --config=experiments/configs/bc_transformer.py

For tasks in which one observation does not say enough: what is hidden, what happened before, who is being imitated. A
batch of 64 windows of 20 steps has as many steps as five of `bc`'s batches.
"""

import ml_collections

from experiments.configs import defaults


def get_config() -> ml_collections.ConfigDict:
  """Fields are set as ``--config.dataset=hopper-expert --config.agent.length=50``; see ``defaults.py``."""
  config = defaults.get_config()

  config.agent.name = "bc_transformer"
  # Steps in a window of the data and, at most, in what the policy remembers.
  config.agent.length = 20
  # Whether past actions are seen, too; policies then tend to repeat themselves.
  config.agent.actions = False
  # As of bc.
  config.agent.head = ""
  defaults.head_options(config)
  # Of the transformer. Heads divide the width.
  config.agent.layers = 3
  config.agent.heads = 4
  config.agent.width = 128
  config.agent.dropout = 0.1
  config.agent.attention_dropout = 0.0
  # "rotary" or "learnt".
  config.agent.positions = "rotary"
  # "float32" or "bfloat16", of the computation; parameters are float32.
  config.agent.dtype = "float32"
  # What the backward pass computes again to save memory: empty nothing, "dots" all but matmuls, "full" all layers.
  config.agent.remat = ""
  config.agent.learning_rate = 3e-4
  # "constant", or "cosine" to decay the learning rate to zero over the run, once it has risen.
  config.agent.schedule = "cosine"
  config.agent.warmup = 500
  config.agent.weight_decay = 0.01
  config.agent.gradient_clip = 1.0

  config.dataset = "halfcheetah-expert"
  # Windows in a batch.
  config.batch_size = 64
  config.steps = 20_000
  return config
