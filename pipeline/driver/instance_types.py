"""EC2 instance types: memory, vCPUs and GPUs, and what of them Kubernetes gives to pods.

Nominal values are those of AWS's public instance pages. Allocatable memory follows what EKS nodes reserve (EKS
documentation and Karpenter's default): 7.5 % of the nominal memory never reaches the kubelet, which keeps
255 MiB + 11 MiB per possible pod for itself and evicts below 100 MiB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MIB, _GIB = 2**20, 2**30
_VISIBLE_FRACTION = 0.925
_KUBELET_MIB, _PER_POD_MIB, _EVICTION_MIB = 255, 11, 100
# Pods that the network interfaces of a node allow, by its vCPUs (the Amazon VPC CNI without prefixes).
_MOST_PODS = ((2, 29), (8, 58), (48, 234), (10**6, 737))
_GIB_PER_VCPU = {"c": 2, "m": 4, "r": 8}
_GENERAL = re.compile(r"([cmr])[5-7][a-z]*(?:-flex)?\.(\w+)")
_LARGE = {"large": 2, "xlarge": 4}
# vCPUs, GiB, GPUs
_G_SIZES = {
    "xlarge": (4, 16, 1), "2xlarge": (8, 32, 1), "4xlarge": (16, 64, 1), "8xlarge": (32, 128, 1),
    "12xlarge": (48, 192, 4), "16xlarge": (64, 256, 1), "24xlarge": (96, 384, 4), "48xlarge": (192, 768, 8),
}  # fmt: skip
_WITH_GPU = {
    **{f"g4dn.{size}": shape for size, shape in _G_SIZES.items() if size not in ("24xlarge", "48xlarge")},
    **{f"{family}.{size}": shape for family in ("g5", "g6") for size, shape in _G_SIZES.items()},
    "p3.2xlarge": (8, 61, 1), "p3.8xlarge": (32, 244, 4), "p3.16xlarge": (64, 488, 8),
    "p4d.24xlarge": (96, 1152, 8), "p4de.24xlarge": (96, 1152, 8), "p5.48xlarge": (192, 2048, 8),
}  # fmt: skip


@dataclass(frozen=True)
class InstanceType:
    """A node's size.

    Attributes:
        name: such as m5.2xlarge.
        vcpus: virtual CPUs.
        memory_bytes: nominal memory.
        gpus: number of GPUs.
    """

    name: str
    vcpus: int
    memory_bytes: int
    gpus: int = 0

    @property
    def allocatable_bytes(self) -> int:
        """Memory that pods of the node can request together; see the module for the formula."""
        pods = next(most for vcpus, most in _MOST_PODS if self.vcpus <= vcpus)
        reserved_mib = _KUBELET_MIB + _PER_POD_MIB * pods + _EVICTION_MIB
        return int(_VISIBLE_FRACTION * self.memory_bytes) - reserved_mib * _MIB


def instance_type(name: str) -> InstanceType | None:
    """The size of an instance type of the families c, m, r (5 to 7), g4dn, g5, g6, p3 to p5; None for others."""
    if name in _WITH_GPU:
        vcpus, gib, gpus = _WITH_GPU[name]
        return InstanceType(name, vcpus, gib * _GIB, gpus)
    found = _GENERAL.fullmatch(name)
    if found is None:
        return None
    family, size = found.groups()
    several = re.fullmatch(r"(\d+)xlarge", size)
    vcpus = 4 * int(several[1]) if several else _LARGE.get(size, 0)
    return InstanceType(name, vcpus, vcpus * _GIB_PER_VCPU[family] * _GIB) if vcpus else None
