"""A run as a Kubernetes JobSet (jobset.x-k8s.io/v1alpha2): one Job, a pod for each host.

Fields: https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2, https://kubernetes.io/docs/concepts/workloads/controllers/job
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# Devices as Kubernetes' resources; a "cpu" has none.
RESOURCES = {"cpu": None, "cuda": "nvidia.com/gpu", "tpu": "google.com/tpu"}
# What experiments.main ends with when SIGTERM let it save: 128 + 15.
SAVED = 143
PORT = 8476
# Of the user in the image, who is to write to the volume.
_GROUP = 1000
# Variable with the pod's place among those of its run.
_INDEX, _INDEX_FIELD = "ILX_PROCESS", "batch.kubernetes.io/job-completion-index"
# How Kubernetes writes amounts, and names that may be part of a host's (RFC 1123).
_QUANTITY = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?"
_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_REPLICATED, _CONTAINER, _VOLUME = "hosts", "ilx", "runs"


class Hosts(NamedTuple):
  """Where a run is computed.

  Attributes:
    image: of the container; its working folder has experiments/, its entry point runs what it is given.
    nodes: pods, each on a node of its own.
    accelerator: of RESOURCES.
    devices: GPUs or TPU chips of each node.
    cpus, memory: of each pod, as Kubernetes writes them; None: not asked for.
    tpu: the kind of TPU and its topology, such as ("tpu-v5p-slice", "2x2x2").
    selector: labels that nodes must have.
    claim, mount: of the volume with runs and data, and where it is in the pods.
    variables: of the environment.
    grace: seconds from SIGTERM to SIGKILL.
    restarts: of a run that failed; evictions and what saved on SIGTERM do not count.
    namespace: None: kubectl's.
  """

  image: str
  nodes: int
  accelerator: str
  devices: int
  cpus: str | None
  memory: str | None
  tpu: tuple[str, str] | None
  selector: Mapping[str, str]
  claim: str
  mount: str
  variables: Mapping[str, str]
  grace: int
  restarts: int
  namespace: str | None


def check(hosts: Hosts) -> None:
  """Raises ValueError, naming the flag, for what Kubernetes would refuse, or does not go together."""
  for flag, amount in (("cpus", hosts.cpus), ("memory", hosts.memory)):
    if amount is not None and not re.fullmatch(_QUANTITY, amount):
      raise ValueError(f"--{flag}={amount} must be a number with or without a unit, such as 8, 500m or 64Gi")
  if hosts.namespace is not None and not (re.fullmatch(_LABEL, hosts.namespace) and len(hosts.namespace) <= 63):
    raise ValueError(f"--namespace={hosts.namespace} must be at most 63 small letters, digits and inner dashes")
  if not (re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", hosts.claim) and len(hosts.claim) <= 253):
    raise ValueError(f"--claim={hosts.claim} must be at most 253 small letters, digits and inner dashes and dots")
  for key in hosts.variables:
    if not re.fullmatch(r"[A-Za-z_.-][A-Za-z0-9_.-]*", key):
      raise ValueError(f"--env={key}=...: a variable has letters, digits, _, - and dots, and no digit first")
    if key == _INDEX:
      raise ValueError(f"--env={key}=...: this variable is set by the launcher")
  for key, value in hosts.selector.items():
    prefix, slash, name = key.rpartition("/")
    if not _is_value(name) or not name or (slash and not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", prefix)):
      raise ValueError(
        f"--node_selector={key}=...: a label has letters, digits and inner _, - and dots, such as a.b/kind"
      )
    if not _is_value(value):
      raise ValueError(f"--node_selector={key}={value}: a label's value has letters, digits and inner _, - and dots")
  if (hosts.accelerator == "cpu") != (hosts.devices == 0):
    wanted = "0" if hosts.accelerator == "cpu" else "at least 1"
    raise ValueError(f"--devices_per_node={hosts.devices} must be {wanted} with --accelerator={hosts.accelerator}")
  if (hosts.accelerator == "tpu") != (hosts.tpu is not None):
    raise ValueError("--tpu_type and --tpu_topology go with --accelerator=tpu, and it with both of them")
  if hosts.tpu:
    if not re.fullmatch(r"\d+(x\d+)+", hosts.tpu[1]):
      raise ValueError(f"--tpu_topology={hosts.tpu[1]} must be such as 2x4 or 2x2x2")
    chips = math.prod(map(int, hosts.tpu[1].split("x")))
    if chips != hosts.nodes * hosts.devices:
      there = f"{hosts.nodes} nodes of {hosts.devices} chips"
      raise ValueError(f"--tpu_topology={hosts.tpu[1]} has {chips} chips, --nodes and --devices_per_node are {there}")


def _is_value(text: str) -> bool:
  """Of a label, or its name without the prefix; the empty one is a value, too."""
  return re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?", text) is not None and len(text) <= 63


def jobset(name: str, labels: Mapping[str, str], run: str, words: Sequence[str], hosts: Hosts) -> dict[str, Any]:
  """The object.

  A pod that is evicted, whose node fails or that crashes takes the others with it, since they could not go on alone;
  all start again and go on from the last checkpoint.

  Args:
    name: of the JobSet.
    labels: to find it by.
    run: the run's name, which may be no label.
    words: the command, but for what tells several processes of each other.
    hosts: where it is computed.
  """
  exclusive = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"} if hosts.tpu else {}
  job = {
    "parallelism": hosts.nodes,
    "completions": hosts.nodes,
    "completionMode": "Indexed",
    "backoffLimit": 0,
    "podFailurePolicy": {
      "rules": [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": _CONTAINER, "operator": "In", "values": [SAVED]}},
      ]
    },
    "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(name, words, hosts)},
  }
  # What the rules above end, as opposed to what crashed.
  again = {"action": "RestartJobSetAndIgnoreMaxRestarts", "onJobFailureReasons": ["PodFailurePolicy"]}
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": name,
      **({"namespace": hosts.namespace} if hosts.namespace else {}),
      "labels": dict(labels),
      "annotations": {"ilx/run": run, **exclusive},
    },
    "spec": {
      "network": {"enableDNSHostnames": True},
      "failurePolicy": {"maxRestarts": hosts.restarts, "rules": [{"name": "saved", **again}]},
      "replicatedJobs": [{"name": _REPLICATED, "replicas": 1, "template": {"spec": job}}],
    },
  }


def longest_name(nodes: int) -> int:
  """Letters that a JobSet's name may have: the pods' names, which are host names, begin with it."""
  return 63 - len(f"-{_REPLICATED}-0-{nodes - 1}-abcde")


def _pod(name: str, words: Sequence[str], hosts: Hosts) -> dict[str, Any]:
  resource = RESOURCES[hosts.accelerator]
  devices = {resource: str(hosts.devices)} if resource else {}
  asked = {"cpu": hosts.cpus, "memory": hosts.memory}
  selector = dict(hosts.selector)
  if hosts.tpu:
    kind, topology = hosts.tpu
    selector |= {"cloud.google.com/gke-tpu-accelerator": kind, "cloud.google.com/gke-tpu-topology": topology}
  mounts, volumes = (
    [{"name": _VOLUME, "mountPath": hosts.mount}],
    [{"name": _VOLUME, "persistentVolumeClaim": {"claimName": hosts.claim}}],
  )
  if hosts.devices > 1 and hosts.accelerator == "cuda":
    # NCCL's shared memory, for which the usual 64 MB are too few.
    mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
  return {
    # Pods that failed are replaced by the JobSet, which the Job's policy above needs.
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": hosts.grace,
    **({"nodeSelector": selector} if selector else {}),
    "securityContext": {"fsGroup": _GROUP},
    "containers": [
      {
        "name": _CONTAINER,
        "image": hosts.image,
        "args": [*(_literal(word) for word in words), *_distributed(name, hosts)],
        "env": [
          *({"name": key, "value": _literal(value)} for key, value in hosts.variables.items()),
          {"name": _INDEX, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{_INDEX_FIELD}']"}}},
        ],
        "ports": [{"containerPort": PORT}],
        "resources": {
          "requests": {key: value for key, value in asked.items() if value} | devices,
          "limits": ({"memory": hosts.memory} if hosts.memory else {}) | devices,
        },
        "volumeMounts": mounts,
      }
    ],
    "volumes": volumes,
  }


def _distributed(name: str, hosts: Hosts) -> list[str]:
  """Tells the processes of each other; those on TPUs GKE tells."""
  if hosts.nodes == 1:
    return []
  return [
    "--distributed=" + ("auto" if hosts.tpu else f"{name}-{_REPLICATED}-0-0.{name}:{PORT},{hosts.nodes},$({_INDEX})")
  ]


def _literal(text: str) -> str:
  """Kubernetes replaces $(NAME) by variables, and two dollars by one."""
  return text.replace("$", "$$")
