r"""The mapping file of ``convert.logs``: which of your files and columns is what in the dataset.

A YAML or JSON file. The smallest one, for ``sessions/<any name>/video.mp4`` beside a ``pad.jsonl`` with one line for
every frame such as ``{"stick": [0.1, -0.5], "jump": true, "score": 2}``::

  frames:
    screen: {path: "sessions/{episode}/video.mp4", resize: [128, 128]}
  events:
    pad: {path: "sessions/{episode}/pad.jsonl"}
  action:
    - {column: stick}
    - {column: jump, kind: button}
  reward: {column: score}

one with an action of several parts, of which each is learnt as what it is, numbers, a button, one of several weapons::

  frames:
    screen: {path: "sessions/{episode}/video.mp4", resize: [128, 128]}
  events:
    pad: {path: "sessions/{episode}/pad.csv"}
  action:
    stick: [{column: stick_x}, {column: stick_y}]
    jump: {column: jump, kind: button}
    weapon: {column: weapon, kind: category, vocabulary: [sword, bow]}
  metadata: {action_low: {stick: [-1, -1]}, action_high: {stick: [1, 1]}}

and one that uses more of it, for events at times of their own::

  name: my-game
  metadata: {env_id: MyGame-v1, licence: CC-BY-4.0}
  frames:
    screen: {path: "{split}/{player}/{episode}.mkv", crop: [0, 40, 640, 400], resize: [128, 80]}
  events:
    keys: {path: "{split}/{player}/{episode}.csv", time: ms, unit: ms}       # ms,key,state
    mouse: {path: "{split}/{player}/{episode}.mouse.parquet", time: t, offset: -0.25}
    scores: {path: results.xml, records: results/run, episode: "@id", time: "@t"}
  observation:
    health: {from: scores, column: player/health, fill: 100}
  action:
    - {from: keys, column: state, where: {key: w}, kind: button, pressed: [down], align: press}
    - {from: mouse, columns: [dx, dy], align: sum}
  reward: {from: scores, column: points}
  terminal: {from: scores, column: died}
  success: {from: scores, column: won}
  steps:
    language_instruction: {from: scores, column: quest, kind: text, fill: ""}
  episode:
    difficulty: {from: scores, column: difficulty, kind: text, take: first}
  clock: {skip: 4, segment: 1000}

How it is read:

* Paths are relative to the recordings' folder. A part in braces stands for any text without "/" and names it: what
  has the same parts belongs together, the parts become metadata of the episode, and ``{split}`` is its split. ``*``
  and ``?`` stand for any text: several event files are read one after the other, in natural order.
* Columns are named by a key, or by a path into nested records: "player.health", "stick.0", "player/health"; in XML
  attributes are "@id" or just "id", and elements that occur several times are lists.
* Every step is one frame of the clock. A table with ``time`` is aligned by time: ``hold`` takes the last record until
  the frame, ``sum`` adds and ``any`` asks all records from this step on until the next. ``press`` is ``hold`` or
  ``any``: pressed at the frame, or for a moment before the next. Times within a millisecond are one time. A table
  without ``time`` is aligned by number: record i is frame i, and between the steps of ``skip`` the same rules hold. It
  has a record for every frame, or, where it says what was done between the frames, one less.
* A video's times count from its first frame, wherever its container has them start; ``offset`` of the frames or of the
  table says how the two clocks go together, and ``rate`` how fast the one runs beside the other. Neither is found out:
  half a percent of drift are 18 frames after a minute of 60 a second, which no check sees.
* Refused, since the actions would be those of other frames, unless the table has ``check: false``: records of which
  none, or at most a quarter (of 10 or more: less than half), are within the frames' time; 10 or more that are within
  less than a hundredth of it, or, where they come at regular times, less than half of it; and, where these are held, a
  gap of more than 10 s and 100 times the usual one. A single record may be up to an hour before the frames.
* Warned of, as players pause but logs also stop early: more than 10 s, and more than a quarter of a recording, without
  any record of an action, which would be held, or 0. Tables with ``check: false`` are taken as they are.
* Pictures are turned as their EXIF orientation, and videos as their header, say; what is transparent is laid over
  black; pictures of more than 8 bits are refused. Files that are links out of the recordings' folder are refused, and
  so are playlists, which name other files.
* A column that the header of a CSV or TSV file lacks is an error, whatever is asked for in it. In other formats records
  may have different columns; there, and for values, a warning follows the conversion where no record of any recording
  fits a ``where`` or ``pressed``, or has a name of a ``vocabulary``: a button that is in none is likely misspelt.
  Spaces around the values that a ``where`` compares are no part of them.
* A recording that lacks a file is refused when it is read, so that it can be skipped.
* Ends. ``terminal`` is true in the step that led to the end of the task, or in the last. In the last, the frame after
  it was not recorded, and the last observation is repeated as the terminal one; its value is never bootstrapped. All
  other recordings were cut, which is a time limit: the last frame is the last step, and what was done after it is left
  out. A segment's end is a time limit too.
* Buttons are 0 and 1, numbers float32, categories int32. An action is one vector of all its fields, or an integer if
  its one field is a category or has ``dtype: int32``.
* A part of an action is what its fields are: bool if all are buttons, int32 if all are categories or have ``dtype:
  int32``, else a float32 vector, in which buttons are 0 and 1, and which has no categories. Buttons with ``align: sum``
  are numbers. One button or category is one value a step, several are a vector of choices.
"""

# ruff: noqa: RUF009 (``setting`` is ``dataclasses.field``)

import dataclasses
from typing import Any

from ilx.data.convert import checks
from ilx.data.convert.checks import setting
from ilx.data.convert.frames import Look

# Columns, each with the values that it may have: texts, or true and false.
Where = tuple[tuple[str, tuple[str | bool, ...]], ...]
FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "avro", "yaml", "xml")


@dataclasses.dataclass(frozen=True)
class Frames:
  """Pictures over time; observation field of the same name.

  Attributes:
    path: a video file; or a folder of pictures, or a pattern of picture files such as "{episode}_*.png", which are
      taken in natural order.
    crop: left, top, width, height in pixels.
    resize: width, height in pixels, after ``crop``.
    channels: 3, or 1 for grey.
    encoding: "jpeg" (quality 95) or "png". By default pictures that nothing changes keep their bytes, and all others
      become JPEG.
    fps: frames a second; by default the video's own times, from its first frame on. A folder of pictures needs it to be
      aligned by time.
    offset: seconds to add to the frames' times, which count from the first frame.
    check: whether frames on another clock that are shown in less than half of the steps' time are refused.
  """

  path: str = setting(checks.text)
  crop: tuple[int, int, int, int] | None = setting(checks.pixels, None)
  resize: tuple[int, int] | None = setting(checks.pixels, None)
  channels: int = setting(checks.choice(1, 3), 3)
  encoding: str | None = setting(checks.choice("jpeg", "png"), None)
  fps: float | None = setting(checks.positive, None)
  offset: float = setting(checks.number, 0.0)
  check: bool = setting(checks.flag, True)

  def __post_init__(self):
    _ = self.look

  @property
  def look(self) -> Look:
    """What becomes of every picture."""
    return Look(self.crop, self.resize, self.channels, self.encoding)


@dataclasses.dataclass(frozen=True)
class Events:
  """A table of records.

  Attributes:
    path: the files.
    format: "jsonl", "json", "csv", "tsv", "parquet", "avro", "yaml" or "xml"; by default as the files' names end.
    records: the path to the list of records in JSON and YAML ("session.events"; by default the file is the list, or
      YAML documents), and to the elements in XML ("log/event"; by default the root's children).
    delimiter: between the values of CSV files, such as ";"; "," by default.
    encoding: of CSV and TSV files, such as "utf-16" or "latin-1"; UTF-8 by default.
    episode: the column that names the episode, in files that hold many; its values are the ``{episode}`` of paths.
    time: the column of times, rising. Without it records are aligned by number.
    unit: of the times: "s", "ms", "us", "ns", or "iso" for texts such as 2024-05-01T12:00:00.25Z (no zone: UTC).
    offset: seconds to add to the times, once ``rate`` is accounted for.
    rate: seconds of the times for every second of the frames, where the clocks run at different speeds: between two
      moments that are seen in both, such as 59.7 s of the log for 60 s of the video, 0.995.
    relative: whether times count from an episode's first record.
    check: whether times that are not the frames' are refused, see above; false takes them as they are.
    where: columns, each with the value or the list of values it must have; other records are not there. Texts that
      YAML reads as true or false, on, off, yes and no, stand in quotes.
  """

  path: str = setting(checks.text)
  format: str | None = setting(checks.choice(*FORMATS), None)
  records: str | None = setting(checks.text, None)
  delimiter: str | None = setting(checks.mark, None)
  encoding: str | None = setting(checks.encoding, None)
  episode: str | None = setting(checks.text, None)
  time: str | None = setting(checks.text, None)
  unit: str = setting(checks.choice("s", "ms", "us", "ns", "iso"), "s")
  offset: float = setting(checks.number, 0.0)
  rate: float = setting(checks.positive, 1.0)
  relative: bool = setting(checks.flag, False)
  check: bool = setting(checks.flag, True)
  where: Where = setting(checks.pairs, ())

  def __post_init__(self):
    if self.time is None and (self.unit != "s" or self.offset or self.rate != 1 or self.relative or not self.check):
      raise ValueError("unit, offset, rate, relative and check are about times; name their column in 'time'")


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of the dataset, and the columns it is made of.

  Attributes:
    source: ``from``, the table; may be left out where there is one.
    column: its column: a value, or a list of numbers, or of pressed buttons (see ``vocabulary``).
    columns: in its stead, several that make a vector.
    kind: "number"; "button", 0 or 1; "category", a text or number that becomes its place in ``vocabulary``; "text".
    vocabulary: the categories, in order. For buttons: names of buttons, where ``column`` lists those that are pressed
      (a list, or a text with spaces, commas, "+" or "|" between them); the field is a vector, and other names are
      ignored.
    pressed: values that say that a button is pressed; by default true, numbers but 0, and the texts true, yes, on,
      down, pressed.
    align: "hold", "sum", "any" or "press"; see above. By default "sum" for the reward, "any" for terminal, else "hold".
    fill: the value before the first record, for "hold" and "press"; 0 for buttons. By default that is an error.
    missing: what to do where a record has no value (none, empty, null or NaN): "error"; "forward", as if the record
      was not there; or a number to take.
    dtype: "float32", "int32", "uint8" or "bool" to store other numbers than float32.
    where: columns, each with the value or list of values it must have, as in ``Events``; other records do not concern
      the field.
    take: "first", "last", "min", "max", "sum" or "mean" of all records; for fields of ``episode`` alone, "last" there.
  """

  source: str | None = setting(checks.text, None, key="from")
  column: str | None = setting(checks.text, None)
  columns: tuple[str, ...] = setting(checks.texts, ())
  kind: str = setting(checks.choice("number", "button", "category", "text"), "number")
  vocabulary: tuple[str, ...] = setting(checks.names, ())
  pressed: tuple[str | bool, ...] = setting(checks.texts_or_flags, ())
  align: str | None = setting(checks.choice("hold", "sum", "any", "press"), None)
  fill: float | str | None = setting(checks.value, None)
  missing: float | str = setting(checks.either(checks.choice("error", "forward"), checks.number), "error")
  dtype: str | None = setting(checks.choice("float32", "int32", "uint8", "bool"), None)
  where: Where = setting(checks.pairs, ())
  take: str | None = setting(checks.choice("first", "last", "min", "max", "sum", "mean"), None)

  def __post_init__(self):
    if (self.column is None) == (not self.columns):
      raise ValueError("give either 'column' or 'columns'")
    if self.columns and (self.kind in ("category", "text") or self.vocabulary):
      raise ValueError(f"a {self.kind} with a vocabulary, or a text, has one 'column', not 'columns'")
    if (self.kind == "category") != bool(self.vocabulary) and self.kind != "button":
      raise ValueError("'vocabulary' lists the values of a category, or the names of buttons; categories need it")
    if self.pressed and (self.kind != "button" or self.vocabulary):
      raise ValueError("'pressed' is for buttons without vocabulary")
    if self.kind in ("category", "text") and self.align not in (None, "hold"):
      raise ValueError(f"a {self.kind} cannot be aligned by {self.align!r}, only by 'hold'")
    if self.kind == "text" and isinstance(self.missing, float):
      raise ValueError("'missing' of a text is 'error' or 'forward'")
    if self.kind == "number" and self.align in ("any", "press"):
      raise ValueError(f"align {self.align!r} is for buttons; set 'kind: button'")
    if self.dtype is not None and self.kind in ("category", "text"):
      raise ValueError(f"'dtype' is for numbers and buttons, not for a {self.kind}")
    self._check_fill()

  def _check_fill(self) -> None:
    if self.fill is None:
      return
    if self.kind == "category" and checks.plain(self.fill) not in self.vocabulary:
      raise ValueError(f"'fill' is {self.fill!r}, which is not in the vocabulary")
    if self.kind in ("number", "button") and not isinstance(self.fill, float):
      raise ValueError(f"'fill' is {self.fill!r}; expected a number")
    if self.kind == "text" and not isinstance(self.fill, str):
      raise ValueError(f"'fill' is {self.fill!r}; expected a text")


@dataclasses.dataclass(frozen=True)
class Clock:
  """What the steps are.

  Attributes:
    source: ``from``, the frames or the table whose frames or records are the steps; by default the first of the
      frames, or else of the events.
    fps: steps a second from a table's first record to its last, where its records are at irregular times.
    skip: every how many-th frame is a step.
    segment: the most actions of an RLDS episode; longer recordings become several, which share the frame between them.
      (With "terminal" in the very last frame the last segment may have one more.)
    after_end: what to do with frames after ``terminal``: "error", or "cut" them off.
  """

  source: str | None = setting(checks.text, None, key="from")
  fps: float | None = setting(checks.positive, None)
  skip: int = setting(checks.whole, 1)
  segment: int | None = setting(checks.whole, None)
  after_end: str = setting(checks.choice("error", "cut"), "error")


def _fields(value: Any, where: str) -> tuple[Field, ...]:
  """A field, or a list of fields."""
  if isinstance(value, list) and value:
    return tuple(checks.build(Field, item, f"{where}[{index}]") for index, item in enumerate(value))
  return (checks.build(Field, value, where),)


def _action(value: Any, where: str) -> tuple[Field, ...] | dict[str, tuple[Field, ...]]:
  """A field, or a list of fields; or names of parts, each with its field or fields."""
  known = {f.metadata["key"] or f.name for f in dataclasses.fields(Field)}
  if not isinstance(value, dict) or not any(_is_part(item) for key, item in value.items() if key not in known):
    return _fields(value, where)
  for name in value:
    if name in known:
      raise ValueError(f"{where}: {name!r} is a key of fields; give the part another name, or each part its own fields")
    if value[name] == []:
      raise ValueError(f"{where}.{name}: is empty; a part is a field or a list of fields")
  return {checks.name_of(name, where): _fields(item, f"{where}.{name}") for name, item in value.items()}


def _is_part(value: Any) -> bool:
  """Whether a value under no key of a field is meant as a part of an action."""
  return (
    value is None or isinstance(value, dict) or (isinstance(value, list) and (not value or isinstance(value[0], dict)))
  )


def _flag_field(value: Any, where: str) -> Field:
  """A field that is a button unless it says otherwise."""
  return checks.build(Field, {"kind": "button"} | value if isinstance(value, dict) else value, where)


def _end(value: Any, where: str) -> bool | Field:
  return value if isinstance(value, bool) else _flag_field(value, where)


@dataclasses.dataclass(frozen=True)
class Mapping:
  """A whole mapping file.

  Attributes:
    action: a field, or a list of fields that make one vector; or several parts by name, each of them like that.
    frames: pictures, by name.
    events: tables, by name.
    observation: further observation fields, by name.
    reward: a field; 0 where there is none, which the dataset's metadata say.
    terminal: a field that is true at the end of the task; or true or false for all recordings.
    success: a field of which the episode's metadata say whether it was ever true.
    steps: further step fields, by name, such as language_instruction.
    episode: fields of the episode's metadata, by name.
    clock: what the steps are.
    splits: by split, the episodes in it: values of ``{episode}``, with ``*``. All others are in "train".
    name: of the dataset; by default the folder's.
    metadata: of the dataset: env_id, licence, action_low, action_high...
  """

  action: tuple[Field, ...] | dict[str, tuple[Field, ...]] = setting(_action)
  frames: dict[str, Frames] = setting(checks.named(Frames), factory=dict)
  events: dict[str, Events] = setting(checks.named(Events), factory=dict)
  observation: dict[str, Field] = setting(checks.named(Field), factory=dict)
  reward: Field | None = setting(checks.one(Field), None)
  terminal: bool | Field = setting(_end, False)
  success: Field | None = setting(_flag_field, None)
  steps: dict[str, Field] = setting(checks.named(Field), factory=dict)
  episode: dict[str, Field] = setting(checks.named(Field), factory=dict)
  clock: Clock = setting(checks.one(Clock), Clock())
  splits: dict[str, tuple[str, ...]] = setting(checks.lists, factory=dict)
  name: str | None = setting(checks.text, None)
  metadata: dict[str, Any] = setting(checks.jsonable, factory=dict)

  def action_fields(self) -> list[tuple[str, Field]]:
    """Every field of the action, or of its parts, with the key it stands at."""
    parts = self.action if isinstance(self.action, dict) else {"": self.action}
    return [
      (f"action.{name}[{index}]" if name else f"action[{index}]", field)
      for name, fields in parts.items()
      for index, field in enumerate(fields)
    ]

  def fields(self) -> list[tuple[str, Field]]:
    """Every field with the key it stands at."""
    found = self.action_fields()
    for key in ("reward", "terminal", "success"):
      if isinstance(field := getattr(self, key), Field):
        found.append((key, field))
    for key in ("observation", "steps", "episode"):
      found += [(f"{key}.{name}", field) for name, field in getattr(self, key).items()]
    return found

  def fields_of(self, table: str) -> tuple[Field, ...]:
    """The different fields made of a table."""
    return tuple(dict.fromkeys(field for _, field in self.fields() if field.source == table))
