#!/usr/bin/env bash
# Build the images of the product; print what the chart must be given and write it to build/image-values.yaml.
#   images/build.sh [worker|trainer|e2e ...]       worker and trainer unless named
# Environment, all optional:
#   ENGINE        docker, podman or buildah; else the first of them that works
#   IMAGE_PREFIX  names are PREFIX-worker, PREFIX-trainer, PREFIX-e2e (default localhost/darkhaloscope)
#   PUSH=1        push them and print the digests, which exist only then
#   BASE_IMAGE    Python 3.11 on Debian, name@sha256:... or an image that is already here. Otherwise images/base-image
#                 names it; where that file is missing, python:3.11-slim is pulled and its digest written there
#   TORCH         cuda (default) or cpu
#   TORCH_INDEX   index of the CPU build (default https://download.pytorch.org/whl/cpu; empty where a mirror has it)
#   ALLOW_DIRTY=1 build from a changed checkout; the images then say so
#   BUILD_NETWORK, BUILD_VOLUMES    network of the build; folders to mount, FROM:TO:ro (podman and buildah)
#   PIP_CERT, PIP_INDEX_URL, UV_DEFAULT_INDEX, UV_FIND_LINKS    handed to pip and uv in the build
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PREFIX=${IMAGE_PREFIX:-localhost/darkhaloscope}
readonly BASE_FILE=images/base-image
readonly VALUES_FILE=build/image-values.yaml
readonly DEFAULT_BASE=docker.io/library/python:3.11-slim

fail() {
  echo "images/build.sh: $*" >&2
  exit 2
}

engine() {
  local candidate
  for candidate in ${ENGINE:-docker podman buildah}; do
    if "$candidate" info >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  fail "expected a working docker, podman or buildah, got none of ${ENGINE:-them}"
}

commit() {
  local sha changed
  sha=$(git rev-parse HEAD)
  changed=$(git status --porcelain -- README.md constraints.txt pyproject.toml pipeline images)
  if [ -n "$changed" ]; then
    [ "${ALLOW_DIRTY:-}" = 1 ] || fail "expected a clean checkout (or ALLOW_DIRTY=1), got changes:
$changed"
    sha+=-dirty
  fi
  echo "$sha"
}

# Reference of the base with its digest; a local image that never came from a registry has none, and keeps its name.
base_image() {
  local base=${BASE_IMAGE:-}
  if [ -z "$base" ] && [ -f "$BASE_FILE" ]; then
    base=$(cat "$BASE_FILE")
  fi
  if [ -z "$base" ]; then
    "$ENGINE" pull "$DEFAULT_BASE" >&2
    if [ "$ENGINE" = buildah ]; then
      base="${DEFAULT_BASE%:*}@$(buildah inspect --type image --format '{{.FromImageDigest}}' "$DEFAULT_BASE")"
    else
      base="${DEFAULT_BASE%:*}@$("$ENGINE" image inspect --format '{{index .RepoDigests 0}}' "$DEFAULT_BASE" | cut -d@ -f2)"
    fi
    [[ "$base" =~ @sha256:[0-9a-f]{64}$ ]] || fail "expected a digest of $DEFAULT_BASE, got $base"
    echo "$base" > "$BASE_FILE"
    echo "wrote $BASE_FILE: commit it, it pins the base of all later builds" >&2
  fi
  if ! [[ "$base" =~ @sha256:[0-9a-f]{64}$ ]] && [ -z "$(image_id "$base")" ]; then
    fail "BASE_IMAGE: expected name@sha256:... or an image that is here, got $base"
  fi
  echo "$base"
}

image_id() {
  if [ "$ENGINE" = buildah ]; then
    buildah images --quiet --no-trunc "$1" 2>/dev/null || true
  else
    "$ENGINE" image inspect --format '{{.Id}}' "$1" 2>/dev/null || true
  fi
}

build() {
  local name=$1 started=$SECONDS options=() variable volume
  case $ENGINE in
    buildah) options+=(bud --layers --format docker --pull-never) ;;
    podman) options+=(build --format docker --pull=never) ;;
    docker) options+=(build) ;;
  esac
  [ -z "${BUILD_NETWORK:-}" ] || options+=(--network "$BUILD_NETWORK")
  for volume in ${BUILD_VOLUMES:-}; do
    [ "$ENGINE" != docker ] || fail "BUILD_VOLUMES: docker mounts no folders into a build; put wheels on an index"
    options+=(--volume "$volume")
  done
  for variable in PIP_CERT PIP_INDEX_URL UV_DEFAULT_INDEX UV_FIND_LINKS; do
    [ -z "${!variable:-}" ] || options+=(--build-arg "$variable=${!variable}")
  done
  "$ENGINE" "${options[@]}" --file images/Dockerfile --target "$name" --tag "$PREFIX-$name:$TAG" \
    --build-arg "BASE_IMAGE=$BASE" --build-arg "GIT_SHA=$GIT_SHA" --build-arg "CREATED=$CREATED" "${TORCH_OPTIONS[@]}" . >&2
  echo "$name: built in $((SECONDS - started)) s" >&2
}

# Pull what a build stands on, where it has a digest; all builds themselves use only what is here.
fetch() {
  if [[ "$1" == *@sha256:* ]] && [ -z "$(image_id "$1")" ]; then
    "$ENGINE" pull "$1" >&2
  fi
}

push() {
  local image=$1 file
  if [ "$ENGINE" = docker ]; then
    docker push --quiet "$image" >&2
    docker image inspect --format '{{index .RepoDigests 0}}' "$image" | cut -d@ -f2
  else
    file=$(mktemp)
    "$ENGINE" push --quiet --digestfile "$file" "$image" >&2
    cat "$file"
    rm "$file"
  fi
}

# Say what an image is called, and note it for the chart.
report() {
  local name=$1 image="$PREFIX-$1:$TAG" exact
  printf '%s\n  id      %s\n' "$image" "$(image_id "$image")"
  exact="tag: \"$TAG\""
  if [ "${PUSH:-}" = 1 ]; then
    exact="digest: $(push "$image")"
    printf '  %s\n' "$exact"
  fi
  [ "$name" = e2e ] || printf '  %s: {repository: %s, %s}\n' "$name" "$PREFIX-$name" "$exact" >> "$VALUES_FILE"
}

ENGINE=$(engine)
GIT_SHA=$(commit)
TAG=${GIT_SHA:0:12}${GIT_SHA:40}
CREATED=$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)
BASE=$(base_image)
fetch "$BASE"
case ${TORCH:=cuda} in
  cuda) TORCH_OPTIONS=(--build-arg TORCH=cuda) ;;
  cpu)
    TORCH_OPTIONS=(--build-arg TORCH=cpu)
    TORCH_OPTIONS+=(--build-arg "TORCH_INDEX=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}")
    ;;
  *) fail "TORCH: expected cuda or cpu, got $TORCH" ;;
esac
targets=${*:-worker trainer}
for target in $targets; do
  case $target in
    worker | trainer | e2e) build "$target" ;;
    *) fail "expected worker, trainer or e2e, got $target" ;;
  esac
done
mkdir -p "$(dirname "$VALUES_FILE")"
echo "image:" > "$VALUES_FILE"
echo "engine $ENGINE, base $BASE, commit $GIT_SHA"
for target in $targets; do
  report "$target"
done
echo "for helm and dhs submit, --values $VALUES_FILE:"
cat "$VALUES_FILE"
[ "${PUSH:-}" = 1 ] || echo "nothing was pushed, so there is no digest: PUSH=1 IMAGE_PREFIX=REGISTRY/darkhaloscope $0"
