"""What a config asks to be learnt, and where it is to be scored."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections

import ilx
from experiments import choosing, loading, versions
from ilx.evaluation import environments, matching, observed

# What config.env_id says where there is no environment.
NONE = "none"
# Of the environment as recorded: scores between them mean nothing elsewhere.
_REFERENCES = ("expert_return", "random_return")


class Task(NamedTuple):
  """What is learnt and where it is scored.

  Attributes:
    data: what is learnt from, its spec with the environment's action bounds.
    env_id: EnvPool's task; None: nothing is played.
    env_kwargs: its options.
    metadata: what the datasets' own say alike.
    as_recorded: False where the datasets name another environment, or other options of it.
  """

  data: loading.Data
  env_id: str | None
  env_kwargs: dict[str, Any]
  metadata: dict[str, Any]
  as_recorded: bool = True


def load(
  config: ml_collections.ConfigDict,
  progress: loading.Progress | None = None,
  recorded: Mapping[str, versions.Version] | None = None,
) -> Task:
  """Builds or finds the datasets, opens them, and checks them against the environment.

  Args:
    config: of the run.
    progress: of reading the data.
    recorded: the versions that the run began with; see `choosing.parts`.

  Raises:
    FileNotFoundError, ImportError, OSError, ValueError: naming the file or the field of the config at fault.
  """
  if config.env_id not in ("", NONE):
    environments.spec(config.env_id, **_env_kwargs(config, {}))  # an unknown task is said before anything is built
  parts = choosing.parts(config, recorded)
  held = choosing.heldout(config, parts, recorded)
  metadata = choosing.agreed(parts)
  env_id = config.env_id or metadata.get("env_id")
  if not env_id:
    raise ValueError(_no_environment(parts))
  options = {} if progress is None else {"progress": progress}
  if env_id == NONE:
    return Task(loading.load(config, parts, held, **options), None, {}, metadata)
  env_kwargs = _env_kwargs(config, metadata)
  env_spec = environments.spec(env_id, **env_kwargs)
  if isinstance(env_spec.action, ilx.Discrete):
    options["num_actions"] = env_spec.action.num_actions
  played = metadata.get("env_id"), metadata.get("env_kwargs") or {}
  as_recorded = not played[0] or (env_id == played[0] and same(env_kwargs, played[1]))
  if not as_recorded:
    metadata = {name: value for name, value in metadata.items() if name not in _REFERENCES}
  data = loading.load(config, parts, held, **options)
  try:
    matching.check_spec(data.spec, env_spec, env_id)
  except ValueError as error:
    without = f"--config.env_id={NONE} trains without playing."
    raise ValueError(f"{error} {_hint(data.spec, env_spec, config.frame_stack)}{without}") from None
  data = data._replace(spec=data.spec._replace(action=env_spec.action))
  return Task(data, env_id, env_kwargs, metadata, as_recorded)


def _no_environment(parts: Sequence[choosing.Part]) -> str:
  say = "say which with --config.env_id=..., or --config.env_id=none to train without"
  named = {part.name: part.info.metadata.get("env_id") for part in parts}
  if any(named.values()):
    return f"the datasets name different environments ({', '.join(f'{k}: {v}' for k, v in named.items())}); {say}"
  return f"{parts[0].info.directory} names no environment; {say}"


def _hint(data: ilx.Spec, environment: ilx.Spec, frame_stack: int) -> str:
  """What to do where one of environment and data stacks frames and the other does not."""
  ours, theirs = jax.tree.leaves(data.observation), jax.tree.leaves(environment.observation)
  if frame_stack and [leaf.shape[1:] for leaf in ours] == [leaf.shape for leaf in theirs]:
    return (
      f"config.frame_stack={frame_stack} is for environments that give stacks of frames, which this one does not: "
      "leave it out; agents with a memory (bc_transformer, dt) need no stacks. "
    )
  frames = matching.stacked(data, environment)
  return f"If its observations are stacked frames: --config.frame_stack={frames}. " if frames else ""


def _env_kwargs(config: ml_collections.ConfigDict, recorded: Mapping[str, Any]) -> dict[str, Any]:
  options = dict(recorded.get("env_kwargs") or {})
  if not config.env_kwargs:
    return options
  return observed.instead(options, json_object(config.env_kwargs, "config.env_kwargs"))


def same(env_kwargs: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
  """Whether two of these make one task, whatever is seen of it."""
  return observed.apart(env_kwargs)[1] == observed.apart(others)[1]


def json_object(text: str, what: str) -> dict[str, Any]:
  """The object that ``text`` is; ValueError, naming ``what`` it is of, where it is none."""
  try:
    given = json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(f"{what} is not JSON ({error}): {text!r}") from None
  if not isinstance(given, dict):
    raise ValueError(f"{what} must be a JSON object, got {text}")
  return given
