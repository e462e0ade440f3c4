"""What the command lines share."""

from collections.abc import Callable
from typing import Any

from absl import app, flags, logging


def run(main: Callable[[], None], parse: Callable[[list[str]], list[str]] = app.parse_flags_with_usage) -> None:
  """Parses the flags, refuses anything that is not one, and calls ``main``."""

  def start(arguments: list[str]) -> Any:
    if len(arguments) > 1:
      raise app.UsageError(f"unexpected argument {arguments[1]!r}; flags start with --")
    if not flags.FLAGS["verbosity"].present:
      # Jax tells which backends it lacks; orbax tells every step, and prints tracebacks of failures that ilx reports in
      # one line.
      logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
      logging.set_verbosity(logging.WARNING)
    return main()

  app.run(start, flags_parser=parse)
