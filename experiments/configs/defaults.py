"""The fields that every experiment has: data, run, evaluation. What one algorithm differs in stands in its own file."""

import importlib
import pathlib

import ml_collections
from ml_collections import config_dict


def head_options(config: ml_collections.ConfigDict) -> None:
  """Adds the fields of ``config.agent`` that are options of heads; None for their defaults."""
  # Of "gaussian_mixture": how many components (5), the least standard deviation (1e-4), and whether sampled actions are
  # the means of components (False).
  config.agent.modes = config_dict.placeholder(int)
  config.agent.min_std = config_dict.placeholder(float)
  config.agent.low_noise = config_dict.placeholder(bool)
  # Of "discretised": how many bins a dimension has (256), and whether they are of equal widths ("uniform"), hold equal
  # shares of the data ("quantile"), or are finest about the middle ("mu_law").
  config.agent.bins = config_dict.placeholder(int)
  config.agent.binning = config_dict.placeholder(str)


def _encoder_options() -> ml_collections.ConfigDict:
  """Options of what encodes pictures; None for its defaults."""
  options = ml_collections.ConfigDict()
  # Of all: "float32" or "bfloat16", of the computation; agents with a dtype of their own compute pictures in it, too.
  options.dtype = config_dict.placeholder(str)
  # Of "nature" (512) and "impala" (256): how many features a picture has in the end.
  options.features = config_dict.placeholder(int)
  # Of "impala": a factor of all channels (1), of "vit": the size of a token (128).
  options.width = config_dict.placeholder(int)
  # Of "impala": residual blocks in each of its sections (2).
  options.blocks = config_dict.placeholder(int)
  # Of "vit": pixels on a side of a patch (8), layers (4), heads of the attention (4), and what the backward pass
  # computes again to save memory ("dots" or "full"; nothing).
  options.patch = config_dict.placeholder(int)
  options.layers = config_dict.placeholder(int)
  options.heads = config_dict.placeholder(int)
  options.remat = config_dict.placeholder(str)
  return options


def get_config() -> ml_collections.ConfigDict:
  """A config without an agent; the other files of this folder fill in ``config.agent`` and what they want otherwise."""
  config = ml_collections.ConfigDict()

  config.agent = ml_collections.ConfigDict()
  config.agent.name = ""
  # How pictures in observations become features: "nature" or "impala" (convolutions), "vit", "flat" (as vectors), or
  # "auto": "nature" for those of at least 36 x 36 pixels, "impala" for smaller ones.
  config.agent.encoder = "auto"
  config.agent.encoder_options = _encoder_options()
  # By how many pixels at most pictures are shifted at random in every update; 0: not at all.
  config.agent.augment = 0
  # Updates in which the learning rate rises linearly, the decoupled weight decay (AdamW), the largest global norm of
  # gradients; 0: none.
  config.agent.warmup = 0
  config.agent.weight_decay = 0.0
  config.agent.gradient_clip = 0.0
  # Over how many updates gradients are averaged before the optimizer has its step: batches larger than memory. Exactly
  # that for policies learnt alone, where no step is padding (a batch counts as any other, however many of its steps
  # are); the targets of values still move in every update. It is to divide steps: the rest at the end is lost.
  config.agent.accumulate = 1
  # A regular expression of parameters that stay as they are, of all networks, such as "encoder" (paths are like
  # params/torso/Dense_0/kernel), at least one of the policy's; empty: none.
  config.agent.freeze = ""
  # Decay of the moving average of parameters that is played instead of the last ones, such as 0.999; 0: none.
  config.agent.ema = 0.0

  # A built-in name (built on first use), a name under $ILX_DATA_DIR, or the folder of a TFDS dataset. Several are
  # mixed: "a,b" draws every transition as often as any other, "a=0.7,b=0.3" gives each dataset its share of a batch.
  config.dataset = "halfcheetah-medium"
  # The episodes to learn from, in TFDS' syntax: "train", "train[:25]", "train[:90%]", "train[10:]+val". The statistics
  # by which observations are standardised are of all of them.
  config.split = "train"
  # Of these the ones for which an SQL condition over the table of episodes holds, such as "success AND length > 50"
  # (`python -m experiments.data query` shows the table); empty: all. Held-out episodes are chosen by it, too.
  config.where = ""
  # Of these the episodes with the highest returns, so many that they make up this fraction of the transitions (in each
  # dataset of a mixture); 1.0: all.
  config.top_return = 1.0
  # Episodes to compare the policy's actions with, never to learn from: a split such as "val" or "train[90%:]"; empty:
  # none. Without an environment this is the only score.
  config.heldout = ""
  # What that is a split of, where it is not config.dataset: a dataset with the same fields, such as the recordings of
  # another day, or several, "a,b".
  config.heldout_dataset = ""
  # Fields of the observation to learn from, such as "state,image_0"; empty: all that have a place in arrays (texts have
  # none). One field is an array, several are a dict.
  config.observation = ""
  # The step's field that is the action; empty: "action".
  config.action = ""
  # Values for fields that the dataset lacks, such as "reward=0,is_terminal=false"; empty: every field must be there.
  config.fill = ""
  # How many single frames make an observation, for data that have one frame a step; 0: observations as they are.
  config.frame_stack = 0
  # Where the data are while they are learnt from. "device": a copy on every device; "host": in memory; "mapped": in a
  # cache of columns, written once beside the dataset, that the system reads as needed; "streamed": read from the
  # dataset's files all the while, for what fits nowhere. "auto": mapped if the data, pictures encoded, would take more
  # than half of the free memory; else on the devices if there they take at most half of it, else in memory. The first
  # three draw the same batches, to the bit; streamed, every epoch has each transition exactly once.
  config.tier = "auto"

  # EnvPool's task; empty: the one that the dataset names; "none": there is none, nothing is played.
  config.env_id = ""
  # Its options as a JSON object; empty: those that the dataset names.
  config.env_kwargs = ""

  # Fixes the run; from 0 to 2^32 - 1.
  config.seed = 0
  # So many runs in one program: those of seed, seed + 1, ..., each with its own parameters and batches, as alone; on
  # several devices whole runs are spread over them if the numbers allow, and a CPU of several cores then counts as some
  # (each with the data; not with tier="device"). The result has all, the video is of the first.
  # Where data are streamed, each seed reads them, with a buffer of its own.
  config.seeds = 1
  # Updates, and transitions in the batch of each, over all devices together.
  config.steps = 50_000
  config.batch_size = 256
  # How devices share an update. "jit": the compiler divides it, whatever the agent; "pmap": each has all parameters and
  # averages gradients with the others. What is learnt is the same to rounding.
  config.strategy = "jit"
  # All devices: data x fsdp x tensor, -1 for as many as are left. A batch is divided over the first two. Large
  # parameters and their optimizer's state are divided over fsdp, too; the heads and hidden layers of transformers over
  # tensor. `--explain_placement` shows what goes where. A run may go on with another mesh.
  config.mesh = ml_collections.ConfigDict()
  config.mesh.data = -1
  config.mesh.fsdp = 1
  config.mesh.tensor = 1
  # Updates between two lines of the log, and between two checkpoints.
  config.log_every = 1_000
  config.checkpoint_every = 10_000
  # After so many minutes without a checkpoint one is written at the next line of the log, too (0: none), since updates
  # may be slow.
  config.checkpoint_minutes = 10.0
  # How many of the newest checkpoints stay; those written at multiples of keep_every stay, too (0: no others).
  # One that is damaged on the disk is named, set aside and passed over.
  config.keep = 3
  config.keep_every = 0
  # When a metric is not finite: "stop", with the update's number and its batch in diverged.json; or "skip" updates that
  # make a metric, or a number of what is learnt, not finite, and count them as train/skipped.
  config.on_nonfinite = "stop"
  # Seconds without a batch, of data that is not on the devices, until a warning names the source (again and again; 0:
  # none), and until it is an error (0: never).
  config.data_timeout = 60.0
  config.data_deadline = 0.0

  config.evaluation = ml_collections.ConfigDict()
  # Updates between evaluations, and the episodes played in each.
  config.evaluation.every = 10_000
  config.evaluation.episodes = 20
  # Whether updates go on during these evaluations, which then play on the host's CPU: faster where an accelerator
  # trains. What is learnt is the same. A signal to stop waits for the one under way.
  config.evaluation.beside = False
  # Of the evaluation that closes the run.
  config.evaluation.final_episodes = 100
  # Of one episode, where the task can be drawn.
  config.evaluation.video = True
  return config


def of(agent: str) -> ml_collections.ConfigDict | None:
  """The config of an agent's own file in this folder; None where there is none.

  A run that is older than a field did as the field's default says: this is where its value is found.
  """
  if agent not in {path.stem for path in pathlib.Path(__file__).parent.glob("[a-z]*.py")}:
    return None
  return importlib.import_module(f"experiments.configs.{agent}").get_config()
