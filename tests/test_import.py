import json
import subprocess
import sys


def test_import_ilx_leaves_heavy_packages_alone():
  program = "import json, sys, ilx; print(json.dumps(sorted(m.split('.')[0] for m in sys.modules)))"
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
  loaded = set(json.loads(done.stdout))
  heavy = {
    "tensorflow",
    "tensorflow_datasets",
    "envpool",
    "gymnasium",
    "orbax",
    "matplotlib",
    "av",
    "PIL",
    "tensorboardX",
  }
  assert not loaded & (heavy | {"grain", "array_record", "experiments"})
