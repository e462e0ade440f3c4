"""RLDS datasets: on disk as TFDS folders, in memory as columns, and the views that agents learn from.

Three ways to open a dataset, of which all give the same batches or their like: ``load`` it into memory; ``mapped``, in
columns written once and mapped into memory; ``streamed`` from its files while it is learnt from.
"""

from ilx.data.cache import open as mapped
from ilx.data.encode import episode
from ilx.data.episodes import Episodes, from_columns, lengths, returns
from ilx.data.images import Images
from ilx.data.mixing import mixture
from ilx.data.ranks import rank_actions
from ilx.data.record import Recorder
from ilx.data.rlds import Info, Selection, load, read_episodes, read_info, resolve, root
from ilx.data.sampling import per_episode, top_return, weighted
from ilx.data.spec import spec
from ilx.data.statistics import merge, statistics
from ilx.data.stream import Stream
from ilx.data.stream import open as streamed
from ilx.data.views import Transitions, transitions
from ilx.data.windows import Chunks, Windows

__all__ = [
  "Chunks",
  "Episodes",
  "Images",
  "Info",
  "Recorder",
  "Selection",
  "Stream",
  "Transitions",
  "Windows",
  "episode",
  "from_columns",
  "lengths",
  "load",
  "mapped",
  "merge",
  "mixture",
  "per_episode",
  "rank_actions",
  "read_episodes",
  "read_info",
  "resolve",
  "returns",
  "root",
  "spec",
  "statistics",
  "streamed",
  "top_return",
  "transitions",
  "weighted",
]
