"""Scores a run again: more episodes, another checkpoint, other targets, sampled actions.

  python -m experiments.evaluate --workdir=runs/bc-halfcheetah-expert-seed0 --episodes=1000
  python -m experiments.evaluate --workdir=runs/dt-hopper-medium-seed0 --target_returns=1000,2000,3000
  python -m experiments.evaluate --workdir=runs/bc-halfcheetah-expert-seed0 --visitation --video=9

Without --seed, and with as many episodes, these are the very episodes of the run's own closing score. The run's dataset
must be there, in the version that the run began with; the run may be going on. Writes evaluation.json into the run
folder, and with --video episodes.mp4 (with --target_returns one for each, such as episodes-1000.mp4).
"""

import json
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console
from rich.progress import Progress

import ilx
from experiments import cli, outputs, scoring, task, trained
from ilx.data import stream
from ilx.evaluation import environments, matching, observed, visitation
from ilx.training import logs

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Of this command; not made on import, where they would meet those of other commands."""
  trained.define_flags("evaluation.json")
  flags.DEFINE_integer("episodes", 100, "Whole episodes of every seed of the run.", lower_bound=1)
  flags.DEFINE_integer("seed", None, "Of the episodes; by default that of the run's closing score.", lower_bound=0)
  flags.DEFINE_integer("num_envs", None, "Environments stepped together.", lower_bound=1)
  flags.DEFINE_integer(
    "batch_size", None, "Of these environments, act for so many as soon as they are ready.", lower_bound=1
  )
  flags.DEFINE_bool("sample", False, "Draw actions instead of playing the mode.")
  flags.DEFINE_list("target_returns", [], "Returns to ask a decision transformer for, each scored on its own.")
  flags.DEFINE_string("env_id", None, "Another task than the run's; a spec that differs is an error that says how.")
  flags.DEFINE_string("env_kwargs", None, "Its options, as a JSON object.")
  flags.DEFINE_bool("visitation", False, "Tell, too, how far what the policy sees is from what the data show.")
  flags.DEFINE_integer(
    "video",
    0,
    "Record so many episodes side by side, of the first seed, in episodes.mp4.",
    lower_bound=0,
    upper_bound=64,
  )


def main() -> None:
  workdir = pathlib.Path(FLAGS.workdir).expanduser()
  console = Console(stderr=FLAGS.json)
  try:
    output = outputs.check(FLAGS.output, "--output") if FLAGS.output else workdir / "evaluation.json"
    found = _task(trained.load(workdir, FLAGS.step, agent=FLAGS.agent))
    if FLAGS.visitation and FLAGS.episodes < 2:
      raise ValueError("--visitation compares the data's episodes with each other, too: --episodes must be at least 2")
    if FLAGS.sample and _is_a_point(found):
      raise ValueError(f"--sample: the policy of {workdir} has no distribution; leave the flag out")
    targets = _targets(found)
    with Progress(console=console, disable=not console.is_terminal) as progress:
      bar = progress.add_task("playing", total=len(targets))
      scores = []
      for place, target in enumerate(targets):
        scores.append(score(found, target, lambda share, place=place: progress.update(bar, completed=place + share)))
    content = trained.about(found, workdir) | {
      "sampled": FLAGS.sample,
      "seeds": [_seed(found, place) for place in range(len(found.params))],
      "num_envs": FLAGS.num_envs,
      "batch_size": FLAGS.batch_size,
      "scores": scores,
    }
    logs.write_json(output, content)
    films = []
    if FLAGS.video:
      with console.status("drawing"):
        films = [film(found, target, workdir) for target in targets]
  except (OSError, ImportError, RuntimeError, ValueError) as error:
    sys.exit(f"error: {error}")
  if FLAGS.json:
    print(json.dumps(logs.jsonable(content), indent=2))
  else:
    print("\n".join([*table(found, scores), *films]))


def _is_a_point(found: trained.Trained) -> bool:
  """Whether the policy chooses actions as points, by what it says of how likely they are."""
  agent, observation = found.agent, found.task.data.spec.observation
  if agent.log_prob is None:
    return False

  def likely(params: Any) -> Any:
    zeros = jax.tree.map(lambda x: jnp.zeros((1, *x.shape), x.dtype), observation)
    step = ilx.Step(zeros, jnp.zeros(1), jnp.ones(1, bool))
    action, _ = agent.act(params, agent.carry(1), step, None)
    return agent.log_prob(params, agent.carry(1), step, action)[0]

  return not jax.tree.leaves(jax.eval_shape(likely, found.params[0]))


def score(found: trained.Trained, target: float | None, progress: Callable[[float], None]) -> dict[str, Any]:
  """What is written for one target return (None: the run's own)."""
  played, seen = [], []
  for place, params in enumerate(found.params):
    played.append(
      ilx.evaluate(
        found.agent,
        asked(params, target),
        found.task.env_id,
        episodes=FLAGS.episodes,
        seed=_seed(found, place),
        num_envs=FLAGS.num_envs,
        batch_size=FLAGS.batch_size,
        env_kwargs=found.task.env_kwargs,
        sample=FLAGS.sample,
        on_episode=(lambda _, episode: seen.append(episode.observation)) if FLAGS.visitation else None,
        progress=lambda share, place=place: progress((place + share) / len(found.params)),
      )
    )
  steps, seconds = sum(one.env_steps for one in played), sum(one.seconds for one in played)
  repeated, _ = environments.repetitions(found.task.env_id, found.task.env_kwargs)
  version = played[0].env_version
  return {
    "target_return": target,
    "env_id": found.task.env_id,
    "env_kwargs": found.task.env_kwargs,
    "library": f"EnvPool {version}" if environments.library(found.task.env_id) == "envpool" else version,
    **scoring.of_play(scoring.with_random_return(found.task), played),
    "returns": [one.returns for one in played],
    "lengths": [one.lengths for one in played],
    "seconds": seconds,
    "env_steps_per_second": steps * repeated / seconds,
    **({"visitation": visitation(seen, demonstrated(found, FLAGS.episodes))._asdict()} if FLAGS.visitation else {}),
  }


def asked(params: Any, target: float | None) -> Any:
  """The params that ask for a target return; None: their own."""
  return params if target is None else params._replace(target_return=np.float32(target))


def film(found: trained.Trained, target: float | None, folder: pathlib.Path) -> str:
  """Records episodes in ``folder``; a line on what came of it."""
  name = "episodes" if target is None else f"episodes-{str(target).removesuffix('.0')}"
  path = folder / f"{name}.mp4"
  video = ilx.evaluation.record_video(
    found.agent,
    asked(found.params[0], target),
    found.task.env_id,
    path,
    seed=_seed(found, 0),
    episodes=FLAGS.video,
    env_kwargs=found.task.env_kwargs,
    sample=FLAGS.sample,
  )
  return f"  video: {video}" if video else "  no video (see above)"


def demonstrated(found: trained.Trained, episodes: int) -> list[Any]:
  """The observations ``[T, O]`` of so many of the episodes learnt from, evenly spread over them; of all, of fewer."""
  if found.config.frame_stack:
    raise ValueError("--visitation compares single observations; the run's are stacks of frames")
  data = found.task.data.train
  learnt = np.flatnonzero(_weights(data) > 0)
  numbers = learnt[np.linspace(0, len(learnt) - 1, min(episodes, len(learnt))).astype(int)]
  if isinstance(data, stream.Stream):
    data, numbers = data.read(numbers), range(len(numbers))
  starts = np.asarray(data.starts)
  return [jax.tree.map(lambda x, e=e: x[starts[e] : starts[e + 1]], data.observation) for e in numbers]


def _weights(data: ilx.data.Episodes | stream.Stream) -> np.ndarray:
  """``[E]``; 0 for episodes that are not learnt from."""
  if isinstance(data, stream.Stream):
    return data.weights
  return np.ones(data.num_episodes) if data.weights is None else np.asarray(data.weights.weight)


def table(found: trained.Trained, scores: list[dict[str, Any]]) -> list[str]:
  """Lines for people."""
  first = scores[0]
  seeds = f", {len(found.params)} seeds" if len(found.params) > 1 else ""
  lines = [
    f"{found.config.agent.name} on {found.config.dataset}, {found.step:,} updates{seeds}: {first['env_id']} "
    f"({first['library']}), {first['episodes']} episode{'s' * (first['episodes'] > 1)}{' of each' if seeds else ''}"
  ]
  for one in scores:
    low, high = one["return_ci95"]
    parts = [f"return {one['return_mean']:,.1f} [{low:,.1f}, {high:,.1f}]", f"IQM {one['return_iqm']:,.1f}"]
    if one["normalized_score"] is not None:
      parts.append(f"normalised {one['normalized_score']:.1f}")
    if one["success_rate"] is not None:
      parts.append(f"success {one['success_rate']:.1%}")
    parts.append(f"length {one['length_mean']:,.0f}")
    if "visitation" in one:
      apart = one["visitation"]
      parts.append(f"visitation {apart['distance']:.3f} (the data's own episodes: {apart['within']:.3f})")
    asked = "" if one["target_return"] is None else f"asked for {one['target_return']:,.0f}: "
    lines.append(f"  {asked}{', '.join(parts)}")
  speed = np.mean([one["env_steps_per_second"] for one in scores])
  return [*lines, f"  {speed:,.0f} environment steps a second, in {sum(one['seconds'] for one in scores):,.1f} s"]


def _task(found: trained.Trained) -> trained.Trained:
  """With the task that the flags name, checked against what was learnt."""
  changed = found.task
  if FLAGS.env_id:
    seen, _ = observed.apart(changed.env_kwargs)
    changed = changed._replace(env_id=FLAGS.env_id, env_kwargs=seen, metadata={})  # scores of references are another's
  if FLAGS.env_kwargs:
    options = observed.instead(changed.env_kwargs, task.json_object(FLAGS.env_kwargs, "--env_kwargs"))
    changed = changed._replace(env_kwargs=options)
    if not task.same(options, found.task.env_kwargs):
      changed = changed._replace(metadata={})
  if changed.env_id is None:
    raise ValueError(
      f"{FLAGS.workdir}: the run had no environment; name one with --env_id, or compare actions with "
      "`python -m experiments.heldout`"
    )
  if FLAGS.env_id or FLAGS.env_kwargs:
    spec = environments.spec(changed.env_id, **changed.env_kwargs)
    matching.check_spec(found.task.data.spec, spec, changed.env_id)
  return found._replace(task=changed)


def _seed(found: trained.Trained, place: int) -> int:
  """Of the episodes that the run's seed number ``place`` plays."""
  return scoring.FINAL_SEED + found.config.seed + place if FLAGS.seed is None else FLAGS.seed


def _targets(found: trained.Trained) -> list[float | None]:
  if FLAGS.target_returns and scoring.target_return(found.params[0]) is None:
    raise ValueError(f"--target_returns: {found.config.agent.name} is not asked for returns; leave the flag out")
  try:
    targets = [float(value) for value in FLAGS.target_returns]
  except ValueError:
    targets = [math.nan]
  if not all(map(math.isfinite, targets)) or len({*targets}) < len(targets):
    raise ValueError(f"--target_returns={','.join(FLAGS.target_returns)} must be finite numbers, each once")
  return targets or [None]


if __name__ == "__main__":
  define_flags()
  cli.run(main)
