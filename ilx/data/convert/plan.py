"""Which episode goes into which file, decided once all were read: what a pipeline's workers share."""

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ilx.data import encode, features, files
from ilx.data.convert.write import Skipped

FILE = "plan.json"


class Head(NamedTuple):
  """What the plan needs to know of an episode."""

  index: int
  split: str
  kind: str  # of its features
  num_transitions: int
  total_reward: float
  num_bytes: int


# As workers hand it on: head, features as JSON, record.
Read = tuple[Head | Skipped, str, bytes]


class Plan(NamedTuple):
  """Which episode goes where: ``indices[split]``, rising, are cut into shards of ``episodes_per_shard``."""

  indices: dict[str, np.ndarray]
  episodes_per_shard: int


def make(
  source_name: str,
  episodes_per_shard: int,
  skip_damaged: bool,
  staging: str,
  heads: list[Head | Skipped],
  kinds: Mapping[str, str],
) -> Plan:
  """Decides which episodes go where, and keeps what the dataset's description needs.

  Raises:
    ValueError: where an episode has other fields than the first; names it.
  """
  skipped = [head for head in heads if isinstance(head, Skipped)]
  heads = sorted(head for head in heads if isinstance(head, Head))
  parsed = {kind: features.from_json(json.loads(text)) for kind, text in kinds.items()}
  kept = []
  for head in heads:
    # In the words of a recorder, which compares every episode with those before.
    if problem := encode.difference(parsed[heads[0].kind], parsed[head.kind]):
      if not skip_damaged:
        raise ValueError(f"{source_name}: episode {head.index}: Recorder.add: {problem}")
      skipped.append(Skipped(head.index, f"Recorder.add: {problem}"))
    else:
      kept.append(head)
  splits = sorted({head.split for head in kept})
  about = {
    "features": json.loads(kinds[kept[0].kind]) if kept else None,
    "returns": [head.total_reward for head in kept],
    "num_transitions": sum(head.num_transitions for head in kept),
    "skipped": sorted(skipped),
    "splits": {
      split: [(head.index, head.num_bytes) for head in kept if head.split == split]
      for split in splits
    },
  }  # fmt: skip
  # A runner may do this twice; the name appears whole or not at all.
  temporary = Path(staging) / f"{FILE}.{uuid.uuid4().hex}"
  files.write_text(temporary, json.dumps(about))
  temporary.replace(Path(staging) / FILE)
  indices = {split: np.array([index for index, _ in about["splits"][split]], np.int64) for split in splits}
  return Plan(indices, episodes_per_shard)


def place(episode: Read, plan: Plan) -> Iterator[tuple[tuple[str, int], tuple[int, bytes]]]:
  """An episode under (split, shard), unless it is left out."""
  head, _, content = episode
  indices = plan.indices.get(getattr(head, "split", ""), np.empty(0, np.int64))
  rank = int(np.searchsorted(indices, head.index))
  if rank < len(indices) and indices[rank] == head.index:
    yield (head.split, rank // plan.episodes_per_shard), (head.index, content)
