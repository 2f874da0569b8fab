#!/usr/bin/env bash
# Build all images and run the demo in them, as the cluster would: not root, read-only root, no capabilities, S3.
# Needs root on Debian and the network (`make image-test`); it says how long each step took.
#   images/test.sh [--keep]        --keep leaves containers and the S3 data for a look
# Environment: BASE_IMAGE and what images/build.sh reads; WORK, a folder with 3 GB of space; RUNS, which demos:
# "container pods" (default), the first in one container, the second on scheduler and workers of the rendered chart.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=images/local_podman.sh
source images/local_podman.sh
# shellcheck source=tests/k8s/tools.sh
source tests/k8s/tools.sh

readonly WORK=${WORK:-$(mktemp -d)}
readonly NAME=dhs-image-test
readonly PREFIX=localhost/darkhaloscope
readonly BUCKET=darkhaloscope
readonly PYTHON=${PYTHON:-.venv/bin/python}
# Flags that make a container what the chart's pods are.
readonly HARDENED=(
  --network host --pull never --user 10001:10001 --read-only --read-only-tmpfs=false --cap-drop ALL
  --security-opt no-new-privileges --tmpfs "/tmp:rw,mode=1777,size=4g"
)
readonly KEY=imagetest SECRET=imagetestsecret
KEEP=
[ "${1:-}" != --keep ] || KEEP=1

step() {
  local started=$SECONDS what=$1
  shift
  echo "== $what"
  "$@"
  echo "== $what: $((SECONDS - started)) s"
}

clean_up() {
  [ -z "$KEEP" ] || return 0
  remove_containers
  rm -rf "$WORK"
}

remove_containers() {
  local pods volumes
  mapfile -t pods < <(podman pod ls --quiet --filter "name=^$NAME-")
  [ ${#pods[@]} = 0 ] || podman pod rm --force --time 20 "${pods[@]}" >/dev/null
  mapfile -t volumes < <(podman volume ls --quiet --filter "name=^$NAME-")
  [ ${#volumes[@]} = 0 ] || podman volume rm "${volumes[@]}" >/dev/null
  podman secret inspect "$NAME-keys" >/dev/null 2>&1 && podman secret rm "$NAME-keys" >/dev/null
  podman rm --force --ignore --time 5 "$NAME-s3" >/dev/null
}

start_s3() {
  mkdir -p "$WORK/s3"
  chmod 0777 "$WORK" "$WORK/s3"
  cat > "$WORK/s3.json" <<JSON
{"identities": [{"name": "tester", "credentials": [{"accessKey": "$KEY", "secretKey": "$SECRET"}],
  "actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}
JSON
  chmod 0644 "$WORK/s3.json"
  podman run --detach --name "$NAME-s3" "${HARDENED[@]}" --volume "$WORK/s3:/data" \
    --volume "$WORK/s3.json:/etc/s3.json:ro" --entrypoint '["tini", "--"]' "$PREFIX-e2e:$TAG" \
    weed server -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir=/data -s3 "-s3.port=$S3_PORT" -s3.config=/etc/s3.json \
    "-master.port=$((S3_PORT + 1))" "-volume.port=$((S3_PORT + 2))" "-filer.port=$((S3_PORT + 3))" \
    -volume.max=60 -master.volumeSizeLimitMB=64 >/dev/null
  in_image worker python -c "
import s3fs, time
for attempt in range(60):
    try:
        s3fs.S3FileSystem(endpoint_url='$ENDPOINT', client_kwargs={'region_name': 'us-east-2'}).mkdir('$BUCKET')
        break
    except OSError as error:
        if attempt == 59:
            raise SystemExit(f'the S3 server did not start: {error}')
        time.sleep(1)
"
}

# A command in a container, as the pods of the chart run it.
in_image() {
  local image=$1
  shift
  podman run --rm "${HARDENED[@]}" --env AWS_ACCESS_KEY_ID="$KEY" --env AWS_SECRET_ACCESS_KEY="$SECRET" \
    --env AWS_REGION=us-east-2 --env AWS_DEFAULT_REGION=us-east-2 \
    --volume "$WORK/configs:/etc/darkhaloscope/config:ro" "$PREFIX-$image:$TAG" "$@"
}

make_survey() {
  in_image worker dhs synth "s3://$BUCKET/survey" --bricks 96 --brick-size-px 400 --hosts-per-brick 14 \
    --seed 20260101 --region us-east-2 --endpoint-url "$ENDPOINT"
}

# The demo configuration with everything in the bucket, the answer of `dhs config show`: demo_config NAME [--set ...]
demo_config() {
  local name=$1
  shift
  in_image worker dhs config show /etc/darkhaloscope/config/demo.yaml --set "run.name=$name" \
    --set "run.root=s3://$BUCKET/runs" --set run.region=us-east-2 --set "run.endpoint_url=$ENDPOINT" \
    --set "survey.bricks=s3://$BUCKET/survey/coadd" --set "manifest.url=s3://$BUCKET/survey/parent.parquet" "$@"
}

# A whole run in one container of the trainer image: run_demo CONFIG
run_demo() {
  in_image trainer dhs run "/etc/darkhaloscope/config/$1" 2>&1 | tail -n 15
}

# Scheduler and workers as the chart renders them, as pods of podman: start_pods CONFIG
start_pods() {
  "$HELM" template "$NAME" helm/darkhaloscope --namespace default --set-file "config=$WORK/configs/$1" \
    --values helm/darkhaloscope/ci/no-operator-values.yaml --set "aws.credentialsSecret=$NAME-keys" \
    --set "image.worker.repository=$PREFIX-worker" --set-string "image.worker.tag=$TAG" \
    --set "image.trainer.repository=$PREFIX-trainer" --set-string "image.trainer.tag=$TAG" > "$WORK/rendered.yaml"
  "$PYTHON" tests/k8s/podman_pods.py --workers 2 < "$WORK/rendered.yaml" > "$WORK/pods.yaml"
  printf '{"AWS_ACCESS_KEY_ID": "%s", "AWS_SECRET_ACCESS_KEY": "%s"}' "$(printf %s "$KEY" | base64)" \
    "$(printf %s "$SECRET" | base64)" | podman secret create "$NAME-keys" - >/dev/null
  podman kube play --network host "$WORK/pods.yaml"
}

# Ending the pods as a cluster does: SIGTERM, and dhs worker answers with 143.
stop_pods() {
  local container code
  for container in $(podman ps --quiet --filter "name=^$NAME-worker"); do
    podman stop --time 60 "$container" >/dev/null
    code=$(podman inspect --format '{{.State.ExitCode}}' "$container")
    [ "$code" = 143 ] || fail "worker $container: expected exit code 143 after SIGTERM, got $code"
  done
}

verify() {
  in_image worker dhs verify "s3://$BUCKET/runs/$1" --region us-east-2 --endpoint-url "$ENDPOINT"
}

# What must lie in the bucket after a run, and that its record names the image's commit.
assert_outputs() {
  in_image worker python -c "
import json, s3fs
from pipeline.storage.locations import CHECKPOINT_FILE
files, run = s3fs.S3FileSystem(endpoint_url='$ENDPOINT'), '$BUCKET/runs/$1'
wanted = ['run.json', 'gates.json', '_SUCCESS', 'report/index.html', 'training/' + CHECKPOINT_FILE, 'training/_SUCCESS']
missing = [name for name in wanted if not files.exists(f'{run}/{name}')]
if missing:
    raise SystemExit(f'{run}: expected a finished run, missing {missing}')
record = json.loads(files.cat(f'{run}/run.json'))
if record['state'] != 'complete' or '$GIT_SHA' not in json.dumps(record):
    raise SystemExit(f'{run}/run.json: expected state complete and commit $GIT_SHA, got {json.dumps(record)[-3000:]}')
print(f'{run}: complete,', sum(files.du(run, total=False).values()) >> 20, 'MiB')
"
}

fail() {
  echo "images/test.sh: $*" >&2
  exit 3
}

install_tools
configure_podman "$WORK"
HELM=$(find_tool helm)
remove_containers
trap clean_up EXIT
mkdir -p "$WORK/configs"
cp configs/demo.yaml "$WORK/configs/"
chmod -R a+rX "$WORK"
[ -n "${BASE_IMAGE:-}" ] || step "base from Debian packages" make_base "$WORK"
host_pip
export ENGINE=podman TORCH=cpu IMAGE_PREFIX=$PREFIX
step "build worker, trainer (CPU) and e2e image" images/build.sh worker trainer e2e | tee "$WORK/build.txt"
GIT_SHA=$(sed -n 's/^engine .*, commit //p' "$WORK/build.txt")
TAG=${GIT_SHA:0:12}${GIT_SHA:40}
S3_PORT=$(free_port)
ENDPOINT=http://127.0.0.1:$S3_PORT
step "start S3" start_s3
step "synthetic survey to S3" make_survey
for run in ${RUNS:-container pods}; do
  case $run in
    container) demo_config container > "$WORK/configs/container.yaml" ;;
    pods)
      demo_config pods --set cluster.kind=address --set cluster.address=tcp://127.0.0.1:8786 > "$WORK/configs/pods.yaml"
      step "scheduler and workers of the chart as pods" start_pods pods.yaml
      ;;
    *) fail "RUNS: expected container or pods, got $run" ;;
  esac
  step "demo, $run" run_demo "$run.yaml"
  step "dhs verify, $run" verify "$run"
  step "outputs, $run" assert_outputs "$run"
done
[[ " ${RUNS:-container pods} " != *" pods "* ]] || step "end the workers" stop_pods
echo "image-test passed in $SECONDS s"
