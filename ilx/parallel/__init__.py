"""Device meshes and where arrays live on them."""

from ilx.parallel.mesh import batch_sharding, make_mesh, replicated

__all__ = ["batch_sharding", "make_mesh", "replicated"]
