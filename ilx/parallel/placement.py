"""Where the leaves of a state live: rules over their paths.

A rule is ``(regex, place)``. A leaf's path is written with slashes, ``params/network/params/transformer/norm/scale``;
the first rule whose regex is found in it (``re.search``) places the leaf. Moments of optimizers, targets and averages
lie under paths that end as their parameters' do (``optimizer/1/0/mu/params/transformer/norm/scale``), so what is said
of a parameter by the end of its path holds for them, too. A place is a ``PartitionSpec``, which must fit, or a function
such as `divided`, which looks at the shape. Scalars, ``state.step`` among them, and random keys are never divided.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilx.parallel import mesh as mesh_lib
from ilx.types import Tree

# (shape, the sizes of the mesh's axes) -> the place.
Place = PartitionSpec | Callable[[tuple[int, ...], Mapping[str, int]], PartitionSpec]
Rules = Sequence[tuple[str, Place]]

# Leaves of at most so many elements are not divided over ``fsdp``: they hardly take memory, and gathering them costs as
# much waiting as gathering large ones does. MLPs of RL, 256 x 256, are whole.
SMALL = 1 << 16


def divided(*names: str | None, small: int = SMALL) -> Place:
  """A place that fits every leaf, by the names of its trailing axes.

  An axis named ``tensor`` is divided over it where it can be. Leaves of more than ``small`` elements are divided over
  ``fsdp`` as well: along the axis of that name where it can be, else along the largest other one that can. What cannot
  be divided evenly is left whole, and so are the axes before those that are named: a loop over layers would gather all
  of them for each.

  Args:
    names: of the trailing axes, each "fsdp", "tensor" or None. Where none are named, or the leaf has fewer, its
      largest axis is looked for among all.
    small: the most elements of a leaf that stays whole over ``fsdp``.
  """
  for name in names:
    if name not in (None, *mesh_lib.AXES):
      raise ValueError(f"divided: {name!r} is no axis of the mesh; choose from {', '.join(mesh_lib.AXES)} and None")

  def place(shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
    own = names if len(names) <= len(shape) else ()
    leading = len(shape) - len(own)
    wanted = (*(None,) * leading, *own)
    large = math.prod(shape) > small
    found = [
      name if name and sizes[name] > 1 and size % sizes[name] == 0 and (large or name != "fsdp") else None
      for name, size in zip(wanted, shape, strict=True)
    ]
    if large and sizes["fsdp"] > 1 and "fsdp" not in found:
      free = [i for i in range(leading if own else 0, len(shape)) if found[i] is None and shape[i] % sizes["fsdp"] == 0]
      if free:
        found[max(free, key=lambda i: (shape[i], i))] = "fsdp"
    while found and found[-1] is None:
      found.pop()
    return PartitionSpec(*found)

  return place


def leading(name: str, small: int = SMALL) -> Place:
  """A place for stacks of equal things, such as critics: the leading axis over ``name``, and the rest as by `divided`.

  Where the leading axis does not divide evenly it is left whole.
  """

  def place(shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
    first = name if sizes[name] > 1 and shape[0] % sizes[name] == 0 else None
    rest = divided(small=small)(shape[1:], {**sizes, name: 1})
    found = [first, *rest]
    while found and found[-1] is None:
      found.pop()
    return PartitionSpec(*found)

  return place


def default_rules(small: int = SMALL) -> Rules:
  """The rules for the networks of ilx; see `divided` for what does not divide evenly.

  Transformers, the vision transformer's too: ``fsdp`` over the width, ``tensor`` over the heads and over the MLP's
  hidden layer. More than two critics: ``tensor`` over the critics. Tables (of positions, of time): ``fsdp`` over the
  width. Everything else: ``fsdp`` over the largest axis. With ``fsdp=1, tensor=1`` nothing is divided.

  Args:
    small: the most elements of a leaf that stays whole over ``fsdp``.
  """

  def by(*names: str | None) -> Place:
    return divided(*names, small=small)

  return (
    # Kernels [width, heads, 3, size].
    (r"attention/qkv/kernel$", by("fsdp", "tensor", None, None)),
    (r"attention/qkv/bias$", by("tensor", None, None)),
    # [heads, size, width].
    (r"attention/out/kernel$", by("tensor", None, "fsdp")),
    # [width, hidden] and back.
    (r"mlp/up/kernel$", by("fsdp", "tensor")),
    (r"mlp/up/bias$", by("tensor")),
    (r"mlp/down/kernel$", by("tensor", "fsdp")),
    # Many critics: whole ones on each device, as far as they divide.
    (r"(^|/)ensemble/", leading("tensor", small=small)),
    # [length, width].
    (r"(embedding|positions)$", by(None, "fsdp")),
    # Whatever else a stack of layers has.
    (r"(^|/)layers/", by(None)),
    (r"", by()),
  )


DEFAULT = default_rules()


def shardings(tree: Tree, mesh: Mesh, rules: Rules = DEFAULT) -> Tree:
  """Where every leaf goes.

  Args:
    tree: arrays, or ``jax.ShapeDtypeStruct`` as from ``jax.eval_shape``.
    mesh: with the axes of ``make_mesh``.
    rules: see the module; the first that matches counts. Put your own before ``DEFAULT``:
      ``[("head/mean/kernel$", PartitionSpec("fsdp")), *DEFAULT]``.

  Returns:
    The tree with a ``NamedSharding`` for every leaf.

  Raises:
    ValueError: naming path, shape and rule: where no rule matches, and where a ``PartitionSpec``, also one that a
      function gives, has more axes than the leaf, names an axis that the mesh does not have or names one twice, or does
      not divide the leaf evenly.
  """

  def leaf(path: tuple[Any, ...], x: Any) -> NamedSharding:
    return NamedSharding(mesh, _spec(name_of(path), x, mesh, rules))

  return jax.tree_util.tree_map_with_path(leaf, tree)


def name_of(path: tuple[Any, ...]) -> str:
  """A path of ``jax.tree_util`` as rules see it."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def place(tree: Tree, where: Tree) -> Tree:
  """``ShapeDtypeStruct`` of a tree of shapes, with its shardings; nothing is allocated."""
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, where)


def bytes_per_device(tree: Tree) -> int:
  """What one device holds of arrays (or of shapes with shardings)."""
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _spec(name: str, x: Any, mesh: Mesh, rules: Rules) -> PartitionSpec:
  if not x.shape or jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    return PartitionSpec()
  for pattern, place in rules:
    if re.search(pattern, name):
      if not isinstance(place, PartitionSpec):
        place = place(tuple(x.shape), mesh.shape)
      if problem := _problem(place, x.shape, mesh):
        raise ValueError(f"placement of {name} {tuple(x.shape)}: the rule ({pattern!r}, {place}) {problem}")
      return place
  raise ValueError(
    f"placement of {name} {tuple(x.shape)}: none of the {len(rules)} rules matches; end them with "
    "*ilx.parallel.DEFAULT, or with ('', PartitionSpec()) to leave the rest whole"
  )


def _problem(spec: PartitionSpec, shape: Sequence[int], mesh: Mesh) -> str | None:
  """What is wrong with a rule's spec for a leaf, or None."""
  if len(spec) > len(shape):
    return f"has {len(spec)} axes, the leaf {len(shape)}"
  per_axis = [names if isinstance(names, tuple) else (names,) if names else () for names in spec]
  used = [name for names in per_axis for name in names]
  for name in used:
    if name not in mesh.shape:
      return f"names {name!r}, which is no axis of the mesh ({', '.join(mesh.axis_names)})"
  if len(set(used)) < len(used):
    return "names an axis of the mesh twice"
  for axis, names in enumerate(per_axis):
    parts = int(np.prod([mesh.shape[name] for name in names], dtype=int))
    if shape[axis] % parts:
      return f"divides axis {axis}, of {shape[axis]}, into {parts} parts, which does not come out even"
  return None
