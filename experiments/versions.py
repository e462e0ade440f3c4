"""Which versions of its datasets a run learns from: ``datasets.json`` in its folder, written when it begins.

The config keeps what was asked for, mostly a name alone, which means the newest version. A run that goes on, and all
that is made of it later, take the versions that it began with.
"""

import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ilx.data import derived
from ilx.data.rlds import Info
from ilx.parallel import hosts
from ilx.training import logs

NAME = "datasets.json"


class Version(NamedTuple):
  """A dataset as it was opened: its version, and 16 hex digits that change with its files, not with their times."""

  version: str
  fingerprint: str


def of(info: Info) -> Version:
  """Of the dataset. Its folder says which version it is; one that is named otherwise tells it itself."""
  folder = info.directory.name
  return Version(
    folder if re.fullmatch(r"\d+\.\d+\.\d+", folder) else info.version,
    derived.fingerprint(info, times=False),  # a copy is no other dataset
  )


def read(workdir: pathlib.Path) -> dict[str, Version]:
  """By the names that the config has; empty for a run that is older than this record.

  Raises:
    ValueError: where the file is damaged.
  """
  path = workdir / NAME
  if not path.is_file():
    return {}
  try:
    return {name: Version(str(one["version"]), str(one["fingerprint"])) for name, one in _object(path).items()}
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(
      f"{path} is damaged ({error!r}); put it back, or remove it to go by the newest versions of the datasets"
    ) from None


def _object(path: pathlib.Path) -> dict:
  found = json.loads(path.read_text())
  if not isinstance(found, dict):
    raise ValueError("no JSON object")
  return found


def write(workdir: pathlib.Path, found: Mapping[str, Version]) -> None:
  """Leaves the record in a run's folder."""
  logs.write_json(workdir / NAME, {name: one._asdict() for name, one in found.items()})


def numbers(found: Mapping[str, Version]) -> dict[str, str]:
  """``{"game": "1.0.1"}``."""
  return {name: one.version for name, one in found.items()}


def check_agreed(found: Mapping[str, Version]) -> None:
  """Raises ValueError in every process of a run where they opened different versions; all call it at one moment.

  Files are not compared: each host may have a copy of its own, or a part.
  """
  words = ", ".join(f"{name} {version}" for name, version in numbers(found).items())
  everyone = hosts.gather(np.frombuffer(hashlib.sha256(words.encode()).digest(), np.uint8))
  if (everyone != everyone[0]).any():
    raise ValueError(
      f"config.dataset: the processes found different versions (this one {words}); let all see the same, or name the "
      "version, such as --config.dataset=my-game/1.0.0"
    )
