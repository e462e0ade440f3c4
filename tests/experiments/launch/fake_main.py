"""Stands for experiments.main in tests: counts instead of learning, and leaves what a run leaves.

Each update takes $FAKE_PAUSE seconds (0 by default) and is a checkpoint. A dataset named "broken" ends it with an error
and an exit status of 1.
"""

import json
import os
import pathlib
import signal
import sys
import time

from experiments.configs import bc


def main() -> None:
  given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
  config, workdir = bc.get_config(), pathlib.Path(given["workdir"])
  for name, value in given.items():
    if name.startswith("config."):
      field = name.removeprefix("config.")
      config[field] = type(config[field])(value)
  stop = []
  signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
  print("on cores", *sorted(os.sched_getaffinity(0)), "and GPUs", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
  if config.dataset == "broken":
    print("error: the data are broken")
    sys.exit(1)
  (workdir / "checkpoints").mkdir(parents=True, exist_ok=True)
  _write(workdir / "config.json", config.to_dict())
  step = max([int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()], default=0)
  total = json.loads((workdir / "checkpoints" / str(step) / "total").read_text()) if step else config.seed
  with open(workdir / "starts", "a") as file:
    file.write(f"{step}\n")
  while step < config.steps and not stop:
    time.sleep(float(os.environ.get("FAKE_PAUSE", 0)))
    step, total = step + 1, (31 * total + step) % 1_000_003
    folder = workdir / "checkpoints" / f"{step}.tmp"
    folder.mkdir(exist_ok=True)
    _write(folder / "total", total)
    folder.rename(workdir / "checkpoints" / str(step))
    with open(workdir / "log.jsonl", "a") as file:
      file.write(json.dumps({"step": step}) + "\n")
  if stop:
    print(f"stopped by SIGTERM; {step} of {config.steps} updates are saved")
    sys.exit(128 + signal.SIGTERM)
  returns = [float(total), float(total + 2)]
  result = {"steps": step, "return_mean": total + 1.0, "return_ci95": [total, total + 2.0], "returns": returns}
  result |= {"random_return": 0.0, "expert_return": 1000.0, "normalized_score": (total + 1) / 10, "seconds": 6.0}
  _write(workdir / "result.json", result)
  (workdir / "report.html").touch()


def _write(path: pathlib.Path, value: object) -> None:
  temporary = path.with_suffix(".partial")
  temporary.write_text(json.dumps(value))
  temporary.rename(path)


if __name__ == "__main__":
  main()
