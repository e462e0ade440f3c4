"""What a converter is: recordings of which any episode can be read alone."""

from typing import Any, NamedTuple, Protocol


class Converted(NamedTuple):
  """One episode on its way into an RLDS dataset.

  Attributes:
    steps: fields ``[T + 1, ...]``, as ``ilx.data.Recorder.add`` takes them (``ilx.data.episode`` makes them): the RLDS
      ones and any others, such as "language_instruction" (a list of T + 1 strings).
    metadata: of the episode: strings, bools, numbers or small arrays, by name.
    split: where it belongs.
  """

  steps: dict[str, Any]
  metadata: dict[str, Any] = {}  # noqa: RUF012 (never changed)
  split: str = "train"


class Source(Protocol):
  """Recordings in some other format.

  Picklable, and holds paths and options rather than data, so that any process can read any episode; opening it reads
  no more than what tells the episodes apart.

  It may have a method ``doubts()``, sentences about what is suspicious in the recordings as a whole: drivers warn of
  them once all is written.

  Attributes:
    name: of the dataset, unless the user chooses another.
    metadata: what ``metadata.json`` will say, JSON-able: "env_id", "action_low", "source", "licence"... if known.
  """

  name: str
  metadata: dict[str, Any]

  def __len__(self) -> int:
    """How many episodes there are."""
    ...

  def __getitem__(self, index: int) -> Converted:
    """Reads one episode.

    Raises:
      ValueError: where it is damaged or no episode; names file, record and field. Such an episode can be skipped;
        any other error stops a conversion.
    """
    ...
