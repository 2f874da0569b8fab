from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.errors import PipelineError
from pipeline.training.memory_limit import available_memory_bytes


def test_available_memory_is_the_smaller_of_kernel_and_cgroup(tmp_path: Path) -> None:
    """A cgroup limit below MemAvailable wins; `max` and missing files leave the kernel's number."""
    meminfo, limit, usage = tmp_path / "meminfo", tmp_path / "max", tmp_path / "current"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert available_memory_bytes(meminfo, ((limit, usage),)) == 4_096_000
    usage.write_text("1000000\n")
    limit.write_text("max\n")
    assert available_memory_bytes(meminfo, ((limit, usage),)) == 4_096_000
    limit.write_text("3000000\n")
    assert available_memory_bytes(meminfo, ((limit, usage),)) == 2_000_000
    meminfo.write_text("MemTotal: 9000 kB\n")
    with pytest.raises(PipelineError, match="MemAvailable"):
        available_memory_bytes(meminfo, ())
