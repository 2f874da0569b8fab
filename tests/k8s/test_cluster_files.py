"""k8s/: the files agree with each other and with the chart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "k8s"
ROLES = ("driver", "worker", "program")


def read(name: str) -> list[dict[str, Any]]:
    """Documents of a file of k8s/."""
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


def test_every_file_is_explained() -> None:
    """README.md names each."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    names = [path.name for path in FOLDER.rglob("*") if path.is_file() and path.name != "README.md"]
    assert len(names) >= 11
    assert [name for name in names if name.partition(".")[0] not in text] == []


def test_roles_belong_to_the_accounts_of_the_runs() -> None:
    """Pod Identity, the namespace and the chart's values name the same accounts."""
    (cluster,) = read("cluster.yaml")
    found = {a["serviceAccountName"]: a for a in cluster["iam"]["podIdentityAssociations"]}
    namespace, *accounts = read("namespace.yaml")
    (values,) = read("values.yaml")
    for role in ROLES:
        name = values["serviceAccounts"][role]["name"]
        assert values["serviceAccounts"][role]["create"] is False
        assert found[name]["namespace"] == namespace["metadata"]["name"]
        assert found[name]["permissionPolicyARNs"][0].endswith(f"darkhaloscope-{role}")
        assert (name, namespace["metadata"]["name"]) in [
            (a["metadata"]["name"], a["metadata"]["namespace"]) for a in accounts
        ]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("role", ROLES)
def test_policies_are_narrow(role: str) -> None:
    """One bucket, named actions; only the driver deletes shards, programs write below training and anchors."""
    policy = json.loads((FOLDER / "policies" / f"{role}.json").read_text(encoding="utf-8"))
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert not [action for action in statement["Action"] if "*" in action]
        if statement["Action"] != ["servicequotas:GetServiceQuota"]:
            assert all(resource.startswith("arn:aws:s3:::darkhaloscope") for resource in statement["Resource"])
        if "s3:ListBucket" in statement["Action"]:
            assert statement["Condition"]["StringLike"]["s3:prefix"]
    writes = {r for s in policy["Statement"] if "s3:PutObject" in s["Action"] for r in s["Resource"]}
    runs = "arn:aws:s3:::darkhaloscope/phase4_pipeline/v6_dask_zarr/"
    assert writes == ({f"{runs}*/training/*", f"{runs}*/anchors/*"} if role == "program" else {f"{runs}*"})
    assert any("s3:DeleteObject" in s["Action"] for s in policy["Statement"]) == (role != "worker")


def test_taints_of_nodes_are_tolerated() -> None:
    """By workers on spot nodes and programs on GPU nodes; the pilot's store lies where the nodes are."""
    (cluster,) = read("cluster.yaml")
    groups = {group["name"]: group for group in cluster["managedNodeGroups"]}
    chart = yaml.safe_load((REPOSITORY / "helm/darkhaloscope/values.yaml").read_text(encoding="utf-8"))
    assert [taint["key"] for taint in groups["workers"]["taints"]] == [t["key"] for t in chart["spot"]["tolerations"]]
    assert [taint["key"] for taint in groups["gpu"]["taints"]] == [t["key"] for t in chart["program"]["tolerations"]]
    assert groups["workers"]["spot"] is True and "spot" not in groups["system"]
    pools = {pool["metadata"]["name"]: pool["spec"]["template"]["spec"] for pool in read("karpenter/nodepools.yaml")}
    for name in ("workers", "gpu"):
        assert pools[name]["taints"] == groups[name]["taints"]
    pilot = yaml.safe_load((REPOSITORY / "configs/pilot.yaml").read_text(encoding="utf-8"))
    (values,) = read("values.yaml")
    assert cluster["metadata"]["region"] == pilot["run"]["region"] == values["aws"]["region"]
    assert json.loads(cluster["addons"][0]["configurationValues"]) == {"enableNetworkPolicy": "true"}


def test_operator_is_that_of_the_package() -> None:
    """One version in constraints.txt, in the values and in the commands."""
    constraints = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"^dask-kubernetes==(.+)$", constraints, re.MULTILINE)
    assert [read("operator-values.yaml")[0]["image"]["tag"]] == pinned
    commands = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"dask-kubernetes-operator --repo https://helm.dask.org --version {pinned[0]}" in commands
