"""From a config's ``agent`` section to an agent."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import optax

import ilx

# Fields of the section that are not arguments of the constructor.
_OPTIMIZER_FIELDS = ("learning_rate", "schedule")


def make(config: Mapping[str, Any], spec: ilx.Spec, steps: int, frame_stack: int = 0) -> ilx.Agent:
  """The agent ``config["name"]`` with Adam and the other fields as its hyper-parameters; empty strings mean defaults.

  Args:
    config: the section.
    spec: of the data.
    steps: updates to come, for the schedule.
    frame_stack: how many frames the agent is to stack, where it can.

  Raises:
    ValueError: for an unknown agent or field, naming the nearest valid one.
  """
  fields = dict(config)
  name = fields.pop("name")
  _check(name, ilx.agents.__all__, "config.agent.name")
  constructor = getattr(ilx.agents, name)
  learning_rate, schedule = (fields.pop(field) for field in _OPTIMIZER_FIELDS)
  _check(schedule, ("constant", "cosine"), "config.agent.schedule")
  if schedule == "cosine":
    learning_rate = optax.cosine_decay_schedule(learning_rate, steps)
  arguments = [p.name for p in inspect.signature(constructor).parameters.values() if p.kind is p.KEYWORD_ONLY]
  for field in fields:
    _check(field, arguments, "config.agent")
  fields = {field: value for field, value in fields.items() if value != ""}
  if frame_stack:
    if "frame_stack" not in arguments:
      raise ValueError(f"config.frame_stack={frame_stack}: the agent {name!r} does not stack frames; set it to 0")
    fields["frame_stack"] = frame_stack
  return constructor(spec, optimizer=optax.adam(learning_rate), **fields)


def _check(given: str, known: Any, what: str) -> None:
  if given not in known:
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"{what}: no {given!r}; {hint}")
