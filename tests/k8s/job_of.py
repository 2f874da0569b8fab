"""Print a Job that runs one command in the worker image, as restricted as the chart's pods: job_of.py COMMAND...

From the environment: NAME, IMAGE, PULL (pull policy), SECRET (with the store's keys; empty: none), REGION, ACCOUNT
(service account).
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    if not sys.argv[1:]:
        sys.exit("expected a command, got none")
    job = job_of(
        os.environ["NAME"], os.environ["IMAGE"], os.environ["PULL"], os.environ["SECRET"], os.environ["REGION"],
        os.environ["ACCOUNT"], sys.argv[1:],
    )  # fmt: skip
    print(json.dumps(job, indent=1))


def job_of(
    name: str, image: str, pull_policy: str, secret: str, region: str, account: str, command: list[str]
) -> dict[str, Any]:
    """A batch/v1 Job without second tries; `secret` may be empty."""
    container: dict[str, Any] = {
        "name": "command",
        "image": image,
        "imagePullPolicy": pull_policy,
        "args": command,
        "env": [{"name": variable, "value": region} for variable in ("AWS_REGION", "AWS_DEFAULT_REGION")],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    if secret:
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }


if __name__ == "__main__":
    main()
