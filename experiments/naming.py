"""What ``action_names`` in ``metadata.json`` call the dimensions and the choices of an action."""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax

import ilx
from ilx.parallel import placement

FIELD = "action_names"

# By the path of a part, such as "hand/buttons" (the empty string: of an action of one part), a name for every
# dimension, for each of several choices, or, of a part that is one choice, for all that can be chosen.
Names = Mapping[str, Sequence[str]]


def of(action: ilx.types.Action, given: Any) -> dict[str, list[str]]:
  """Those of ``given`` that fit the action; whatever is not a list of so many texts is left out.

  A lone button's label says nothing that its part's name does not, and is no name of what can be chosen.

  Args:
    action: of the dataset.
    given: what its metadata have: a list, or a dict of those of the parts.
  """
  found = {}
  for path, part in jax.tree_util.tree_leaves_with_path(action):
    names = at(given, [key.key for key in path])
    if names is not None and len(names) == _count(part):
      found[placement.name_of(path)] = names
  return found


def at(given: Any, path: Sequence[str]) -> list[str] | None:
  """The list of names of the part at ``path`` in what metadata have; None where there is no list of texts."""
  for key in path:
    given = given.get(key) if isinstance(given, Mapping) else None
  return given if isinstance(given, list) and all(isinstance(name, str) for name in given) else None


def _count(part: Any) -> int:
  """How many names a part has."""
  return part.num_actions if isinstance(part, ilx.Discrete) else part.size


def nested(names: Names) -> Any:
  """As metadata have them, for ``ilx.export.save``; None where there are none."""
  found: dict[str, Any] = {}
  for path, own in names.items():
    if not path:
      return list(own)
    *folders, last = path.split("/")
    inside = found
    for folder in folders:
      inside = inside.setdefault(folder, {})
    inside[last] = list(own)
  return found or None


def agreed(named: Mapping[str, Names], action: ilx.types.Action, field: str = "config.dataset") -> dict[str, list[str]]:
  """The names of a mixture, of parts that all datasets which name them call alike; warns of the others.

  Names of what can be chosen are values of the data, so that one place in two lists must have one name (a list may be
  longer). Names of dimensions and buttons may be labels made of columns, and two recordings may label the same button
  differently: that is a warning. But one name at two places is an order that was changed, and an error here, too.

  Args:
    named: the names by dataset.
    action: of all of them together.
    field: of the config, which names the datasets.

  Raises:
    ValueError: where the same number would mean something else in each; names the datasets, the part and the names.
  """
  found, moved, other = {}, [], []
  for key, part in jax.tree_util.tree_leaves_with_path(action):
    path = placement.name_of(key)
    lists = {dataset: list(names[path]) for dataset, names in named.items() if path in names}
    title = f"action/{path}".rstrip("/")
    line = f"{title}: " + "; ".join(f"{dataset!r} has {', '.join(names)}" for dataset, names in lists.items())
    contradict = _differ if isinstance(part, ilx.Discrete) else _moved
    if any(contradict(*pair) for pair in itertools.combinations(lists.values(), 2)):
      moved.append(line)
    elif any(_differ(*pair) for pair in itertools.combinations(lists.values(), 2)):
      other.append(line)
    elif lists:
      found[path] = max(lists.values(), key=len)[: _count(part)]
  if moved:
    raise ValueError(
      f"{field}: by the {FIELD} in their metadata.json the datasets' actions are not of one order, so that the "
      "same number means something else in each; convert again with one vocabulary or order of columns (or correct "
      f"{FIELD}, if only the words differ):\n  " + "\n  ".join(moved)
    )
  if other:
    warnings.warn(
      f"the datasets' actions have different {FIELD} in metadata.json; taken for the same, place by place, and left "
      "without names:\n  " + "\n  ".join(other),
      stacklevel=3,
    )
  return of(action, nested(found))


def _differ(one: Sequence[str], two: Sequence[str]) -> bool:
  return any(a != b for a, b in zip(one, two, strict=False))


def _moved(one: Sequence[str], two: Sequence[str]) -> bool:
  """Whether a name is in both, at other places."""

  def places(names: Sequence[str], name: str) -> list[int]:
    return [place for place, own in enumerate(names) if own == name]

  return any(places(one, name) != places(two, name) for name in {*one} & {*two})
