"""What a killed build of a dataset had recorded already."""

import json

from ilx import data


class Finished:
  """Returns of the rounds that are recorded, kept beside the recorder's journal until it closes."""

  def __init__(self, recorder: data.Recorder):
    self._path = recorder.path.with_name(f"{recorder.version}.incomplete") / "returns.jsonl"
    self.returns: list[list[float]] = []
    text = self._path.read_text() if self._path.exists() else ""
    for line in text.splitlines(keepends=True):
      returns = json.loads(line) if line.endswith("\n") else []  # a kill may tear the last line
      if not returns or self.num_episodes + len(returns) > recorder.num_episodes:
        break
      self.returns.append(returns)

  @property
  def num_episodes(self) -> int:
    """In the rounds that are recorded whole."""
    return sum(map(len, self.returns))

  def add(self, returns: list[float]) -> None:
    """Notes that a round is recorded."""
    self.returns.append(returns)
    self._path.write_text("".join(json.dumps(row) + "\n" for row in self.returns))
