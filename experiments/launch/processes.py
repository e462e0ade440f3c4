"""Processes side by side, each on cores and GPUs of its own; a signal ends them in good order."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ilx.training import Interrupted

_POLL_SECONDS = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Process(NamedTuple):
  """One to be.

  Attributes:
    name: what messages call it.
    words: the command.
    log: file that its output replaces.
    variables: of its environment, beside those of this process.
  """

  name: str
  words: Sequence[str]
  log: pathlib.Path
  variables: Mapping[str, str] = {}


class Share(NamedTuple):
  """Of the machine, for one process at a time; None: all there is, nothing is handed out."""

  cores: tuple[int, ...] | None
  gpus: tuple[str, ...] | None


class Ended(NamedTuple):
  """A process that came to its end; ``failure`` says in one line what went wrong, if anything did."""

  process: Process
  share: Share
  failure: str | None


def shares(jobs: int, gpus_per_job: int | None = 0) -> list[Share]:
  """Equal parts of the machine for ``jobs`` processes at once.

  Equal, since jax rounds differently on another number of cores: a run that goes on in any of them ends with the same
  bits. What cannot be divided is left over.

  Args:
    jobs: at least 1. A single one has all cores; where there are more jobs than cores, several have the same one.
    gpus_per_job: 0: GPUs are not handed out, every process sees all. None: they are where there are any and several
      jobs, evenly.

  Raises:
    ValueError: for more GPUs than there are.
  """
  cores = sorted(os.sched_getaffinity(0))
  gpus = visible_gpus() if gpus_per_job or (gpus_per_job is None and jobs > 1) else []
  if gpus_per_job is None and gpus:
    gpus_per_job = max(1, len(gpus) // jobs)
  each = gpus_per_job or 0
  if jobs * each > len(gpus):
    raise ValueError(
      f"{jobs} at a time with {each} GPUs each are {jobs * each}, there are {len(gpus)}; give fewer --jobs, or "
      "--gpus_per_job=0 to hand out none"
    )
  return [
    Share(
      tuple(cores[job % len(cores) :: jobs][: max(1, len(cores) // jobs)]) if jobs > 1 else None,
      tuple(gpus[job * each : (job + 1) * each]) if each else None,
    )
    for job in range(jobs)
  ]


def visible_gpus() -> list[str]:
  """The NVIDIA GPUs that processes started from here see, as CUDA_VISIBLE_DEVICES names them."""
  visible = os.environ.get("CUDA_VISIBLE_DEVICES")
  if visible is not None:
    return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
  if os.environ.get("JAX_PLATFORMS") == "cpu":
    return []
  try:
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
  except (OSError, subprocess.CalledProcessError):
    return []
  return [str(place) for place, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def finish(
  processes: Sequence[Process],
  parts: Sequence[Share],
  ended: Callable[[Ended], None],
  started: Callable[[Process], None] = lambda process: None,
  wait: Callable[[], None] = lambda: None,
  keep: Sequence[int] = (),
) -> None:
  """Runs all, as many at a time as there are ``parts``, in the given order.

  On SIGINT, SIGTERM or SIGHUP no more are started, those that run get SIGTERM (once: a second one would not let them
  save), and are waited for; on a second signal they are killed.

  Args:
    processes: to run.
    parts: of the machine, one for each process at a time.
    ended: called with each when it has ended.
    started: called with each when it has started.
    wait: called about ten times a second.
    keep: file descriptors that the processes have, too: locks that shall last as long as any of them.

  Raises:
    Interrupted: where a signal kept some from being finished.
  """
  todo, free, running = list(reversed(processes)), list(reversed(parts)), []
  unfinished = len(processes)
  with _signals() as received:
    told = 0
    try:
      while running or (todo and not received):
        while todo and free and not received:
          process, share = todo.pop(), free.pop()
          running.append((process, share, _start(process, share, keep)))
          started(process)
        if len(received) > told:
          told = len(received)
          for *_, child in running:
            child.terminate() if told == 1 else _kill(child)
        for entry in [entry for entry in running if entry[2].poll() is not None]:
          running.remove(entry)
          process, share, child = entry
          free.append(share)
          unfinished -= child.returncode == 0
          if not (received and child.returncode):
            ended(Ended(process, share, _failure(process, child.returncode)))
        wait()
        time.sleep(_POLL_SECONDS)
    finally:
      # What else went wrong here must not leave processes without a parent.
      for *_, child in running:
        child.terminate()
      for *_, child in running:
        child.wait()
  if received and unfinished:
    number = received[0]
    raise Interrupted(f"stopped by {number.name}; {unfinished} of {len(processes)} are not finished", number)


def last_line(log: pathlib.Path) -> str:
  """Of what a process wrote."""
  lines = log.read_text(errors="replace").strip().splitlines()
  return lines[-1].strip() if lines else "no output"


def _start(process: Process, share: Share, keep: Sequence[int]) -> subprocess.Popen:
  """In a session of its own: Ctrl-C must not reach it beside our own signal."""
  variables = {} if share.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(share.gpus)}
  mine = os.sched_getaffinity(0)
  with open(process.log, "w") as output:
    try:
      os.sched_setaffinity(0, share.cores or mine)  # inherited
      return subprocess.Popen(
        process.words,
        env=os.environ | variables | dict(process.variables),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=tuple(keep),
      )
    finally:
      os.sched_setaffinity(0, mine)


def _failure(process: Process, code: int) -> str | None:
  if code == 0:
    return None
  how = f"exit status {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
  return f"{process.name}: {how}: {last_line(process.log)}; see {process.log}"


def _kill(child: subprocess.Popen) -> None:
  """With what it started."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(child.pid, signal.SIGKILL)


@contextlib.contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
  """Collects signals, but those that are ignored, as those of a terminal are by what runs behind ``nohup`` or ``&``."""
  received: list[signal.Signals] = []
  before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
  for number, handler in before.items():
    if handler != signal.SIG_IGN:
      signal.signal(number, lambda number, frame: received.append(signal.Signals(number)))
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
