"""Reading collectives from XLA's text, and what they take on paper."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from experiments.results import hlo, links, scaled, scaling
from ilx import parallel

TEXT = """HloModule jit_program

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[], f32[8,4]) parameter(0)
  %w = bf16[2,4]{1,0} get-tuple-element(%p), index=1
  %all-gather.1 = bf16[8,4]{1,0} all-gather(%w), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  %all-reduce.1 = f32[8,4]{1,0} all-reduce(%x), channel_id=2, replica_groups={{0,1},{2,3}}, to_apply=%add
  %all-reduce.2 = (f32[4]{0}, /*index=1*/bf16[2]{0}) all-reduce(%x, %y), replica_groups=[1,8]<=[8], to_apply=%add
  %copied = f32[8,4]{1,0} copy(%all-reduce.1)
  %part = f32[2,4]{1,0} dynamic-slice(%copied, %i), dynamic_slice_sizes={2,4}
  ROOT %t = (s32[], f32[8,4]) tuple(%i, %part)
}

%condition (p: (s32[], f32[8,4])) -> pred[] {
  %p = (s32[], f32[8,4]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%outer_body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %loop = (s32[], f32[8,4]) while(%p), condition=%condition, body=%body
  %scattered = f32[2,4]{1,0} reduce-scatter(%whole), replica_groups=MESH, dimensions={0}, to_apply=%add
  %whole = f32[8,4]{1,0} copy(%z)
}

%outer_condition (p: (s32[], f32[8,4])) -> pred[] {
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] get-tuple-element(%p), index=1
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p: f32[8,4]) -> f32[8,4] {
  %loop.1 = (s32[], f32[8,4]) while(%p), condition=%outer_condition, body=%outer_body
  %loop.2 = (s32[], f32[8,4]) while(%p), condition=%outer_condition, body=%body, CONFIG
}
"""
MESH = "mesh['a'=2,'b'=2,'c'=2] {'b','c'}"
CONFIG = 'backend_config={"known_trip_count":{"n":"3"}}'


def _read(mesh=MESH, config=CONFIG):
  return hlo.collectives(TEXT.replace("MESH", mesh).replace("CONFIG", config))


def test_bytes_groups_and_the_lengths_of_loops():
  gathered = hlo.Collective("all-gather", 64, 128, (0, 2, 4, 6), 5, False)
  sliced = hlo.Collective("all-reduce", 128, 128, (0, 1), 5, True)
  together = hlo.Collective("all-reduce", 20, 24, tuple(range(8)), 5, False)
  scattered = hlo.Collective("reduce-scatter", 128, 128, (0, 1, 2, 3), 1, False)
  again = [one._replace(times=3) for one in (gathered, sliced, together)]
  assert _read() == [gathered, sliced, together, scattered, *again]


@pytest.mark.parametrize(
  ("mesh", "group"),
  [
    ("mesh['a'=8] {'a'}", tuple(range(8))),
    ("mesh['a'=2,'b'=4] {'a'}", (0, 4)),
    ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", (0, 2, 4, 6)),
  ],
)
def test_groups_by_axes_of_a_mesh(mesh, group):
  assert next(one.group for one in _read(mesh) if one.kind == "reduce-scatter") == group


def test_what_would_be_counted_wrongly_is_an_error():
  with pytest.raises(ValueError, match="no HLO module"):
    hlo.collectives("HloModule x")
  with pytest.raises(ValueError, match=r"scattered: the groups are written in an unknown way: .*mesh"):
    _read("mesh['a'=8] {'a':(2)4}")
  with pytest.raises(ValueError, match="the type f8e4m3 is not known"):
    hlo.collectives(TEXT.replace("MESH", MESH).replace("f32[4]", "f8e4m3[4]"))
  with pytest.raises(ValueError, match="asynchronous collectives are not read"):
    hlo.collectives(TEXT.replace("MESH", MESH).replace("all-gather(", "all-gather-start("))


def test_a_program_that_jax_compiles():
  """Five layers, each of which gathers its matrix and sums over the batch's devices."""
  mesh = parallel.make_mesh(fsdp=8)
  where = NamedSharding(mesh, PartitionSpec(None, "fsdp"))

  def loss(weights, x):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0].sum()

  def shape(*sizes, s):
    return jax.ShapeDtypeStruct(sizes, jnp.float32, sharding=s)

  program = jax.jit(jax.grad(loss), out_shardings=where).lower(
    shape(5, 16, 16, s=where), shape(32, 16, s=parallel.batch_sharding(mesh))
  )
  found = hlo.collectives(program.compile().as_text())
  assert {len(one.group) for one in found} == {8}
  assert max(one.times for one in found) == 5
  assert sum(one.times * one.bytes for one in found if one.kind == "all-gather") >= 5 * 16 * 16 * 4


def test_times_of_links():
  def seconds(machine, kind, group, devices=64, sliced=False):
    one = hlo.Collective(kind, 800, 800, tuple(group), 2, sliced)
    return links.seconds([one], machine, devices, slice_reductions=True)

  host, rail, everyone = range(8), range(0, 64, 8), range(64)
  assert seconds(links.H200, "all-gather", host) == pytest.approx(2 * 700 / 450e9)
  assert seconds(links.H200, "all-reduce", host) == pytest.approx(4 * 700 / 450e9)
  assert seconds(links.H200, "all-reduce", host, sliced=True) == pytest.approx(2 * 700 / 450e9)
  # One adapter of each host; all eight, by which each host receives what the other seven have.
  assert seconds(links.H200, "all-gather", rail) == pytest.approx(2 * 700 / 50e9)
  assert seconds(links.H200, "all-gather", everyone) == pytest.approx(2 * 800 * 7 / 8 / 400e9)
  assert seconds(links.H200, "collective-permute", (0, 1)) == pytest.approx(2 * 800 / 450e9)
  # All three axes of the torus, or one.
  assert seconds(links.V5P, "all-gather", everyone) == pytest.approx(2 * 800 * 63 / 64 / 600e9)
  assert seconds(links.V5P, "all-gather", range(4)) == pytest.approx(2 * 600 / 200e9)
  assert seconds(links.V5P, "all-gather", host, devices=8) == pytest.approx(2 * 700 / 300e9)
  assert seconds(links.V5P, "all-reduce", (3,)) == 0


def test_page():
  sent = [hlo.Collective("all-gather", 10**9, 2 * 10**9, tuple(range(8)), 4, False)]
  common = {"parameters": 10**9, "small": 100, "whole": 10**6, "intermediate": 10**9, "jax": "0.10.2"}
  one = {**common, "mesh": [1, 1, 1], "state": 12 * 10**9, "optimised": 0, "collectives": []}
  eight = {**common, "mesh": [1, 8, 1], "state": 15 * 10**8, "optimised": 8 * 10**9, "collectives": sent}
  page = scaling.page([one, eight], "python -m this", "0123456789ab")
  assert "| 8 | 1 x 8 x 1 | 1,500.0 MB | 1.0 MB | 12.00 GB | 1.0 GB |" in page
  assert "| 8 | 1 x 8 x 1 | 4.00 GB | none | none | none | 8.00 GB | 8.00 GB |" in page
  assert "the largest difference is 0.0%" in " ".join(page.split())
  computing = scaled.model_flops() / (0.5 * 989e12)
  assert f"H200, computing {computing * 1e3:.0f} ms" in page
  taken = 4 * 7 / 8 * 1e9 / 450e9
  assert f"| 8 | 1 x 8 x 1 | {taken * 1e3:.1f} ms | {taken / (taken + computing):.0%} |" in page
