"""What the commands print: tables and progress, plain where there is no terminal."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def table(
  heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True, console: Console | None = None
) -> None:
  """Prints a table; all columns but the first are set to the right where they are ``numbers``."""
  console = console or Console()
  heads, rows = [printable(head) for head in heads], [[printable(cell) for cell in row] for row in rows]
  if console.is_terminal:
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(heads))
    for place, head in enumerate(heads):
      drawn.add_column(head, justify="right" if numbers and place else "left", overflow="fold")
    for row in rows:
      drawn.add_row(*map(Text, row))
    console.print(drawn)
    return
  widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
  lines = [
    "  ".join(
      c.rjust(w) if i and numbers else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in ([heads, *rows] if any(heads) else rows)
  ]
  # Not console.print: it would fold lines at 80 columns.
  console.file.write("".join(f"{line}\n" for line in lines))
  console.file.flush()


def printable(text: str, kept: str = "") -> str:
  """The text with everything written out that could steer a terminal, such as the escape character as ``\\x1b``.

  Args:
    text: from a dataset, which may hold anything.
    kept: characters that stay as they are, such as line ends.
  """
  return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def progress(what: str, total: int | None, console: Console | None = None) -> Iterator[Callable[[int], None]]:
  """A bar on a terminal, nothing elsewhere; yields a function that takes how many more were done."""
  console = console or Console(stderr=True)
  if not console.is_terminal:
    yield lambda count: None
    return
  bar = Progress(
    TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console, transient=True
  )
  with bar:
    task = bar.add_task(what, total=total)
    yield lambda count: bar.advance(task, count)


def total(advance: Callable[[int], None]) -> Callable[[int, int], None]:
  """For work that tells (how many are done, how many there are): hands on how many more."""
  before = 0

  def tell(done: int, count: int) -> None:
    nonlocal before
    del count
    advance(done - before)
    before = done

  return tell
