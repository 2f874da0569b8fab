#!/usr/bin/env bash
# The whole product on the cluster that KUBECONFIG names: operator, S3, synthetic survey, the demo run as a release, its
# verification, and nothing left behind. Kubernetes 1.28 or newer. May be run again at any time; exit 0 only if all held.
#   WORKER_IMAGE=... TRAINER_IMAGE=... E2E_IMAGE=... tests/k8s/e2e.sh
# Images as `images/build.sh worker trainer e2e` made them, NAME:TAG or NAME@sha256:..., known to every node.
# Environment, optional:
#   MODES            kinds to run, in order (default "kubernetes deployment": with the operator, and without)
#   NAMESPACE        made here, and deleted at the end (default darkhaloscope-e2e)
#   OPERATOR_IMAGE   image of the operator (default E2E_IMAGE, which holds the pinned dask-kubernetes;
#                    elsewhere ghcr.io/dask/dask-kubernetes-operator:2026.3.0)
#   S3_ROOT          s3://bucket/prefix to use instead of a server in the cluster, with S3_REGION (default us-east-2),
#                    S3_ENDPOINT (empty: AWS) and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (empty: the pods' role)
#   BRICKS           size of the synthetic survey (default 96, the demo's)
#   TIMEOUT_S        of one run (default 3600)
#   PULL_POLICY      IfNotPresent (default), Always or Never
#   SERVICE_ACCOUNT  account of the test's own pods, where a role gives access to S3_ROOT (default default)
#   VALUES           a further values file for the chart, such as one that names its accounts' roles
#   KEEP=1           leave everything for a look; run again without it to clean up
#   ARTIFACTS        folder for logs and events of what failed (default e2e-artifacts)
#   PYTHON           with the product and dask-kubernetes installed (default .venv/bin/python, made by make install)
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/k8s/tools.sh
source tests/k8s/tools.sh
# shellcheck source=tests/k8s/e2e_steps.sh
source tests/k8s/e2e_steps.sh

readonly MODES=${MODES:-kubernetes deployment}
readonly NAMESPACE=${NAMESPACE:-darkhaloscope-e2e}
readonly OPERATOR_NAMESPACE=dask-operator OPERATOR=e2e-dask-operator MADE_HERE=darkhaloscope/e2e=made
readonly E2E_IMAGE=${E2E_IMAGE:-}
readonly OPERATOR_IMAGE=${OPERATOR_IMAGE:-$E2E_IMAGE}
readonly S3_REGION=${S3_REGION:-us-east-2}
readonly BRICKS=${BRICKS:-96}
readonly TIMEOUT_S=${TIMEOUT_S:-3600}
readonly PULL_POLICY=${PULL_POLICY:-IfNotPresent}
readonly SERVICE_ACCOUNT=${SERVICE_ACCOUNT:-default}
readonly ARTIFACTS=${ARTIFACTS:-e2e-artifacts}
readonly PYTHON=${PYTHON:-.venv/bin/python}
WORK=$(mktemp -d)
readonly WORK
readonly KEYS_SECRET=e2e-s3-keys

trap finish EXIT
check_tools
check_images
make_namespace
if [[ " $MODES " == *" kubernetes "* ]]; then
  step "operator" install_operator
fi
step "S3" provide_s3
step "synthetic survey" make_survey
for mode in $MODES; do
  release="e2e-$mode"
  step "$mode: remove what an earlier test left" remove_release "$release"
  write_config "$release" parent.parquet
  step "$mode: run the demo as release $release" run_release "$release" "$mode"
  step "$mode: the driver left no cluster" assert_no_cluster "$release"
  step "$mode: outputs" assert_outputs "$release"
  step "$mode: dhs status and logs" ask_from_outside "$release"
  step "$mode: helm test (dhs verify)" helm_test "$release"
  step "$mode: a configuration that cannot run fails at once" refuse_release "$release-no" "$mode"
  [ "${KEEP:-}" = 1 ] || step "$mode: uninstall leaves nothing" remove_release "$release"
done
[ "${KEEP:-}" = 1 ] || step "remove the rest" remove_rest
PASSED=1
