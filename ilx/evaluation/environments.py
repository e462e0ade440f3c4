"""Environments: making them, and what an agent must know about them.

They are EnvPool's; names with the prefix "gymnasium:" are of tasks that EnvPool lacks, see `ilx.evaluation.gymnasium`.
"""

import contextlib
import difflib
import types
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ilx.evaluation import gymnasium, observed, repeated
from ilx.evaluation.observed import OBSERVATION, Observed
from ilx.evaluation.repeated import ACTION_REPEAT, Repeated
from ilx.types import Continuous, Discrete, MultiDiscrete, Spec, Tree

# So many names are told all where none is like the one that was given.
_FEW = 20
# Options of the pool, set here; and the folder of assets, which no dataset may choose.
_RESERVED = ("num_envs", "batch_size", "seed", "num_threads", "thread_affinity_offset", "env_type", "base_path")


def slot_seeds(seed: int, num_envs: int) -> np.ndarray:
  """EnvPool seeds of ``num_envs`` environment slots, int64 ``[num_envs]``: distinct, consecutive.

  Slot ``i`` gets ``base + i``, as EnvPool counts, whatever ``num_envs``; ``base`` is a hash of ``seed`` below 2^30.
  Passing ``seed`` itself would give seeds 0 and 1 all but one of their slots in common, and runs that look
  independent would not be.
  """
  if seed < 0 or not 0 < num_envs < 2**30:
    raise ValueError(f"seed must be >= 0 and num_envs in [1, 2^30), got seed={seed} and num_envs={num_envs}")
  base = int(np.random.SeedSequence(seed).generate_state(1)[0]) % 2**30
  return base + np.arange(num_envs)


def make(
  env_id: str, num_envs: int, seed: int, first_slot: int = 0, batch_size: int | None = None, **env_kwargs: Any
) -> Any:
  """``num_envs`` environments stepped together, as an EnvPool object with the gymnasium interface.

  Args:
    env_id: EnvPool's name of the task, such as ``"HalfCheetah-v5"``, or ``"gymnasium:..."``.
    num_envs: number of environment slots.
    seed: any integer >= 0; see ``slot_seeds``.
    first_slot: the number of the first of these slots, where others play those before it.
    batch_size: for EnvPool's asynchronous mode: ``recv`` returns what so many slots have made ready. By default all
      step together.
    **env_kwargs: the task's own options, such as ``max_episode_steps``; ``action_repeat``, how often each action is
      taken (rewards are summed; until the episode ends), unless EnvPool's task has an option of that name; and
      ``observation``, the parts that are seen of observations that have several, see `ilx.evaluation.observed`.

  Raises:
    ImportError: where EnvPool (gymnasium) is not installed.
    ValueError: for an unknown id or option, the message has the nearest valid ones; for a ``batch_size`` out of range,
      or that cannot be had with gymnasium's tasks or repeated actions.
  """
  if batch_size is not None and not 1 <= batch_size <= num_envs:
    raise ValueError(f"batch_size={batch_size} must be 1 to {num_envs}, the number of environments stepped together")
  wanted, env_kwargs = observed.split(env_id, env_kwargs)
  if wanted is not None:
    env = make(env_id, num_envs, seed, first_slot, batch_size, **env_kwargs)
    return Observed(env, wanted, _seen(env_id, spec_of(env.spec), wanted))
  asynchronous = batch_size is not None and batch_size < num_envs
  seeds = slot_seeds(seed, num_envs) + first_slot
  if gymnasium.is_one(env_id):
    if asynchronous:
      raise ValueError(f"{env_id}: gymnasium's environments step one after the other; leave out batch_size")
    return gymnasium.Pool(env_id, seeds, env_kwargs)
  times, env_kwargs = _checked(env_id, env_kwargs)
  if asynchronous and times > 1:
    raise ValueError(f"{env_id}: batch_size={batch_size} cannot be had with action_repeat; leave out one of them")
  sizes = {"num_envs": num_envs, "batch_size": batch_size or num_envs, "seed": int(seeds[0])}
  with _explained(env_id, env_kwargs):
    env = _envpool().make(env_id, "gymnasium", **sizes, **env_kwargs)
  with warnings.catch_warnings():
    # EnvPool makes the spaces on first use, and gymnasium then warns that float64 bounds were rounded to float32.
    warnings.filterwarnings("ignore", message=".*precision lowered")
    _ = env.observation_space, env.action_space
  return Repeated(env, times) if times > 1 else env


def spec(env_id: str, **env_kwargs: Any) -> Spec:
  """What an agent must know about the task; ``statistics`` is None. Makes no environment, but of gymnasium one.

  Raises:
    ImportError: where EnvPool (gymnasium) is not installed.
    ValueError: for an unknown id or option, or actions that are neither one bounded vector nor one or several choices.
  """
  wanted, env_kwargs = observed.split(env_id, env_kwargs)
  if wanted is not None:
    return _seen(env_id, spec(env_id, **env_kwargs), wanted)
  if gymnasium.is_one(env_id):
    return gymnasium.spec(env_id, env_kwargs)
  _, env_kwargs = _checked(env_id, env_kwargs)
  with _explained(env_id, env_kwargs):
    return spec_of(_envpool().make_spec(env_id, **env_kwargs))


def time_limit(env_id: str, **env_kwargs: Any) -> int | None:
  """The most environment steps of an episode (with ``action_repeat``, of which an action takes several).

  None where the task sets it anew for every episode (EnvPool's BabyAI).

  Raises:
    ImportError: where EnvPool (gymnasium) is not installed.
    ValueError: for an unknown id or option.
  """
  _, env_kwargs = observed.split(env_id, env_kwargs)
  if gymnasium.is_one(env_id):
    return gymnasium.time_limit(env_id, env_kwargs)
  _, env_kwargs = _checked(env_id, env_kwargs)
  with _explained(env_id, env_kwargs):
    return _envpool().make_spec(env_id, **env_kwargs).config.max_episode_steps or None


def repetitions(env_id: str, env_kwargs: dict[str, Any]) -> tuple[int, dict[str, Any]]:
  """How often `make` has every action taken, and the options that are left to the task itself.

  Raises:
    ImportError: where EnvPool (gymnasium) is not installed.
    ValueError: for an unknown id or option.
  """
  _, env_kwargs = observed.split(env_id, env_kwargs)
  return repeated.split(env_id, env_kwargs) if gymnasium.is_one(env_id) else _checked(env_id, env_kwargs)


def library(env_id: str) -> str:
  """The name, as installed, of the package that has the task: "envpool" or "gymnasium"."""
  return "gymnasium" if gymnasium.is_one(env_id) else "envpool"


def version(env_id: str = "") -> str:
  """EnvPool's version; "gymnasium" and its version for a task of gymnasium."""
  return gymnasium.version() if gymnasium.is_one(env_id) else _envpool().__version__


def spec_of(env_spec: Any) -> Spec:
  """``Spec`` of an environment's ``env.spec``. Observations in float64 become float32: see ``observe``."""
  if isinstance(env_spec, Spec):
    return env_spec
  observation: dict[str, Any] = {}
  for name, array in env_spec.state_array_spec.items():
    if name == "obs" or name.startswith("obs:"):
      shape = _shape(array)
      _insert(observation, name.replace(":", ".").split("."), jax.ShapeDtypeStruct(shape, _dtype(array.dtype)))
  leaves = observation["obs"]
  # As EnvPool does: an observation with a single entry comes without its name.
  while isinstance(leaves, dict) and len(leaves) == 1:
    leaves = next(iter(leaves.values()))
  return Spec(observation=leaves, action=_action(env_spec))


def observe(observation: Tree) -> Tree:
  """An environment's observation as policies and datasets have it: float64 to float32, all else as it is."""
  return jax.tree.map(lambda x: x.astype(_dtype(x.dtype), copy=False), observation)


def _seen(env_id: str, whole: Spec, wanted: Tree) -> Spec:
  """``Spec`` of an environment of whose observations ``wanted`` is seen."""
  one = jax.tree.map(lambda x: np.zeros((1, *x.shape), x.dtype), whole.observation)
  try:
    seen = observe(observed.select(one, wanted))
  except ValueError as error:
    raise ValueError(f"{env_id}: option {OBSERVATION!r}: {error}") from None
  return whole._replace(observation=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), seen))


def _envpool() -> types.ModuleType:
  try:
    import envpool
  except ImportError as error:
    raise ImportError(f"EnvPool cannot be imported ({error}); on Linux, run: pip install envpool") from error
  return envpool


@contextlib.contextmanager
def _explained(env_id: str, env_kwargs: dict[str, Any]) -> Iterator[None]:
  """EnvPool's errors about options as ValueErrors that name the task."""
  try:
    yield
  except TypeError as error:  # a page of signatures
    raise ValueError(f"{env_id}: an option has a wrong type among {env_kwargs}") from error
  except ValueError as error:
    raise ValueError(f"{env_id}: {error}") from error


def _checked(env_id: str, env_kwargs: dict[str, Any]) -> tuple[int, dict[str, Any]]:
  """How often actions are repeated, and EnvPool's own options; raises ValueError for what it does not know."""
  envpool = _envpool()
  known = envpool.list_all_envs()
  if env_id not in known:
    raise ValueError(f"Unknown environment id {env_id!r}{_nearest(env_id, known)}")
  options = envpool.make_spec(env_id).config._fields
  times, rest = (1, env_kwargs) if ACTION_REPEAT in options else repeated.split(env_id, env_kwargs)
  for name in rest:
    if name in _RESERVED:
      raise ValueError(f"{env_id}: option {name!r} is not the task's to set")
    if name not in options and name not in ("render_mode", "render_width", "render_height", "render_camera_id"):
      others = {*options, ACTION_REPEAT, OBSERVATION} - {*_RESERVED}
      raise ValueError(f"{env_id} has no option {name!r}{_nearest(name, sorted(others))}")
  steps = rest.get("max_episode_steps")
  if isinstance(steps, int) and steps < 1:
    raise ValueError(f"{env_id}: max_episode_steps={steps} must be at least 1; leave it out for the task's own")
  return times, rest


def _nearest(name: str, known: Any) -> str:
  """A message's end that names the valid names most like ``name``, without regard to case; other versions first."""
  folded: dict[str, list[str]] = {}
  for candidate in known:
    folded.setdefault(candidate.casefold(), []).append(candidate)
  wanted = name.casefold()
  versions = [c for f in folded if f.rsplit("-v", 1)[0] == wanted.rsplit("-v", 1)[0] for c in folded[f]]
  similar = [c for f in difflib.get_close_matches(wanted, folded, n=4) for c in folded[f]]
  nearest = list(dict.fromkeys([*folded.get(wanted, []), *reversed(versions), *similar]))[:4]
  if nearest:
    return f"; did you mean {' or '.join(map(repr, nearest))}?"
  if len(folded) <= _FEW:
    return f"; there are {', '.join(sorted(known))}"
  return f"; none of the {len(known)} valid names is like it"


def _shape(array: Any) -> tuple[int, ...]:
  # EnvPool's -1 stands for the players of an environment, which share the batch axis; there is one.
  return tuple(int(size) for size in array.shape if size != -1)


def _dtype(dtype: Any) -> np.dtype:
  return np.dtype(np.float32) if np.dtype(dtype) == np.float64 else np.dtype(dtype)


def _insert(tree: dict[str, Any], path: list[str], leaf: Any) -> None:
  for name in path[:-1]:
    tree = tree.setdefault(name, {})
  tree[path[-1]] = leaf


def _action(env_spec: Any) -> Continuous | Discrete | MultiDiscrete:
  arrays = {k: v for k, v in env_spec.action_array_spec.items() if k not in ("env_id", "players.env_id")}
  if len(arrays) != 1:
    raise ValueError(f"actions have {len(arrays)} parts, {sorted(arrays)}; ilx plays one")
  (array,) = arrays.values()
  shape = _shape(array)
  if np.issubdtype(array.dtype, np.floating) and len(shape) == 1:
    return Continuous(np.broadcast_to(array.minimum, shape), np.broadcast_to(array.maximum, shape))
  if np.issubdtype(array.dtype, np.integer) and shape == () and array.minimum == 0:
    return Discrete(int(array.maximum) + 1)
  if np.issubdtype(array.dtype, np.integer) and len(shape) == 1 and not np.any(array.minimum):
    return MultiDiscrete(tuple((np.broadcast_to(array.maximum, shape).astype(np.int64) + 1).tolist()))
  raise ValueError(
    f"actions are {np.dtype(array.dtype)} {shape} from {array.minimum} to {array.maximum};"
    " ilx plays one bounded float vector, or one integer or vector of integers that start at 0"
  )
