"""From a config's ``agent`` section to an agent."""

import difflib
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

import ilx
import ilx.testing
from ilx import ranges
from ilx.networks import heads
from ilx.parallel import placement

# Neither the combinators, which make agents of agents, nor what makes optimizers.
AGENTS = tuple(name for name in ilx.agents.__all__ if name not in ("augmented", "averaged", "frozen"))

# Fields of the section that are not arguments of the constructor but make its optimizers, with their defaults.
_OPTIMIZER = {
  "learning_rate": 3e-4,
  "critic_learning_rate": None,
  "schedule": "constant",
  "warmup": 0,
  "weight_decay": 0.0,
  "gradient_clip": 0.0,
  "accumulate": 1,
  "freeze": "",
}

# Fields that are options of heads, for agents that have an argument for them.
_HEAD = tuple(dict.fromkeys(option for head in heads.HEADS for option in heads.options(head)))

# Arguments of constructors that no config can give.
_NO_FIELDS = ("optimizer", "policy_optimizer", "critic_optimizer", "network", "head_options", "frame_stack")

# Of a field that a config leaves to the data (None), the value that the returns in the data give.
_OF_DATA = {
  # Kostrikov et al. 2021, appendix B: locomotion's rewards are divided by the range of the returns.
  "reward_scale": lambda low, high: 1000.0 / (high - low) if high > low else 1.0,
  # The best that was seen.
  "target_return": lambda low, high: high,
}


def make(
  config: Mapping[str, Any],
  spec: ilx.Spec,
  steps: int,
  frame_stack: int = 0,
  facts: Mapping[str, Any] | None = None,
  data: ilx.data.Episodes | ilx.data.Stream | None = None,
) -> ilx.Agent:
  """The agent ``config["name"]``, the fields being its hyper-parameters; empty strings mean defaults.

  The name is one of ``AGENTS``, or ``module:function`` of a constructor elsewhere, which is imported.

  The optimizer is Adam. Of agents that learn values too, with an argument ``policy_optimizer``, the schedule is for the
  policy alone. ``critic_learning_rate``, where it is not None, is for agents with an argument ``critic_optimizer``.

  Args:
    config: the section. ``learning_rate``; ``schedule`` ("constant", or "cosine" down to zero after as many updates as
      the run has; a policy with a delay makes fewer); ``warmup``, updates in which it rises linearly;
      ``weight_decay`` (decoupled: AdamW); ``gradient_clip``, the largest global norm, 0 for none; ``accumulate``, over
      how many updates gradients are averaged before the optimizer has its step; ``freeze``, a pattern of parameters
      that stay as they are; ``ema``, the decay of an average of params, 0 for none; ``augment``, by how many pixels
      pictures are shifted at random; ``encoder_options`` (``ilx.networks.encoders.make``) and the options of heads
      (``ilx.networks.heads.make``), None for their defaults; every other field is an argument of the constructor.
    spec: of the data.
    steps: updates to come, for the schedule.
    frame_stack: how many frames the agent is to stack, where it can.
    facts: on the data (``loading.Data.facts``), for the fields ``reward_scale`` and ``target_return`` where they are
      None.
    data: what is learnt from, for the bins of ``binning="quantile"``.

  Raises:
    ValueError: for an unknown agent or field, naming the nearest valid one.
  """
  fields = dict(config)
  name = fields.pop("name")
  constructor, arguments = _constructor(name)
  if "encoder" not in arguments and fields.get("encoder") == "auto":
    del fields["encoder"]  # every config has it
  of_encoder = dict(fields.pop("encoder_options", None) or {})
  if of_encoder := {option: value for option, value in of_encoder.items() if value is not None}:
    fields["encoder_options"] = of_encoder
  # An agent of one's own may make its optimizer itself, of a learning rate that is its own argument.
  options = {
    field: default if field in arguments else fields.pop(field, default) for field, default in _OPTIMIZER.items()
  }
  if "optimizer" not in arguments and (given := [field for field in options if options[field] != _OPTIMIZER[field]]):
    raise ValueError(f"config.agent.{given[0]}: {name!r} takes no optimizer; leave the field out")
  _check(options["schedule"], ("constant", "cosine"), "config.agent.schedule")
  _check_optimizer(options, steps)
  pixels, decay = fields.pop("augment", 0), fields.pop("ema", 0.0)
  ranges.whole_at_least_0(**{"config.agent.augment": pixels})
  ranges.from_0_to_below_1(**{"config.agent.ema": decay})
  known = [argument for argument in arguments if argument not in _NO_FIELDS]
  known += [*_OPTIMIZER, "augment", "ema", *(_HEAD if "head_options" in arguments else ())]
  for field in fields:
    _check(field, known, "config.agent")
  fields = {field: value for field, value in fields.items() if value != ""}
  of_head = {field: fields.pop(field) for field in _HEAD if field in fields}
  if of_head := {field: value for field, value in of_head.items() if value is not None}:
    fields["head_options"] = of_head
  if of_head.get("binning") == "quantile" and data is not None:
    spec = ilx.data.rank_actions(spec, data)
  for field in [field for field in _OF_DATA if fields.get(field, 0) is None]:
    low, high = ((facts or {}).get(f"data_return_{end}") for end in ("min", "max"))
    if low is None or high is None:
      raise ValueError(f"config.agent.{field}: the data have no rewards that would give it; set it to a number")
    fields[field] = _OF_DATA[field](low, high)
  if frame_stack:
    if "frame_stack" not in arguments:
      raise ValueError(f"config.frame_stack={frame_stack}: the agent {name!r} does not stack frames; set it to 0")
    fields["frame_stack"] = frame_stack
  if (of_critics := options.pop("critic_learning_rate")) is not None:
    if "critic_optimizer" not in arguments:
      raise ValueError(f"config.agent.critic_learning_rate={of_critics}: {name!r} has one learning rate; leave it out")
    fields["critic_optimizer"] = _optimizer(steps, **options | {"learning_rate": of_critics})
  if "policy_optimizer" in arguments:
    fields["policy_optimizer"] = _optimizer(steps, **options)
    options["schedule"] = "constant"
  if "optimizer" in arguments:
    fields["optimizer"] = _optimizer(steps, **options)
  agent = constructor(spec, **fields)
  if is_own(name) and not isinstance(agent, ilx.Agent):
    raise ValueError(f"config.agent.name={name!r} returns a {type(agent).__name__}; it is to return an ilx.Agent")
  if options["freeze"]:
    _check_frozen(agent, spec, frame_stack, options["freeze"])
  if decay:
    agent = ilx.agents.averaged(agent, decay=decay)
  return ilx.agents.augmented(agent, spec, pixels=pixels) if pixels else agent


def is_own(name: str) -> bool:
  """Whether an agent is of another module than ilx's."""
  return ":" in name


def _constructor(name: str) -> tuple[Callable[..., ilx.Agent], list[str]]:
  """What makes the agent, and the names of its arguments behind the spec."""
  if is_own(name):
    module, _, function = name.partition(":")
    try:
      found = getattr(importlib.import_module(module), function)
      inspect.signature(found)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
      raise ValueError(f"config.agent.name={name!r} is no module:function that can be imported: {error}") from error
  else:
    _check(name, AGENTS, "config.agent.name")
    found = getattr(ilx.agents, name)
  parameters = list(inspect.signature(found).parameters.values())[1:]
  return found, [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _optimizer(
  steps: int,
  learning_rate: float,
  schedule: str,
  warmup: int,
  weight_decay: float,
  gradient_clip: float,
  accumulate: int,
  freeze: str,
) -> optax.GradientTransformation:
  steps, warmup = steps // accumulate, warmup // accumulate  # the optimizer's own
  rate: optax.ScalarOrSchedule = learning_rate
  if schedule == "cosine":
    rate = optax.cosine_decay_schedule(learning_rate, max(1, steps - warmup))
  if warmup:
    constant = rate if callable(rate) else optax.constant_schedule(rate)
    rising = optax.linear_schedule(learning_rate / warmup, learning_rate, warmup - 1)  # no update is lost
    rate = optax.join_schedules([rising, constant], [warmup])
  adam = optax.adamw(rate, weight_decay=weight_decay) if weight_decay else optax.adam(rate)
  optimizer = optax.chain(optax.clip_by_global_norm(gradient_clip), adam) if gradient_clip else adam
  if accumulate > 1:
    optimizer = optax.MultiSteps(optimizer, accumulate).gradient_transformation()
  return ilx.agents.frozen(optimizer, freeze) if freeze else optimizer


def _check_optimizer(options: Mapping[str, Any], steps: int) -> None:
  if steps < 1:
    raise ValueError(f"config.steps={steps} must be at least 1")
  accumulate, warmup = options["accumulate"], options["warmup"]
  if not isinstance(accumulate, int) or not 1 <= accumulate <= steps:
    raise ValueError(
      f"config.agent.accumulate={accumulate} must be a whole number from 1 to the number of updates, {steps}"
    )
  for field in ("learning_rate", "critic_learning_rate", "warmup", "weight_decay", "gradient_clip"):
    if options[field] is not None or field == "learning_rate":
      ranges.finite_at_least_0(**{f"config.agent.{field}": options[field]})
  if warmup > steps > 1:
    warnings.warn(
      f"config.agent.warmup={warmup}: the learning rate still rises when the run ends, after config.steps={steps} "
      f"updates, at {100 * steps / warmup:.3g} % of {options['learning_rate']}",
      stacklevel=2,
    )


def _check_frozen(agent: ilx.Agent, spec: ilx.Spec, frame_stack: int, pattern: str) -> None:
  """Raises ValueError where a pattern is of no parameter of the policy, naming some that there are."""
  single = ilx.testing.single_frames(spec) if frame_stack else spec
  episodes = agent.view.prepare(ilx.testing.fake_episodes(single))
  batch = agent.view.take(episodes, episodes.rows[:2])
  network = jax.eval_shape(agent.init, jax.random.key(0), batch).params.network
  paths = [placement.name_of(path) for path, _ in jax.tree.leaves_with_path(network)]
  if not any(re.search(pattern, path) for path in paths):
    raise ValueError(
      f"config.agent.freeze={pattern!r} matches no parameter of the policy (of other networks alone is not "
      f"enough); there are {', '.join(paths)}"
    )


def _check(given: str, known: Any, what: str) -> None:
  if given not in known:
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"{what}: no {given!r}; {hint}")
