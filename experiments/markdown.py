"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
  """Lines without an end of the last one; the columns ``right`` are of numbers, and stand to the right."""
  right = set(right)
  rule = ["---:" if i in right else "---" for i in range(len(heads))]
  lines = [[cell.replace("|", "\\|") for cell in line] for line in (heads, rule, *rows)]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
