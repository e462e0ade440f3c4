"""JobSets: their fields are those of the API, the command survives, pods find each other, what dies starts again."""

import hashlib
import os
import pathlib
import re
import sys

import pytest

from experiments.launch import __main__ as launch
from experiments.launch import check

yaml = pytest.importorskip("yaml")
ROOT = pathlib.Path(__file__).resolve().parents[3]
BC = f"--config={ROOT / 'experiments/configs/bc.py'}"
# Of the sweep's folder, with the hash of its place in the volume.
NAME = f"my-sweep-1-{hashlib.sha256(b'volume:My sweep_1').hexdigest()[:6]}"
REQUIRED = (BC, "--workdir=/runs/My sweep_1", "--image=registry/ilx:cpu", "--claim=volume")
CUDA = ("--accelerator=cuda", "--devices_per_node=8")
TPU = ("--accelerator=tpu", "--devices_per_node=4", "--tpu_type=tpu-v5p-slice", "--tpu_topology=2x2x2", "--nodes=2")

# The fields of the API (JobSet v1alpha2, batch/v1, core/v1) as far as they are used, as JSON types. A star stands for
# any key; fields with a ! must be there.
POD = {
  "restartPolicy!": str,
  "terminationGracePeriodSeconds": int,
  "nodeSelector": {"*": str},
  "securityContext": {"fsGroup": int},
  "containers!": [
    {
      "name!": str,
      "image!": str,
      "args": [str],
      "env": [{"name!": str, "value": str, "valueFrom": {"fieldRef": {"fieldPath!": str}}}],
      "ports": [{"containerPort!": int}],
      "resources": {"requests": {"*": str}, "limits": {"*": str}},
      "volumeMounts": [{"name!": str, "mountPath!": str}],
    }
  ],
  "volumes": [{"name!": str, "persistentVolumeClaim": {"claimName!": str}, "emptyDir": {"medium": str}}],
}
JOB = {
  "parallelism": int,
  "completions": int,
  "completionMode": str,
  "backoffLimit": int,
  "podFailurePolicy": {
    "rules!": [
      {
        "action!": str,
        "onPodConditions": [{"type!": str, "status!": str}],
        "onExitCodes": {"containerName": str, "operator!": str, "values!": [int]},
      }
    ]
  },
  "template!": {"metadata": {"labels": {"*": str}}, "spec!": POD},
}
JOBSET = {
  "apiVersion!": str,
  "kind!": str,
  "metadata!": {"name!": str, "namespace": str, "labels": {"*": str}, "annotations": {"*": str}},
  "spec!": {
    "network": {"enableDNSHostnames": bool},
    "failurePolicy": {
      "maxRestarts": int,
      "rules": [{"name!": str, "action!": str, "onJobFailureReasons": [str]}],
    },
    "replicatedJobs!": [{"name!": str, "replicas": int, "template!": {"spec!": JOB}}],
  },
}


def fits(value, shape, path=""):
  """Asserts that a value has the fields of a shape, those that it must have among them."""
  if isinstance(shape, list):
    assert isinstance(value, list), path
    for item in value:
      fits(item, shape[0], f"{path}[]")
  elif isinstance(shape, dict):
    assert isinstance(value, dict), path
    for name in shape:
      assert not name.endswith("!") or name[:-1] in value, f"{path} lacks {name}"
    for name, item in value.items():
      wanted = shape.get(name, shape.get(f"{name}!", shape.get("*")))
      assert wanted is not None, f"{path} has no field {name}"
      fits(item, wanted, f"{path}.{name}")
  else:
    assert type(value) is shape, path


def jobsets(capsys, *more):
  assert launch.main(["k8s", *REQUIRED, *more, "--dry_run"]) == 0
  return list(yaml.safe_load_all(capsys.readouterr().out))


def pod_of(jobset):
  return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def variables(pod):
  return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in pod["containers"][0]["env"]}


@pytest.mark.parametrize(
  "more",
  [
    (),
    ("--cpus=8", "--memory=64Gi", "--namespace=ml", "--node_selector=kind=big", "--env=XLA_FLAGS=--a=b"),
    CUDA,
    (*CUDA, "--nodes=4"),
    TPU,
  ],
)
def test_the_fields_are_those_of_the_api(capsys, more):
  for jobset in jobsets(capsys, "--grid=config.seed=0,1", *more):
    fits(jobset, JOBSET)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


def test_each_run_is_a_jobset_with_its_command(capsys):
  found = jobsets(capsys, "--grid=config.seed=0,1")
  assert [jobset["metadata"]["name"] for jobset in found] == [f"{NAME}-0", f"{NAME}-1"]
  assert [jobset["metadata"]["annotations"]["ilx/run"] for jobset in found] == ["seed=0", "seed=1"]
  assert {jobset["metadata"]["labels"]["ilx/sweep"] for jobset in found} == {NAME}
  container = pod_of(found[1])["containers"][0]
  words = ["python", "-m", "experiments.main", BC, "--config.seed=1", "--workdir=/runs/My sweep_1/seed=1"]
  assert container["args"] == words and "command" not in container
  assert jobsets(capsys, "--name=other")[0]["metadata"]["name"] == "other"


def test_sweeps_in_folders_called_alike_have_other_names(capsys):
  folders = ["/runs/a/iql", "/runs/b/iql", "/runs/iql", "/runs/Iql", "/runs/iql-0"]
  names = [jobset["metadata"]["name"] for folder in folders for jobset in jobsets(capsys, f"--workdir={folder}")]
  assert len({*names}) == 5 and all(re.fullmatch(r"iql(-0)?-[0-9a-f]{6}", name) for name in names)
  (again,) = jobsets(capsys, "--workdir=/runs/a/iql/")
  assert again["metadata"]["name"] == names[0], "the same command finds what it submitted"
  (other,) = jobsets(capsys, "--workdir=/runs/a/iql", "--claim=another")
  assert other["metadata"]["name"] != names[0]


@pytest.mark.parametrize("amount", ["8", "500m", "0.5", "64Gi", "1e3", "12E", ".5k"])
def test_amounts_as_kubernetes_writes_them(capsys, amount):
  (jobset,) = jobsets(
    capsys, f"--cpus={amount}", f"--memory={amount}", "--node_selector=a.b/kind=x_1.y", "--env=a.B-1_=x=y"
  )
  assert pod_of(jobset)["containers"][0]["resources"]["requests"] == {"cpu": amount, "memory": amount}
  assert variables(pod_of(jobset))["a.B-1_"] == "x=y"


def test_kubernetes_does_not_expand_what_is_given(capsys):
  (jobset,) = jobsets(capsys, "--config.where=a = '$(HOME)' $$ $x\nb: - #", "--env=A=$(HOME)")
  words = pod_of(jobset)["containers"][0]["args"]
  assert "--config.where=a = '$$(HOME)' $$$$ $$x\nb: - #" in words
  assert variables(pod_of(jobset))["A"] == "$$(HOME)"


def test_pods_on_several_nodes_find_each_other(capsys):
  (jobset,) = jobsets(capsys, *CUDA, "--nodes=4")
  job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  assert (job["completions"], job["parallelism"], job["completionMode"]) == (4, 4, "Indexed")
  where = f"{NAME}-hosts-0-0.{NAME}:8476,4,$(ILX_PROCESS)"
  assert pod_of(jobset)["containers"][0]["args"][-1] == f"--distributed={where}"
  index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
  assert variables(pod_of(jobset))["ILX_PROCESS"] == {"fieldRef": {"fieldPath": index}}
  assert jobset["spec"]["network"]["enableDNSHostnames"]
  check.config_of([BC, f"--distributed={where}"])
  (alone,) = jobsets(capsys, *CUDA)
  assert "--distributed" not in " ".join(pod_of(alone)["containers"][0]["args"])


def test_what_dies_starts_again_and_what_saved_does_not_count(capsys):
  (jobset,) = jobsets(capsys, "--max_restarts=3", "--save_seconds=300")
  policy, job = jobset["spec"]["failurePolicy"], jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
  assert policy["maxRestarts"] == 3
  assert [(rule["action"], rule["onJobFailureReasons"]) for rule in policy["rules"]] == [
    ("RestartJobSetAndIgnoreMaxRestarts", ["PodFailurePolicy"])
  ]
  evicted, saved = job["podFailurePolicy"]["rules"]
  assert evicted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
  assert saved["onExitCodes"]["values"] == [143]
  assert saved["onExitCodes"]["containerName"] == pod_of(jobset)["containers"][0]["name"]
  # A Job takes a pod failure policy only with pods that are never restarted in place.
  assert pod_of(jobset)["restartPolicy"] == "Never" and job["backoffLimit"] == 0
  assert pod_of(jobset)["terminationGracePeriodSeconds"] == 300


def test_resources_of_every_kind(capsys):
  def resources(*more):
    return pod_of(jobsets(capsys, *more)[0])["containers"][0]["resources"]

  assert resources() == {"requests": {}, "limits": {}}
  both = {"memory": "64Gi", "nvidia.com/gpu": "8"}
  assert resources(*CUDA, "--cpus=8", "--memory=64Gi") == {"requests": {"cpu": "8", **both}, "limits": both}
  assert resources(*TPU)["limits"] == {"google.com/tpu": "4"}


def test_tpus_are_asked_for_by_kind_and_topology(capsys):
  (jobset,) = jobsets(capsys, *TPU, "--node_selector=kind=big")
  assert pod_of(jobset)["nodeSelector"] == {
    "kind": "big",
    "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
    "cloud.google.com/gke-tpu-topology": "2x2x2",
  }
  exclusive = jobset["metadata"]["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"]
  assert exclusive == "cloud.google.com/gke-nodepool"
  assert pod_of(jobset)["containers"][0]["args"][-1] == "--distributed=auto", "GKE tells TPU hosts of each other"


def test_runs_and_data_are_in_the_volume(capsys):
  (jobset,) = jobsets(capsys, *CUDA, "--mount=/runs/")
  pod = pod_of(jobset)
  mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
  volumes = {volume["name"]: volume for volume in pod["volumes"]}
  assert mounts.keys() == volumes.keys() == {"runs", "shm"}
  assert volumes["runs"]["persistentVolumeClaim"] == {"claimName": "volume"}
  assert mounts["shm"] == "/dev/shm" and volumes["shm"]["emptyDir"] == {"medium": "Memory"}
  assert variables(pod)["ILX_DATA_DIR"] == "/runs/data"


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (("--image=",), "--image is missing"),
    (("--claim=",), "--claim is missing"),
    (("--workdir=/elsewhere/x",), "--workdir=/elsewhere/x must be below --mount=/runs"),
    (("--workdir=/runs/../x",), "must be below --mount"),
    (("--mount=runs",), "--mount=runs must be an absolute path"),
    (("--accelerator=cuda",), "--devices_per_node=0 must be at least 1"),
    (("--devices_per_node=2",), "--devices_per_node=2 must be 0"),
    (("--accelerator=tpu", "--devices_per_node=4"), "--tpu_type and --tpu_topology go with"),
    (("--tpu_type=x", "--tpu_topology=2x2"), "go with --accelerator=tpu"),
    (("--tpu_type=x",), "must be given together"),
    ((*TPU, "--nodes=4"), "--tpu_topology=2x2x2 has 8 chips, .* 4 nodes of 4 chips"),
    ((*TPU, "--tpu_topology=8"), "must be such as 2x4"),
    (("--env=A",), "--env=A must be KEY=VALUE"),
    (("--env=1A=",), "--env=1A=...: a variable has letters"),
    (("--env=A B=1",), "--env=A B=...: a variable has letters"),
    (("--env=A=1", "--env=A=2"), "--env: A is set twice"),
    (("--env=ILX_PROCESS=1",), "--env=ILX_PROCESS=...: this variable is set by the launcher"),
    (("--memory=abc",), "--memory=abc must be a number with or without a unit"),
    (("--memory=64GB",), "--memory=64GB must be"),
    (("--memory=-1Gi",), "--memory=-1Gi must be"),
    (("--cpus=",), "--cpus= must be"),
    (("--cpus=8 cores",), "--cpus=8 cores must be"),
    (("--namespace=Bad_NS",), "--namespace=Bad_NS must be at most 63 small letters"),
    ((f"--namespace={'x' * 64}",), "must be at most 63 small letters"),
    (("--claim=My_volume",), "--claim=My_volume must be at most 253 small letters"),
    (("--image=two words",), "--image=two words must be without spaces"),
    (("--node_selector=kind=a b",), "--node_selector=kind=a b: a label's value has letters"),
    (("--node_selector=-kind=a",), "--node_selector=-kind=...: a label has letters"),
    (("--node_selector=a=1", "--node_selector=a=2"), "--node_selector: a is set twice"),
    (("--node_selector==a",), "--node_selector==a must be KEY=VALUE"),
    ((f"--name={'x' * 60}",), "longer than 47 letters; give a shorter --name"),
    (("--accelerator=gpu",), "--accelerator=gpu"),
    (("--config.sed=1",), "did you mean 'seed'"),
  ],
)
def test_what_does_not_fit_is_refused(capsys, more, message):
  assert launch.main(["k8s", *REQUIRED, *more, "--dry_run"]) == 2
  errors = capsys.readouterr().err
  assert errors.startswith("error: ")
  assert re.search(message, errors), errors


def test_without_pyyaml_it_says_what_to_install(capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, "yaml", None)
  assert launch.main(["k8s", *REQUIRED, "--dry_run"]) == 2
  assert "pip install pyyaml" in capsys.readouterr().err


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
  path = tmp_path / "kubectl"
  path.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\ncat > {tmp_path}/applied\necho created\n')
  path.chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
  return tmp_path


def test_they_are_applied(kubectl, capsys):
  expected = jobsets(capsys, "--grid=config.seed=0,1")
  assert not (kubectl / "called").exists(), "a dry run calls nothing"
  assert launch.main(["k8s", *REQUIRED, "--grid=config.seed=0,1"]) == 0
  assert capsys.readouterr().out == "created\n"
  assert (kubectl / "called").read_text() == "apply -f -\n"
  assert list(yaml.safe_load_all((kubectl / "applied").read_text())) == expected


def test_a_refusal_is_told(kubectl, capsys):
  (kubectl / "kubectl").write_text("#!/bin/sh\ncat > /dev/null\necho 'no matches for kind JobSet' >&2\nexit 1\n")
  assert launch.main(["k8s", *REQUIRED]) == 2
  assert "no matches for kind JobSet" in capsys.readouterr().err
