# shellcheck shell=bash
# shellcheck disable=SC2153
# Sourced by e2e.sh: its steps, in the order in which they are taken. The variables are its.

PASSED=

say() {
  printf '%s %s\n' "$(date -u +%H:%M:%S)" "$*"
}

fail() {
  say "FAILED: $*" >&2
  exit 1
}

step() {
  local started=$SECONDS what=$1
  shift
  say "== $what"
  "$@"
  say "== $what: done in $((SECONDS - started)) s"
}

k() {
  "$KUBECTL" --namespace "$NAMESPACE" "$@"
}

# Keep what explains a failure, then say so; the namespace stays for a look.
finish() {
  local code=$? job
  for job in $(jobs -p); do
    kill "$job" 2>/dev/null || true
  done
  if [ -z "$PASSED" ]; then
    if [ -n "${KUBECTL:-}" ]; then
      collect_artifacts
      say "FAILED with exit code $code after $SECONDS s; logs and events are in $ARTIFACTS/, namespace $NAMESPACE was left" >&2
    fi
    [ "$code" != 0 ] || code=1
  else
    say "PASSED in $SECONDS s: $MODES"
  fi
  rm -rf "$WORK"
  exit "$code"
}

collect_artifacts() {
  local pod
  mkdir -p "$ARTIFACTS"
  k get all,configmaps,networkpolicies,events --output wide > "$ARTIFACTS/objects.txt" 2>&1 || true
  k describe pods > "$ARTIFACTS/pods.txt" 2>&1 || true
  for pod in $(k get pods --output name 2>/dev/null); do
    k logs "$pod" --all-containers --tail 5000 > "$ARTIFACTS/${pod#pod/}.log" 2>&1 || true
    k logs "$pod" --all-containers --previous --tail 5000 > "$ARTIFACTS/${pod#pod/}.previous.log" 2>/dev/null || true
  done
  "$KUBECTL" --namespace "$OPERATOR_NAMESPACE" logs --selector "app.kubernetes.io/instance=$OPERATOR" --tail 5000 \
    > "$ARTIFACTS/operator.log" 2>&1 || true
  find "$ARTIFACTS" -name '*.log' -empty -delete
}

check_tools() {
  local version minor
  HELM=$(find_tool helm)
  KUBECTL=$(find_tool kubectl)
  "$PYTHON" -c 'import pipeline, dask_kubernetes' || fail "PYTHON=$PYTHON: run make install first"
  version=$("$KUBECTL" version --output json | "$PYTHON" -c '
import json, sys
server = json.load(sys.stdin).get("serverVersion")
print(server["gitVersion"] if server else "")') || fail "no cluster answers; KUBECONFIG is ${KUBECONFIG:-not set}"
  [ -n "$version" ] || fail "no cluster answers; KUBECONFIG is ${KUBECONFIG:-not set}"
  minor=$(cut -d. -f2 <<< "$version")
  [ "${minor%%[!0-9]*}" -ge 28 ] || fail "Kubernetes: expected 1.28 or newer, got $version"
  say "Kubernetes $version ($("$KUBECTL" config current-context)), helm $("$HELM" version --template '{{.Version}}')"
}

check_images() {
  local name
  for name in WORKER_IMAGE TRAINER_IMAGE OPERATOR_IMAGE; do
    [ -n "${!name:-}" ] || fail "$name: expected NAME:TAG or NAME@sha256:..., got nothing"
  done
  [ -n "${S3_ROOT:-}" ] || [ -n "$E2E_IMAGE" ] || fail "expected S3_ROOT, or E2E_IMAGE with an S3 server in it"
}

# Chart settings of an image: image_values KEY REFERENCE
image_values() {
  local key=$1 reference=$2
  if [[ "$reference" == *@sha256:* ]]; then
    printf '%s\n' --set-string "$key.repository=${reference%@*}" --set-string "$key.digest=${reference#*@}"
  else
    printf '%s\n' --set-string "$key.repository=${reference%:*}" --set-string "$key.tag=${reference##*:}"
  fi
}

# Pods that break the restricted rules are refused by the API server itself.
make_namespace() {
  if [ -n "$("$KUBECTL" get namespace "$NAMESPACE" --ignore-not-found --output 'jsonpath={.metadata.deletionTimestamp}')" ]; then
    say "namespace $NAMESPACE is still being deleted"
    "$KUBECTL" wait --for=delete "namespace/$NAMESPACE" --timeout 300s
  fi
  "$KUBECTL" apply --filename - <<YAML
apiVersion: v1
kind: Namespace
metadata:
  name: $NAMESPACE
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: latest
YAML
}

operator_chart() {
  "$PYTHON" -c '
import pathlib, dask_kubernetes
root = pathlib.Path(dask_kubernetes.__file__).parent
print(root / "operator/deployment/helm/dask-kubernetes-operator")'
}

# The chart of the pinned dask-kubernetes for this namespace alone, unless somebody's operator watches it already.
install_operator() {
  local chart others
  others=$(operators_that_watch)
  if [ -n "$others" ]; then
    say "an operator watches $NAMESPACE already; it is used and left: $others"
    return
  fi
  chart=$(operator_chart)
  if ! "$KUBECTL" get crd daskclusters.kubernetes.dask.org >/dev/null 2>&1; then
    "$KUBECTL" apply --server-side --filename "$chart/crds"
    "$KUBECTL" label --filename "$chart/crds" --overwrite "$MADE_HERE"
  fi
  if ! "$KUBECTL" get namespace "$OPERATOR_NAMESPACE" >/dev/null 2>&1; then
    "$KUBECTL" create namespace "$OPERATOR_NAMESPACE"
    "$KUBECTL" label namespace "$OPERATOR_NAMESPACE" "$MADE_HERE"
  fi
  "$HELM" upgrade --install "$OPERATOR" "$chart" --namespace "$OPERATOR_NAMESPACE" --skip-crds \
    --values tests/k8s/values-operator.yaml --set-string "image.name=$(operator_name)" \
    --set-string "image.tag=$(operator_tag)" --set "image.pullPolicy=$PULL_POLICY" \
    --set-string "kopfArgs={--namespace=$NAMESPACE}" --wait --timeout 5m
}

# Operators of others that serve this namespace, as NAMESPACE/NAME.
operators_that_watch() {
  "$KUBECTL" get deployments --all-namespaces --selector app.kubernetes.io/name=dask-kubernetes-operator --output \
    'jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {.spec.template.spec.containers[0].args}{"\n"}{end}' \
    | awk -v own="$OPERATOR_NAMESPACE/$OPERATOR-" -v here="--namespace=$NAMESPACE\"" \
      'index($1, own) != 1 && (index($0, "--all-namespaces") || index($0, here)) { print $1 }'
}

# Its chart joins name and tag with a colon, so a digest is split at its own.
operator_name() {
  echo "${OPERATOR_IMAGE%:*}"
}

operator_tag() {
  echo "${OPERATOR_IMAGE##*:}"
}

# A SeaweedFS in the namespace with keys of its own, or the store that S3_ROOT names.
provide_s3() {
  local key secret
  if [ -n "${S3_ROOT:-}" ]; then
    ROOT=${S3_ROOT%/} ENDPOINT=${S3_ENDPOINT:-}
    if [ -n "${AWS_ACCESS_KEY_ID:-}" ]; then
      store_keys "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"
      CREDENTIALS=$KEYS_SECRET
    else
      CREDENTIALS=
    fi
    return
  fi
  ROOT=s3://darkhaloscope/e2e ENDPOINT=http://e2e-s3.$NAMESPACE.svc:8333 CREDENTIALS=$KEYS_SECRET
  if ! k get secret "$KEYS_SECRET" >/dev/null 2>&1; then
    key=$("$PYTHON" -c 'import secrets; print(secrets.token_hex(10))')
    secret=$("$PYTHON" -c 'import secrets; print(secrets.token_hex(20))')
    store_keys "$key" "$secret"
  fi
  sed -e "s|E2E_IMAGE|$E2E_IMAGE|" -e "s|PULL_POLICY|$PULL_POLICY|" tests/k8s/s3.yaml | k apply --filename -
  k rollout status deployment/e2e-s3 --timeout 300s
}

# store_keys KEY SECRET: for the pods, and as the server's list of identities.
store_keys() {
  printf '{"identities": [{"name": "e2e", "credentials": [{"accessKey": "%s", "secretKey": "%s"}],
    "actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}' "$1" "$2" > "$WORK/s3.json"
  k create secret generic e2e-s3-identities --from-file "s3.json=$WORK/s3.json" --dry-run=client --output yaml \
    | k apply --filename -
  k create secret generic "$KEYS_SECRET" --from-literal "AWS_ACCESS_KEY_ID=$1" --from-literal "AWS_SECRET_ACCESS_KEY=$2" \
    --dry-run=client --output yaml | k apply --filename -
}

# A command in a pod of the worker image that may use the store: in_cluster NAME TIMEOUT_S COMMAND...
in_cluster() {
  local name=$1 timeout_s=$2
  shift 2
  k delete job "$name" --ignore-not-found --wait
  NAME=$name IMAGE=$WORKER_IMAGE PULL=$PULL_POLICY SECRET=$CREDENTIALS REGION=$S3_REGION ACCOUNT=$SERVICE_ACCOUNT \
    "$PYTHON" tests/k8s/job_of.py "$@" | k apply --filename -
  wait_for_job "$name" "$timeout_s" || { k logs "job/$name" --tail 50 >&2; fail "job $name did not complete"; }
  k logs "job/$name" --tail 20
  k delete job "$name" --wait
}

# 0 if a Job completed, 1 if it failed, ends the test if it did neither in time: wait_for_job NAME TIMEOUT_S
wait_for_job() {
  local name=$1 until=$((SECONDS + $2)) conditions
  while [ "$SECONDS" -lt "$until" ]; do
    conditions=$(k get job "$name" --output 'jsonpath={range .status.conditions[?(@.status=="True")]}{.type} {end}')
    case " $conditions" in
      *" Complete "*) return 0 ;;
      *" Failed "*) return 1 ;;
    esac
    sleep 3
  done
  k describe job "$name" >&2
  fail "job $name: neither complete nor failed within $2 s"
}

make_survey() {
  local bucket=${ROOT#s3://}
  in_cluster e2e-survey 900 python -c "
import subprocess, sys, s3fs
endpoint = '$ENDPOINT' or None
files = s3fs.S3FileSystem(endpoint_url=endpoint, client_kwargs={'region_name': '$S3_REGION'})
if endpoint and not files.exists('${bucket%%/*}'):
    files.mkdir('${bucket%%/*}')
if files.exists('$bucket/survey-$BRICKS/parent.parquet'):
    sys.exit(print('the survey is there from an earlier test'))
command = ['dhs', 'synth', '$ROOT/survey-$BRICKS', '--bricks', '$BRICKS', '--brick-size-px', '400',
           '--hosts-per-brick', '14', '--seed', '20260101', '--region', '$S3_REGION']
sys.exit(subprocess.run(command + (['--endpoint-url', endpoint] if endpoint else [])).returncode)
"
}

# The demo's configuration with everything in the store, one run per release: write_config RELEASE TABLE
write_config() {
  local options=(--set "run.name=$1" --set "run.root=$ROOT/runs" --set "run.region=$S3_REGION")
  # A pod holds the worker and its nanny, and compiles; on one machine only the worker's own memory counts.
  options+=(--set cluster.memory_per_worker=2.5GiB)
  [ -z "$ENDPOINT" ] || options+=(--set "run.endpoint_url=$ENDPOINT")
  "$PYTHON" -m pipeline.cli config show configs/demo.yaml "${options[@]}" \
    --set "survey.bricks=$ROOT/survey-$BRICKS/coadd" --set "manifest.url=$ROOT/survey-$BRICKS/$2" > "$WORK/$1.yaml"
}

# Ports behind the API server's Service, which the driver's network policy must let through, as 443,6443
api_server_ports() {
  "$KUBECTL" get endpointslices --namespace default --selector kubernetes.io/service-name=kubernetes \
    --output 'jsonpath=443{range .items[*].ports[*]},{.port}{end}'
}

# install_release RELEASE MODE CONFIG
install_release() {
  local images ports
  ports=$(api_server_ports)
  [ "$ports" != 443 ] || ports=443,6443
  mapfile -t images < <(image_values image.worker "$WORKER_IMAGE"; image_values image.trainer "$TRAINER_IMAGE")
  "$HELM" install "$1" helm/darkhaloscope --namespace "$NAMESPACE" --set-file "config=$3" \
    --values tests/k8s/values-e2e.yaml ${VALUES:+--values "$VALUES"} --set "cluster.kind=$2" --set "image.pullPolicy=$PULL_POLICY" \
    --set "aws.credentialsSecret=$CREDENTIALS" --set "networkPolicy.apiServerPorts={$ports}" "${images[@]}"
}

run_release() {
  local release=$1 mode=$2
  forget_run "$release"
  install_release "$release" "$mode" "$WORK/$release.yaml"
  lose_a_worker "$release" &
  if ! wait_for_job "$release-driver" "$TIMEOUT_S"; then
    k logs "job/$release-driver" --tail 100 >&2
    fail "the driver of $release failed"
  fi
  wait $! || fail "no worker of $release could be taken away: none was ready within $TIMEOUT_S s"
  k logs "job/$release-driver" --tail 5
}

# An earlier test's outputs, so that the run does all of its work.
forget_run() {
  in_cluster e2e-forget 120 python -c "
import s3fs
files = s3fs.S3FileSystem(endpoint_url='$ENDPOINT' or None, client_kwargs={'region_name': '$S3_REGION'})
if files.exists('${ROOT#s3://}/runs/$1'):
    files.rm('${ROOT#s3://}/runs/$1', recursive=True)
"
}

# A node that goes away costs the shards in flight, no more: the first ready worker is deleted during the run.
lose_a_worker() {
  local worker until=$((SECONDS + TIMEOUT_S))
  while [ "$SECONDS" -lt "$until" ]; do
    worker=$(k get pods --selector "app.kubernetes.io/instance=$1,app.kubernetes.io/component=worker" \
      --field-selector status.phase=Running --output 'jsonpath={.items[0].metadata.name}' 2>/dev/null || true)
    if [ -n "$worker" ]; then
      sleep 20
      k delete pod "$worker" --wait=false --ignore-not-found
      return
    fi
    sleep 2
  done
  return 1
}

# Objects of a release that still exist, one a line; its DaskCluster labels what it makes with its own name.
remains() {
  local kinds=pods,jobs,deployments,replicasets,services,configmaps,serviceaccounts,roles,rolebindings
  kinds+=,networkpolicies,poddisruptionbudgets
  if "$KUBECTL" get crd daskclusters.kubernetes.dask.org >/dev/null 2>&1; then
    kinds+=,daskclusters,daskworkergroups
  fi
  k get "$kinds" --selector "app.kubernetes.io/instance=$1" --output name \
    && k get "$kinds" --selector "dask.org/cluster-name=$1" --output name
}

# wait_until_gone WHAT TIMEOUT_S COMMAND...: until the command prints nothing.
wait_until_gone() {
  local what=$1 until=$((SECONDS + $2)) left
  shift 2
  while :; do
    left=$("$@") || fail "$what: the cluster did not say what is left"
    [ -n "$left" ] || return 0
    [ "$SECONDS" -lt "$until" ] || fail "$what: expected nothing to be left, got
$left"
    sleep 3
  done
}

cluster_of() {
  k get pods --selector "app.kubernetes.io/instance=$1,app.kubernetes.io/component in (scheduler,worker)" --output name \
    || return
  if "$KUBECTL" get crd daskclusters.kubernetes.dask.org >/dev/null 2>&1; then
    k get daskclusters --selector "app.kubernetes.io/instance=$1" --output name
  fi
}

# Before anything is uninstalled: the driver itself sent workers and scheduler home.
assert_no_cluster() {
  wait_until_gone "scheduler and workers of $1" 180 cluster_of "$1"
}

assert_outputs() {
  in_cluster e2e-outputs 300 python -c "
import json, s3fs
from pipeline.storage.locations import CHECKPOINT_FILE
files = s3fs.S3FileSystem(endpoint_url='$ENDPOINT' or None, client_kwargs={'region_name': '$S3_REGION'})
run = '${ROOT#s3://}/runs/$1'
wanted = ['run.json', 'gates.json', '_SUCCESS', 'report/index.html', 'training/' + CHECKPOINT_FILE, 'training/_SUCCESS']
missing = [name for name in wanted if not files.exists(f'{run}/{name}')]
if missing:
    raise SystemExit(f'{run}: expected a finished run, missing {missing}')
record = json.loads(files.cat(f'{run}/run.json'))
commit = json.load(open('/opt/darkhaloscope/build.json'))['git_sha']
if record['state'] != 'complete' or commit not in json.dumps(record):
    raise SystemExit(f'{run}/run.json: expected state complete and commit {commit}, got {record[\"state\"]}')
print(f'{run}: complete, commit {commit},', sum(files.du(run, total=False).values()) >> 20, 'MiB')
"
}

# What a user sees from outside the cluster; the run's record is unreadable there where the store is in the cluster.
ask_from_outside() {
  "$PYTHON" -m pipeline.cli status "k8s://$NAMESPACE/$1" > "$WORK/status.json"
  grep '"outcome": "Complete"' "$WORK/status.json" || fail "dhs status: expected a complete release, got $(cat "$WORK/status.json")"
  "$PYTHON" -m pipeline.cli logs "k8s://$NAMESPACE/$1" > "$WORK/driver.log"
  [ -s "$WORK/driver.log" ] || fail "dhs logs: expected the driver's log, got nothing"
}

# The test pod is a hook, which uninstalling does not remove.
helm_test() {
  "$HELM" test "$1" --namespace "$NAMESPACE" --timeout 15m
  k logs "$1-verify" --tail 20
  k delete pod "$1-verify" --wait
}

# A manifest that is not there: exit code 2, no second try, the reason in the log, within minutes.
refuse_release() {
  local release=$1 mode=$2 pods
  remove_release "$release"
  write_config "$release" no-such-table.parquet
  install_release "$release" "$mode" "$WORK/$release.yaml"
  if wait_for_job "$release-driver" 900; then
    fail "$release: expected its driver to refuse a manifest that is not there"
  fi
  pods=$(k get pods --selector "app.kubernetes.io/instance=$release,app.kubernetes.io/component=driver" --output name)
  [ "$(wc -w <<< "$pods")" = 1 ] || fail "$release: expected one driver and no second try, got $pods"
  # Not with grep -q, which hangs up on kubectl.
  k logs "$pods" --tail 200 | grep no-such-table >/dev/null || fail "$release: its log does not name the missing table"
  remove_release "$release"
}

remove_release() {
  if "$HELM" status "$1" --namespace "$NAMESPACE" >/dev/null 2>&1; then
    "$HELM" uninstall "$1" --namespace "$NAMESPACE" --wait --timeout 5m
  fi
  k delete pod "$1-verify" --ignore-not-found --wait
  wait_until_gone "release $1" 180 remains "$1"
}

remove_rest() {
  "$KUBECTL" delete namespace "$NAMESPACE" --wait --timeout 300s
  if "$HELM" status "$OPERATOR" --namespace "$OPERATOR_NAMESPACE" >/dev/null 2>&1; then
    "$HELM" uninstall "$OPERATOR" --namespace "$OPERATOR_NAMESPACE" --wait --timeout 5m
  fi
  "$KUBECTL" delete crd --selector "$MADE_HERE" --timeout 120s
  "$KUBECTL" delete namespace --selector "$MADE_HERE" --timeout 120s
}
