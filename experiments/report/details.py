"""The closing sections of the report: video, result, how to reproduce it, config, versions."""

import base64
import io
import json
import shlex
from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import Any

from experiments import revision
from experiments.report import facts, heldout, text
from experiments.report.run import MAX_VIDEO_BYTES, Run, flatten, interval, number

# By ``config.tier``.
_TIERS = {
  "device": "on the device",
  "host": "in the host's memory",
  "mapped": "in a cache, mapped into memory",
  "streamed": "streamed from their files",
}


def video(run: Run) -> str:
  """The episode as a data URI with a poster, or a sentence saying why there is none; empty where nothing is played."""
  if not facts.plays(run.result, run.config):
    return ""
  title = "The policy of the first seed at play" if facts.seeds(run.result) else "The policy at play"
  content = too_big(run) or (player(run) if run.video else '<p class="note">No video was recorded.</p>')
  return f"<section><h2>{title}</h2>{content}</section>"


def too_big(run: Run) -> str:
  """That the video was not read because it is larger than a page may embed; empty where it was, or there is none."""
  if run.video is not None or not run.video_bytes:
    return ""
  return (
    f'<p class="note">episode.mp4 is {text.size(run.video_bytes)}, more than the {text.size(MAX_VIDEO_BYTES)} this '
    "page may embed; open it from the run folder.</p>"
  )


def player(run: Run) -> str:
  """The video, which must be there, as a data URI with a poster, or a sentence that it is damaged."""
  first = poster(run.video)
  if first is None:
    return '<p class="note">episode.mp4 holds no picture that can be decoded: the file is damaged.</p>'
  data = base64.b64encode(run.video).decode()
  image = base64.b64encode(first).decode()
  env_id = str(run.result.get("env_id") or run.config.get("env_id") or "the environment")
  return (
    f'<video controls muted loop playsinline preload="metadata" '
    f'aria-label="{escape(f"The policy playing an episode of {env_id}")}" poster="data:image/jpeg;base64,{image}" '
    f'src="data:video/mp4;base64,{data}"></video>'
  )


def poster(data: bytes) -> bytes | None:
  """The first frame of a video as JPEG, None if it cannot be decoded."""
  import av

  try:
    with av.open(io.BytesIO(data)) as container:
      frame = next(container.decode(video=0))
      buffer = io.BytesIO()
      frame.to_image().save(buffer, "JPEG", quality=85)
      return buffer.getvalue()
  except (av.error.FFmpegError, StopIteration, IndexError):
    return None


def result_table(run: Run) -> str:
  """Every number of the result that the page does not show elsewhere in full."""
  result = run.result
  if not result:
    return ""
  decimals = facts.decimals(result)

  def value(key: str) -> str | None:
    x = number(result.get(key))
    return None if x is None else text.fixed(x, decimals)

  def band(key: str) -> str:
    pair = interval(result.get(key))
    return f"\n95 % interval {text.fixed(pair[0], decimals)} to {text.fixed(pair[1], decimals)}" if pair else ""

  def count(key: str) -> str | None:
    x = number(result.get(key))
    return None if x is None else text.significant(x)

  lengths, seconds = facts.values(result, "lengths"), number(result.get("seconds"))
  seeds, commit = facts.seeds(result), revision.short(result.get("git_commit"))
  devices = Counter(map(str, result["devices"])) if isinstance(result.get("devices"), list) else Counter()
  played = [
    ("Mean return", value("return_mean") and value("return_mean") + band("return_ci95")),
    ("Standard deviation over episodes", value("return_std")),
    ("Interquartile mean", value("return_iqm") and value("return_iqm") + band("return_iqm_ci95")),
    *([("Success", rate)] if (rate := facts.success(result)) else []),
    *([("Asked for", asked)] if (asked := facts.asked_for(result)) else []),
    ("Mean length", f"{text.significant(sum(lengths) / len(lengths))} steps" if lengths else None),
    ("Episodes of every seed" if seeds else "Episodes", count("episodes")),
    ("Expert's return", value("expert_return")),
    ("Data's return", value("data_return")),
    ("Random policy's return", value("random_return")),
    ("Environment", result.get("env_id")),
  ]
  held = heldout.measures(result)
  rows = [
    *(played if facts.plays(result) else [("Environment", "none")]),
    *([("Held out", heldout.counts(result) or None), *held] if held else []),
    ("Updates of every seed" if seeds else "Updates", count("steps")),
    ("Updates of every seed a second" if seeds else "Updates a second", count("updates_per_second")),
    ("Time", text.duration(seconds) if seconds is not None else None),
    ("Dataset", facts.versioned(facts.name(result.get("dataset")), run.versions) or None),
    ("Episodes learnt from", count("data_episodes")),
    ("Transitions learnt from", count("data_transitions")),
    *([("Data were", tier)] if (tier := _TIERS.get(str(result.get("tier")))) else []),
    ("Seeds" if seeds else "Seed", facts.seed_words(result, {}).partition(" ")[2] or None),
    ("Devices", ", ".join(f"{n} x {name}" for name, n in devices.items()) or None),
    ("Commit", commit or None),
  ]
  return f"<section><h2>Result</h2>{pairs((k, 'not recorded' if v is None else v) for k, v in rows)}</section>"


def command(run: Run) -> str:
  """A shell command that makes the same run in a new folder, or an empty string if it is not known.

  The recorded command with another ``--workdir``; where none is recorded, one that sets every field of the config.
  """
  given = run.result.get("command")
  if isinstance(given, list) and any(str(word).startswith("--config") for word in given):
    words = ["python", *_without_workdir([str(word) for word in given[1:]])]
  else:
    agent = facts.name(run.config.get("agent"))
    if not agent or ":" in agent:  # one's own has a config of its own
      return ""
    fields = [(path, leaf) for path, leaf in flatten(run.config).items() if leaf is not None and leaf != {}]
    words = ["python", "-m", "experiments.main", f"--config=experiments/configs/{agent}.py"]
    words += [f"--config.{path}={_flag(leaf)}" for path, leaf in fields]
  line = ""
  for word in [*words, "--workdir=runs/reproduced"]:
    separator = " \\\n  " if word.startswith(("--config.", "--workdir=")) else " " if line else ""
    line += separator + shlex.quote(word)
  return line


def reproduce(run: Run) -> str:
  """The command, after the checkout of the commit."""
  line = command(run)
  if not line:
    note = '<p class="note">Neither a command nor the config is recorded, so the command is not known.</p>'
    return f"<section><h2>Reproduce</h2>{note}</section>"
  commit, changed = revision.split(run.result.get("git_commit"))
  first = f"git checkout {shlex.quote(commit)}\n" if commit else ""
  note = '<p class="note">The code had changes that are not in this commit.</p>' if changed else ""
  dataset = facts.name(run.config.get("dataset"))
  if dataset and (learnt := facts.versioned(dataset, run.versions)) != dataset:
    note += (
      f'<p class="note">It learnt from {escape(learnt)}; where there are newer versions, say so in the config.</p>'
    )
  # It scrolls sideways where it is too wide, so it must take the keyboard's focus.
  block = f'<pre tabindex="0" role="region" aria-label="Commands"><code>{escape(first + line)}</code></pre>'
  return f"<section><h2>Reproduce</h2>{block}{note}</section>"


def collapsed(run: Run) -> str:
  """The whole config and the versions, closed until asked for."""
  parts = []
  if run.config:
    leaves = ((f"{k}", v if isinstance(v, str) else json.dumps(v)) for k, v in flatten(run.config).items())
    parts.append(f"<details><summary>Config</summary>{pairs(leaves)}</details>")
  versions = run.result.get("versions")
  if isinstance(versions, dict) and versions:
    parts.append(f"<details><summary>Versions</summary>{pairs(sorted(versions.items()))}</details>")
  return f"<section>{''.join(parts)}</section>" if parts else ""


def _without_workdir(words: list[str]) -> list[str]:
  kept, skip = [], False
  for word in words:
    flag = word.lstrip("-") if word.startswith("-") else ""
    if not skip and flag != "workdir" and not flag.startswith("workdir="):
      kept.append(word)
    skip = flag == "workdir"
  return kept


def _flag(leaf: Any) -> str:
  # Sequences are tuples in the configs; JSON made lists of them.
  if isinstance(leaf, list):
    return repr(tuple(leaf))
  return str(leaf)


def pairs(rows: Iterable[tuple[str, Any]]) -> str:
  """A table of names and values; of a value all lines but the first are small."""
  body = "".join(f'<tr><th scope="row">{escape(str(k))}</th><td>{_cell(str(v))}</td></tr>' for k, v in rows)
  return f'<table class="facts"><tbody>{body}</tbody></table>'


def _cell(value: str) -> str:
  first, *more = value.split("\n")
  return escape(first) + "".join(f"<small>{escape(line)}</small>" for line in more)
