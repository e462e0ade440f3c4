"""Writes `references.json` (random and expert returns) and `README.md` (what the shipped policies score).

python -m experiments.demos.summarise
"""

import json
import os
import pathlib
from typing import Any

from experiments import cli, markdown
from experiments.demos import datasets, maze, policy, replay
from experiments.demos.scores import SCORE_SEED, score
from ilx import data
from ilx.evaluation import environments

HERE = pathlib.Path(__file__).parent
QUALITIES = ("medium", "expert")

TEXT = """# Experts of our own

Made by `python -m experiments.demos.summarise` from the weight files and by playing; it builds replays and mazes.

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

and the mazes below.

About 100,000 transitions of whole episodes by each policy, sampled actions; `medium-expert` is the other two, shuffled
together. They are recorded as RLDS below `$ILX_DATA_DIR` (default `~/.cache/ilx`), the same bit for bit on one
platform, in about 10 seconds of one core for 100,000 transitions. The first `n` episodes are a fair sample, but in
`medium-replay`, which is in the order of the run: take all of it.

`medium-replay` is the training run that made the medium policy, from its first random action, as D4RL's are. It is
rebuilt, not the replay buffer itself: the policy is piecewise constant, at every moment the shipped snapshot nearest
in time, and plays as many transitions as the run made around it, in whole episodes. SAC's first 10,000 actions are
random; PPO's untrained policy is taken for random, too.

{replays}

## Mazes

`pointmaze-medium` and `pointmaze-large` test stitching, as D4RL's `antmaze-*-diverse` do. A ball is pushed through
EnvPool's `PointMaze_<Size>_Diverse_G-v3` from one corner to a goal that is drawn anew for every episode and stands in
the observation; reaching it pays 1 and ends the episode, so that a mean return is a rate of success. An action lasts
for {maze_steps} steps of the simulation; the time limits are the standard ones, 6 and 8 seconds.

The data are short walks of a noisy waypoint controller (`maze.py`) from anywhere towards random squares, in the same
maze with other starts and goals. Then each walk is given a goal as the task draws them, whatever it was up to, is paid
where it comes upon that goal, and ends there. So what was done says nothing of the goal, and no walk is long enough to
get from the start to any goal: only who joins pieces of many walks by their values gets there.

{mazes}

The controller without noise is the expert. Without networks: value iteration over the data in boxes of position and
speed, and then the actions of the 48 nearest transitions weighted by their values, succeeds in 58 of 60 episodes of the
medium maze; the plain mean of the same 48 actions in 1 of 60. IQL wants antmaze's hyper-parameters here
(`--config.agent.expectile=0.9 --config.agent.temperature=10 --config.agent.reward_scale=1
--config.agent.reward_shift=-1`) and time: the policy's learning rate falls to 0 within the run, and of 10,000 updates
it reached the medium maze's goal in 30 % of 100 episodes, no better than 10 %BC; of 50,000 in all of 500 (five seeds;
BC 0.4 %, 10 %BC 37 %: `experiments/results`).
"""


def _table(header: list[str], rows: list[list[str]]) -> str:
  return markdown.table(header, rows, right=range(1, len(header)))


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


def _maze_reference(task: maze.Maze) -> dict[str, Any]:
  """What random actions and the controller return."""
  action = environments.spec(task.env_id).action
  options = {"seed": SCORE_SEED, "env_kwargs": task.env_kwargs}
  random = score(policy.uniform(action), task.env_id, sample=True, **options)
  expert = score(maze.controller(task, 0.0), task.env_id, sample=False, **options)
  return {
    "random_return": random["return_mean"],
    "random_length": random["length_mean"],
    "expert_return": expert["return_mean"],
    "episodes": expert["episodes"],
    "envpool": environments.version(),
  }


def _maze(name: str) -> list[str]:
  """A row on a maze's walks, which are built for it."""
  task, episodes = maze.MAZES[name], data.load(datasets.build(name))
  goals, (start,) = maze.cells(task, "g"), maze.cells(task, "r")
  return [
    name,
    f"1, {len(goals)}",
    str(task.walk),
    f"{data.lengths(episodes).sum():,}",
    f"{episodes.num_episodes:,}",
    f"{data.returns(episodes).mean():.1%}",
    ", ".join(str(maze.distances(task, tuple(goal))[tuple(start)]) for goal in goals),
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
  for task in maze.MAZES.values():
    references[task.env_id] = _maze_reference(task)
  # First: the datasets that are built for the page name them.
  _write(datasets.REFERENCES, json.dumps(references, indent=2) + "\n")
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
    mazes=_table(
      ["dataset", "starts, goals", "actions in a walk", "transitions", "walks", "paid", "squares from start to goal"],
      [_maze(name) for name in maze.MAZES],
    ),
    maze_steps=maze.FRAME_SKIP,
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
  _write(HERE / "README.md", text)


def _write(path: pathlib.Path, content: str) -> None:
  part = path.with_suffix(".part")
  part.write_text(content)
  os.replace(part, path)


if __name__ == "__main__":
  cli.run(main)
