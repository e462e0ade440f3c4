"""RLDS datasets: on disk as TFDS folders, in memory as columns, and the views that agents learn from."""

from ilx.data.encode import episode
from ilx.data.episodes import Episodes, from_columns, lengths, returns
from ilx.data.record import Recorder
from ilx.data.rlds import Info, Split, load, read_info, resolve, root
from ilx.data.spec import spec
from ilx.data.statistics import merge, statistics
from ilx.data.views import Transitions, transitions

__all__ = [
  "Episodes",
  "Info",
  "Recorder",
  "Split",
  "Transitions",
  "episode",
  "from_columns",
  "lengths",
  "load",
  "merge",
  "read_info",
  "resolve",
  "returns",
  "root",
  "spec",
  "statistics",
  "transitions",
]
