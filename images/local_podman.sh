# shellcheck shell=bash
# Sourced by images/test.sh: podman on a machine without registry, without systemd and with old or mixed cgroups.

# Debian packages, where they are not there yet.
install_tools() {
  local missing=() tool
  for tool in podman buildah runc mmdebstrap; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "images/test.sh: expected ${missing[*]}, or root on Debian to install them" >&2
    exit 2
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# runc, because crun refuses mixed cgroups; limits that a container without systemd may set.
configure_podman() {
  local folder=$1
  cat > "$folder/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
CONF
  export CONTAINERS_CONF=$folder/containers.conf
}

# Debian's Python 3.11 as base, where no registry can be reached; its packages are checked by their signatures.
make_base() {
  local folder=$1
  BASE_IMAGE=localhost/dhs-base:bookworm
  if ! podman image exists "$BASE_IMAGE"; then
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates,tini \
      bookworm "$folder/base.tar"
    podman import --quiet "$folder/base.tar" "$BASE_IMAGE" >/dev/null
    rm "$folder/base.tar"
  fi
  export BASE_IMAGE
}

# Hand the machine's certificates, wheels and index on to the build, as pip is configured here.
host_pip() {
  local bundle=/etc/ssl/certs/ca-certificates.crt folder
  export BUILD_NETWORK=host BUILD_VOLUMES=
  if [ -f "$bundle" ]; then
    BUILD_VOLUMES+=" /etc/ssl/certs:/etc/ssl/certs:ro"
    export PIP_CERT=$bundle
  fi
  PIP_INDEX_URL=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}
  UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}
  UV_FIND_LINKS=${UV_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}
  export PIP_INDEX_URL UV_DEFAULT_INDEX UV_FIND_LINKS
  for folder in $UV_FIND_LINKS; do
    [ -d "$folder" ] || continue
    BUILD_VOLUMES+=" $folder:$folder:ro"
    if compgen -G "$folder/torch-*+cpu-*.whl" >/dev/null; then
      export TORCH_INDEX=
    fi
  done
}

# Three ports above the first are free too.
free_port() {
  python3 - <<'PYTHON'
import random, socket

def free(port):
    # Every server of SeaweedFS opens a second port 10000 above its first.
    for number in (*range(port, port + 4), *range(port + 10000, port + 10004)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", number)) == 0:
                return False
    return True

print(next(port for port in iter(lambda: random.randrange(15000, 30000), None) if free(port)))
PYTHON
}
