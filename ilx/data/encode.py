"""From an episode's arrays to a record."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ilx.data import example, features, values
from ilx.data.images import Images
from ilx.data.values import Value
from ilx.types import Tree

FIELDS = ("observation", "action", "reward", "discount", "is_first", "is_last", "is_terminal")
_FLAGS = FIELDS[4:]

# Bytes of a field's full name: files beside the records, and of the columnar cache, are called after it.
_MAX_NAME = 200


class Encoded(NamedTuple):
  """An episode as it stands in a file.

  Attributes:
    record: a serialised ``tf.train.Example``.
    features: what ``features.json`` says of it.
    num_transitions: steps with an action that counts, T.
    total_reward: the undiscounted return.
  """

  record: bytes
  features: dict[str, Any]
  num_transitions: int
  total_reward: float


def episode(
  observation: Tree, action: Tree, reward: np.ndarray, *, terminal: bool, discount: np.ndarray | None = None
) -> dict[str, Any]:
  """One RLDS episode from what an environment gave.

  Args:
    observation: ``[T + 1, O]``, from the reset to what followed the last action; an array, text, ``Images`` or dicts.
    action: ``[T, A]``, ``[T]`` integers, or dicts of them.
    reward: ``[T]``, what each action earned.
    terminal: whether the episode ended by itself rather than by a time limit.
    discount: ``[T]``; by default 1, and 0 for the last action where ``terminal``.

  Returns:
    Arrays ``[T + 1, ...]`` by field, as ``Recorder.add`` takes them, to which further fields may be added; the last
    step's action, reward and discount, which carry no meaning, are 0 (text: empty).

  Raises:
    ValueError: where lengths disagree or there is no action.
  """
  observation, action, reward = _arrays(observation), _arrays(action), np.asarray(reward, np.float32)
  length, *others = {len(leaf) for leaf in _leaves(action)} or {0}
  sizes = {len(leaf) for leaf in _leaves(observation)}
  if others:
    raise ValueError(f"episode: parts of the action differ in length: {sorted([length, *others])}")
  if not length or reward.shape != (length,) or sizes != {length + 1}:
    raise ValueError(
      f"episode: {length} actions need {length} rewards and {length + 1} observations, "
      f"got rewards {reward.shape} and {sorted(sizes)} observations"
    )
  if discount is None:
    discount = np.ones(length, np.float32)
    discount[-1] = 0.0 if terminal else 1.0
  steps = np.arange(length + 1)
  return {
    "observation": observation,
    "action": _map(_padded, action),
    "reward": np.append(reward, np.float32(0)),
    "discount": np.append(np.asarray(discount, np.float32), np.float32(0)),
    "is_first": steps == 0,
    "is_last": steps == length,
    "is_terminal": (steps == length) & bool(terminal),
  }


def encode(
  episode: Mapping[str, Any], metadata: Mapping[str, Any] | None = None, image_format: str | None = None
) -> Encoded:
  """One episode as a record; the same bytes for the same values.

  Args:
    episode: see ``Recorder.add``.
    metadata: see ``Recorder.add``.
    image_format: see ``Recorder``.

  Raises:
    ValueError: as ``normalize``, for metadata that cannot be stored, or for a name that is too long; names the field.
  """
  steps = normalize(episode, image_format)
  about = _metadata(metadata or {})
  found: dict[str, Any] = {"steps": features.Sequence(step_features(steps))}
  content = {name: values.stored(value) for name, value in flatten(steps, "steps/")}
  if about:
    found["episode_metadata"] = {name: values.feature(value, step=False) for name, value in about.items()}
    content |= {f"episode_metadata/{name}": values.stored(value, step=False) for name, value in about.items()}
  if long := [name for name in content if len(name.encode()) > _MAX_NAME]:
    raise ValueError(
      f"episode: the full name of field {long[0]!r} has {len(long[0].encode())} bytes; at most {_MAX_NAME}"
    )
  reward = steps["reward"].reshape(-1)[:-1]
  return Encoded(example.serialize(content), found, len(reward), float(reward.sum(dtype=np.float64)))


def normalize(episode: Mapping[str, Any], image_format: str | None = None) -> dict[str, Any]:
  """An episode's fields in the types that are stored, checked: see ``values.normalize``.

  Raises:
    ValueError: names the field that is missing, of another length, not finite, or a misplaced flag.
  """
  if missing := sorted(set(FIELDS) - set(episode)):
    raise ValueError(f"episode: fields missing: {missing}; an episode has at least {', '.join(FIELDS)}")
  _check_keys(episode, "episode")
  names = (*FIELDS, *sorted(set(episode) - set(FIELDS)))
  result = {name: _normalize(episode[name], name, image_format) for name in names}
  length = len(result["reward"]) if np.ndim(result["reward"]) == 1 else -1
  for name, value in flatten(result):
    if value.ndim == 0 or len(value) != length:
      raise ValueError(f"episode: field {name!r} has shape {value.shape}, but the reward has {length} steps")
    if name in ("discount", *_FLAGS) and value.ndim != 1:
      raise ValueError(f"episode: field {name!r} has shape {value.shape}; expected one value a step")
  if length < 2:
    raise ValueError("episode: an episode has at least two steps, the last of them without action")
  for name, place in (("is_first", 0), ("is_last", length - 1)):
    if np.flatnonzero(result[name]).tolist() != [place]:
      raise ValueError(f"episode: field {name!r} must be true at step {place} of {length} alone")
  if result["is_terminal"][:-1].any():
    raise ValueError("episode: field 'is_terminal' is true before the last step")
  return result


def _normalize(value: Any, name: str, image_format: str | None) -> Any:
  if name in FIELDS[2:]:
    if isinstance(value, Mapping):
      raise ValueError(f"episode: field {name!r} must be an array")
    return values.number(value, name, np.dtype(bool if name in _FLAGS else np.float32))
  if isinstance(value, Mapping):
    if not value:
      raise ValueError(f"episode: field {name!r} is an empty dict")
    _check_keys(value, f"episode: field {name!r}")
    return {key: _normalize(value[key], f"{name}/{key}", image_format) for key in sorted(value)}
  return values.normalize(value, name, image_format)


def _metadata(metadata: Mapping[str, Any]) -> dict[str, np.ndarray]:
  _check_keys(metadata, "episode: metadata")
  return {name: values.metadata(metadata[name], name) for name in sorted(metadata)}


def _check_keys(fields: Mapping[str, Any], where: str) -> None:
  if bad := [key for key in fields if not isinstance(key, str) or not key or "/" in key]:
    raise ValueError(f"{where} has the key {bad[0]!r}; keys are strings without '/'")


def flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Value]]:
  """(name, array) pairs, names joined by "/"."""
  for key, value in fields.items():
    if isinstance(value, Mapping):
      yield from flatten(value, f"{prefix}{key}/")
    else:
      yield f"{prefix}{key}", value


def step_features(fields: Mapping[str, Any]) -> dict[str, Any]:
  """What ``features.json`` says of one step of normalised fields."""
  return _map(values.feature, fields)


def difference(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
  """The first field in which two episodes' features differ, in words."""
  if recorded == found:
    return None
  before, now = (_flat_features(x) for x in (recorded, found))
  for name in sorted(before.keys() | now.keys()):
    texts = [_describe(x[name]) if name in x else "absent" for x in (before, now)]
    if texts[0] != texts[1]:
      kind = "" if name.startswith("episode_metadata/") else " a step"
      return f"field {name!r} is {texts[1]}{kind}, but {texts[0]} in the episodes recorded before"
  return "the fields differ from the episodes recorded before"


def _flat_features(found: Mapping[str, Any]) -> dict[str, features.Feature]:
  about = {f"episode_metadata/{name}": value for name, value in found.get("episode_metadata", {}).items()}
  return dict(features.flatten(found["steps"].feature)) | about


def _describe(feature: features.Feature) -> str:
  if feature.kind == "text":
    return "text"
  if feature.kind == "image":
    return f"{feature.encoding} pictures {list(feature.shape)}"
  return f"{feature.dtype} {list(feature.shape)}"


def _arrays(tree: Tree) -> Tree:
  """Leaves as arrays; text as ``object``, which numpy would pad, and pictures as they are."""
  if isinstance(tree, Mapping):
    return {key: _arrays(value) for key, value in tree.items()}
  if isinstance(tree, Images):
    return tree
  if isinstance(tree, list | tuple) and tree and isinstance(tree[0], str | bytes):
    return np.array(tree, object)
  return np.asarray(tree)


def _padded(leaf: np.ndarray) -> np.ndarray:
  """With an action behind the last that carries no meaning."""
  return np.concatenate([leaf, np.array([""], object) if leaf.dtype == object else np.zeros_like(leaf[:1])])


def _leaves(tree: Tree) -> list[Value]:
  return [value for _, value in flatten({"": tree})]


def _map(function: Callable[[Any], Any], tree: Tree) -> Tree:
  return {key: _map(function, value) for key, value in tree.items()} if isinstance(tree, Mapping) else function(tree)
