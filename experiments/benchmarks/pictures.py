"""Decoding pictures of 128 x 128, beside the decoder alone on all cores."""

import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Row
from ilx.data.images import Images

SIZE, BATCH = 128, 256
# The share of the decoder's own rate that must be reached.
BAR = 0.95


def run(quick: bool) -> list[Row]:
  """Random batches of JPEG and of PNG files through ``Images``."""
  rounds, seconds = (2, 0.05) if quick else (9, 0.5)
  rows = []
  for kind in ("JPEG", "PNG"):
    contents = [_picture(seed, kind) for seed in range(BATCH if quick else 4 * BATCH)]
    images = Images.of(contents, (SIZE, SIZE, 3))
    rng = np.random.default_rng(0)
    drawn = [rng.permutation(len(contents))[:BATCH] for _ in range(64)]  # none twice: that would be decoded once
    pool = ThreadPoolExecutor(os.cpu_count())

    def decoder(n: int, contents=contents, drawn=drawn, pool=pool) -> None:
      for index in range(n):
        wanted = [contents[i] for i in drawn[index % len(drawn)]]
        # As few hand-overs as there are cores: what is left is the decoder's own work.
        for _ in pool.map(_decode_all, [wanted[core :: os.cpu_count()] for core in range(os.cpu_count())]):
          pass

    def ours(n: int, images=images, drawn=drawn) -> None:
      for index in range(n):
        images[drawn[index % len(drawn)]]

    calls = {"ours": ours, "decoder": decoder}
    times = measure.interleave({n: measure.repeated(c, seconds, work=BATCH) for n, c in calls.items()}, rounds)
    bar = BAR * float(np.median(1 / times["decoder"].wall))
    name, limit = f"pictures, {kind} {SIZE} x {SIZE}", "Pillow alone, all cores"
    rows.append(
      measure.row(name, times["ours"], "pictures/s", limit, times["decoder"], bar=bar, note="bar: 95 % of it")
    )
    pool.shutdown()
  return rows


def _decode_all(contents: list[bytes]) -> None:
  for content in contents:
    with Image.open(io.BytesIO(content)) as image:
      np.asarray(image.convert("RGB"))


def _picture(seed: int, kind: str) -> bytes:
  """A smooth picture with some noise, as cameras and games make them."""
  rng = np.random.default_rng(seed)
  coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
  noisy = np.clip(np.asarray(coarse, np.int16) + rng.integers(-8, 9, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(noisy).save(file, kind)
  return file.getvalue()
