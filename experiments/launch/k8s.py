"""Runs a sweep on Kubernetes, each run as a JobSet.

python -m experiments.launch k8s --config=experiments/configs/iql.py --grid=config.seed=0,1,2 --workdir=/runs/iql \\
    --image=REGISTRY/ilx:cuda --accelerator=cuda --devices_per_node=1 --claim=runs
python -m experiments.launch k8s ... --nodes=4 --devices_per_node=8     # every run on 32 GPUs
python -m experiments.launch k8s ... --accelerator=tpu --tpu_type=tpu-v5p-slice --tpu_topology=2x2x2 --nodes=2 \\
    --devices_per_node=4
python -m experiments.launch k8s ... --dry_run                          # prints the YAML

Flags that are not the launcher's go to every run (python -m experiments.main, in the image that the Dockerfile makes).
The sweep's folder is a path in the pods, below --mount, where the volume of --claim is: one that all nodes may write to
(ReadWriteMany). Datasets are there, too, in data/.

The cluster needs the JobSet controller (jobset.sigs.k8s.io), and this command pyyaml and kubectl. A run whose pod is
evicted gets SIGTERM, has --save_seconds to save, and starts again; so does one that fails, --max_restarts times. What
has been submitted is not replaced: kubectl delete jobset -l ilx/sweep=NAME removes it, the runs' folders remain. NAME
is --name, or the folder's with a hash, such as iql-724985: several folders of the volume may be called the same.
"""

import hashlib
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.launch import jobset, options
from experiments.launch.check import Checked
from experiments.launch.jobset import Hosts


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""
  options.define(values, "in the pods; ")

  def string(name: str, default: str | None, words: str) -> None:
    flags.DEFINE_string(name, default, words, flag_values=values)

  def integer(name: str, default: int, words: str, least: int) -> None:
    flags.DEFINE_integer(name, default, words, lower_bound=least, flag_values=values)

  string("image", None, "The container's.")
  string(
    "name", None, "Of the JobSets, which are numbered; by default that of the sweep's folder and a hash of its path."
  )
  string("namespace", None, "By default kubectl's.")
  string("claim", None, "PersistentVolumeClaim of the volume with the runs.")
  string("mount", "/runs", "Where the volume is in the pods.")
  flags.DEFINE_enum("accelerator", "cpu", list(jobset.RESOURCES), "What the nodes have.", flag_values=values)
  integer("nodes", 1, "Nodes of each run.", 1)
  integer("devices_per_node", 0, "GPUs or TPU chips of each node.", 0)
  string("cpus", None, "Cores that each pod asks for, such as 8 or 500m.")
  string("memory", None, "Memory that each pod asks for and is limited to, such as 64Gi.")
  string("tpu_type", None, "Such as tpu-v5p-slice.")
  string("tpu_topology", None, "Such as 2x2x2.")
  flags.DEFINE_multi_string("node_selector", [], "KEY=VALUE, a label that nodes must have.", flag_values=values)
  flags.DEFINE_multi_string("env", [], "KEY=VALUE, a variable of the environment.", flag_values=values)
  integer("save_seconds", 120, "How long a run that is told to stop has to save.", 30)
  integer("max_restarts", 10, "How often a run that failed starts again; evictions do not count.", 0)


def main(values: flags.FlagValues, rest: Sequence[str]) -> int:
  """Submits the JobSets; returns the exit code."""
  text = manifests(values, options.runs(values, rest, here=False))
  if values.dry_run:
    sys.stdout.write(text)
    return 0
  try:
    said = subprocess.run(["kubectl", "apply", "-f", "-"], input=text, capture_output=True, text=True, check=True)
  except FileNotFoundError:
    raise OSError("there is no kubectl here; use --dry_run, and apply what it prints elsewhere") from None
  except subprocess.CalledProcessError as error:
    raise OSError(f"kubectl refused the JobSets: {error.stderr.strip() or error.stdout.strip()}") from None
  print(said.stdout.strip())
  return 0


def manifests(values: flags.FlagValues, runs: Sequence[Checked]) -> str:
  """The JobSets as YAML.

  Raises:
    ValueError: naming the flag that is missing or does not fit.
    ImportError: without pyyaml.
  """
  try:
    import yaml
  except ImportError:
    raise ImportError("JobSets are written by pyyaml; install it: pip install pyyaml") from None

  hosts, folder = _hosts(values), pathlib.PurePosixPath(values.workdir)
  if not folder.is_relative_to(hosts.mount) or ".." in folder.parts:
    raise ValueError(f"--workdir={folder} must be below --mount={hosts.mount}, where the volume is in the pods")
  # Folders called alike must not meet under one name: the second sweep would be refused, or taken for the first.
  path = "" if values.name else f"{hosts.claim}:{folder.relative_to(hosts.mount)}"
  base = _name(values.name or folder.name, len(runs), hosts.nodes, path)
  found: list[dict[str, Any]] = []
  for place, one in enumerate(runs):
    words = ["python", "-m", "experiments.main", *one.run.flags, f"--workdir={folder / one.run.name}"]
    name = f"{base}-{place}" if len(runs) > 1 else base
    found.append(jobset.jobset(name, {"ilx/sweep": base}, one.run.name, words, hosts))
  return yaml.safe_dump_all(found, sort_keys=False, explicit_start=True)


def _hosts(values: flags.FlagValues) -> Hosts:
  for flag in ("image", "claim"):
    if not values[flag].value:
      raise ValueError(f"--{flag} is missing; see: python -m experiments.launch k8s --help")
  if re.search(r"\s", values.image):
    raise ValueError(f"--image={values.image} must be without spaces")
  if not values.mount.startswith("/"):
    raise ValueError(f"--mount={values.mount} must be an absolute path")
  tpu = values.tpu_type, values.tpu_topology
  if any(tpu) and not all(tpu):
    raise ValueError("--tpu_type and --tpu_topology must be given together")
  hosts = Hosts(
    image=values.image,
    nodes=values.nodes,
    accelerator=values.accelerator,
    devices=values.devices_per_node,
    cpus=values.cpus,
    memory=values.memory,
    tpu=tpu if all(tpu) else None,
    selector=_pairs("node_selector", values.node_selector),
    claim=values.claim,
    mount=values.mount,
    variables={"ILX_DATA_DIR": f"{values.mount.rstrip('/')}/data"} | _pairs("env", values.env),
    grace=values.save_seconds,
    restarts=values.max_restarts,
    namespace=values.namespace,
  )
  jobset.check(hosts)
  return hosts


def _pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
  found: dict[str, str] = {}
  for text in texts:
    key, equals, value = text.partition("=")
    if not key or not equals:
      raise ValueError(f"--{flag}={text} must be KEY=VALUE")
    if key in found:
      raise ValueError(f"--{flag}: {key} is set twice")
    found[key] = value
  return found


def _name(wanted: str, count: int, nodes: int, place: str = "") -> str:
  """As Kubernetes allows: small letters, digits, dashes, a letter first; with a hash of ``place``, if given."""
  name = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")
  name = name if name[:1].isalpha() else f"ilx-{name}".rstrip("-")
  name += f"-{hashlib.sha256(place.encode()).hexdigest()[:6]}" if place else ""
  most = jobset.longest_name(nodes) - (len(f"-{count - 1}") if count > 1 else 0)
  if len(name) > most:
    raise ValueError(f"the JobSets' name {name!r} is longer than {most} letters; give a shorter --name")
  return name
