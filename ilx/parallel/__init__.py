"""Device meshes and where arrays live on them."""

from ilx.parallel.mesh import batch_sharding, make_mesh, replicated
from ilx.parallel.placement import DEFAULT, default_rules, divided, shardings

__all__ = ["DEFAULT", "batch_sharding", "default_rules", "divided", "make_mesh", "replicated", "shardings"]
