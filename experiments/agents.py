"""From a config's ``agent`` section to an agent."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import optax

import ilx
from ilx.networks import heads

# Not the combinators, which make agents of agents.
AGENTS = tuple(name for name in ilx.agents.__all__ if name != "augmented")

# Fields of the section that are not arguments of the constructor but make its optimizers, with their defaults.
_OPTIMIZER = {"learning_rate": 3e-4, "schedule": "constant", "warmup": 0, "weight_decay": 0.0, "gradient_clip": 0.0}

# Fields that are options of heads, for agents that have an argument for them.
_HEAD = tuple(dict.fromkeys(option for head in heads.HEADS for option in heads.options(head)))

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

  The optimizer is Adam. Of agents that learn values too, with an argument ``policy_optimizer``, the schedule is for the
  policy alone.

  Args:
    config: the section. ``learning_rate``; ``schedule`` ("constant", or "cosine" down to zero at the run's end);
      ``warmup``, updates in which it rises linearly; ``weight_decay`` (decoupled: AdamW); ``gradient_clip``, the
      largest global norm, 0 for none; ``augment``, by how many pixels pictures are shifted at random; the options of
      heads (``ilx.networks.heads.make``), None for their defaults; every other field is an argument of the constructor.
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
  _check(name, AGENTS, "config.agent.name")
  constructor = getattr(ilx.agents, name)
  options = {field: fields.pop(field, default) for field, default in _OPTIMIZER.items()}
  _check(options["schedule"], ("constant", "cosine"), "config.agent.schedule")
  pixels = fields.pop("augment", 0)
  arguments = [p.name for p in inspect.signature(constructor).parameters.values() if p.kind is p.KEYWORD_ONLY]
  known = [*arguments, *_OPTIMIZER, "augment", *(_HEAD if "head_options" in arguments else ())]
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
  if "policy_optimizer" in arguments:
    fields["policy_optimizer"] = _optimizer(steps, **options)
    options["schedule"] = "constant"
  agent = constructor(spec, optimizer=_optimizer(steps, **options), **fields)
  return ilx.agents.augmented(agent, spec, pixels=pixels) if pixels else agent


def _optimizer(
  steps: int, learning_rate: float, schedule: str, warmup: int, weight_decay: float, gradient_clip: float
) -> optax.GradientTransformation:
  rate: optax.ScalarOrSchedule = learning_rate
  if schedule == "cosine":
    rate = optax.cosine_decay_schedule(learning_rate, max(1, steps - warmup))
  if warmup:
    constant = rate if callable(rate) else optax.constant_schedule(rate)
    rising = optax.linear_schedule(learning_rate / warmup, learning_rate, warmup - 1)  # no update is lost
    rate = optax.join_schedules([rising, constant], [warmup])
  adam = optax.adamw(rate, weight_decay=weight_decay) if weight_decay else optax.adam(rate)
  return optax.chain(optax.clip_by_global_norm(gradient_clip), adam) if gradient_clip else adam


def _check(given: str, known: Any, what: str) -> None:
  if given not in known:
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"{what}: no {given!r}; {hint}")
