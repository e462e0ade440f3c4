"""Writes `references.json` (random and expert returns) and `README.md` (what the shipped policies score).

python -m experiments.demos.summarise
"""

import json
import os
import pathlib
from typing import Any

from experiments import cli
from experiments.demos import datasets, policy, replay
from experiments.demos.scores import SCORE_SEED, score
from ilx import data
from ilx.evaluation import environments

HERE = pathlib.Path(__file__).parent
QUALITIES = ("medium", "expert")

TEXT = """# Experts of our own

Made by `python -m experiments.demos.summarise` from the weight files and by playing.

The policies in `weights/` were trained online in EnvPool by the code beside them: soft actor-critic (`sac.py`) where
actions are continuous, PPO (`ppo.py`) where they are discrete. They are `.npz` files of float16 arrays and a JSON
string, without pickles. `medium` is the earliest snapshot of the expert's run whose sampled actions earned a third to a
half of what the expert's did, counted from random, or the nearest snapshot where there is none; the choice was made on
other episodes than the table's.

Returns are means of 100 episodes (95 % interval) after the rounding to float16, on seeds that chose nothing; "mode" is
the policy's most likely action, "sampled" is what the datasets record. Steps are environment steps.

{scores}

A random policy (100 episodes), and the expert's mode, are 0 and 100 of the normalised score (`references.json`):

{references}

## Commands

Trained with EnvPool {envpool} on CPU, each MuJoCo run on one core (`taskset -c 0`). The same command gives the same
run on one platform with one number of threads; elsewhere floating-point rounding differs, and with it the policy. A
run may be stopped once it is good enough: HalfCheetah was after 1,000,000 steps, Hopper after 675,008.

{commands}

Then, for each workdir, and once for this page:

    python -m experiments.demos.export --workdir=<workdir>
    python -m experiments.demos.summarise

## Replays

`<env>-medium-replay.npz` are up to {snapshots} snapshots of the expert's run from before its medium policy, as int8
matrices with a scale for each output: half the bytes of float16, and returns that cannot be told apart (Hopper's
snapshot at 125,008 steps: 548 instead of 549, over 50 episodes). They are written by

    python -m experiments.demos.export --workdir=<workdir> --replay

which checks that the run leads to the medium policy that ships. HalfCheetah's run up to there is short, and was made
again for more snapshots: its policy at 100,000 steps is the first run's, bit for bit.

    {dense} --workdir=<workdir>

## Datasets

`python -m experiments.demos.build --name=<env>-<quality>`, or `--all`:

* `<env>`: {envs}
* `<quality>`: {qualities}

About 100,000 transitions of whole episodes by each policy, sampled actions; `medium-expert` is the other two, shuffled
together. They are recorded as RLDS below `$ILX_DATA_DIR` (default `~/.cache/ilx`), the same bit for bit on one
platform, in about 10 seconds of one core for 100,000 transitions. The first `n` episodes are a fair sample, but in
`medium-replay`, which is in the order of the run: take all of it.

`medium-replay` is the training run that made the medium policy, from its first random action, as D4RL's are. It is
rebuilt, not the replay buffer itself: the policy is piecewise constant, at every moment the shipped snapshot nearest
in time, and plays as many transitions as the run made around it, in whole episodes. SAC's first 10,000 actions are
random; PPO's untrained policy is taken for random, too.

{replays}
"""


def _table(header: list[str], rows: list[list[str]]) -> str:
  lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _interval(score: dict[str, Any]) -> str:
  low, high = score["return_ci95"]
  return f"{score['return_mean']:,.1f} [{low:,.1f}, {high:,.1f}]"


def _replay(env: str) -> list[str]:
  """A row on a replay, which is built for it."""
  name, metadata = replay.name(env), replay.load(env).metadata
  folder = datasets.build(name)
  episodes = data.load(folder)
  returns, fifth = data.returns(episodes), episodes.num_episodes // 5
  return [
    name,
    ", ".join(f"{steps / 1000:,.0f}" for steps in metadata["env_steps"]),
    f"{data.lengths(episodes).sum():,}",
    f"{episodes.num_episodes:,}",
    f"{returns.mean():,.1f}",
    f"{returns[-fifth:].mean():,.1f}",
    f"{returns.max():,.1f}",
  ]


def main() -> None:
  references, rows, commands = {}, [], []
  for env, env_id in datasets.ENVIRONMENTS.items():
    shipped = {quality: policy.load(f"{env}-{quality}").metadata for quality in QUALITIES}
    act = policy.uniform(environments.spec(env_id).action)
    random = score(act, env_id, seed=SCORE_SEED, sample=True)
    expert = shipped["expert"]["scores"]["mode"]
    references[env_id] = {
      "random_return": random["return_mean"],
      "random_length": random["length_mean"],
      "expert_return": expert["return_mean"],
      "episodes": expert["episodes"],
      "envpool": shipped["expert"]["envpool"],
    }
    for metadata in shipped.values():
      mode, sample = metadata["scores"]["mode"], metadata["scores"]["sample"]
      origin = [metadata["name"], f"{metadata['env_steps']:,}", str(metadata["seed"])]
      rows.append([*origin, _interval(mode), _interval(sample), f"{sample['length_mean']:,.0f}"])
    commands.append(f"    {shipped['expert']['command']} --workdir=runs/experts/{env_id}")
  text = TEXT.format(
    scores=_table(["policy", "steps", "seed", "mode", "sampled", "length, sampled"], rows),
    references=_table(
      ["environment", "random", "expert"],
      [[env_id, f"{r['random_return']:,.1f}", f"{r['expert_return']:,.1f}"] for env_id, r in references.items()],
    ),
    commands="\n".join(commands),
    envpool=", ".join(sorted({r["envpool"] for r in references.values()})),
    envs=", ".join(datasets.ENVIRONMENTS),
    qualities=", ".join(datasets.QUALITIES),
    snapshots=replay.MAX_SNAPSHOTS,
    dense=replay.load("halfcheetah").metadata["command"],
    replays=_table(
      [
        "dataset",
        "snapshots, thousand steps",
        "transitions",
        "episodes",
        "mean return",
        "of the last fifth",
        "highest",
      ],
      [_replay(env) for env in datasets.ENVIRONMENTS],
    ),
  )
  for path, content in ((datasets.REFERENCES, json.dumps(references, indent=2) + "\n"), (HERE / "README.md", text)):
    part = path.with_suffix(".part")
    part.write_text(content)
    os.replace(part, path)


if __name__ == "__main__":
  cli.run(main)
