"""How much memory this process can still take."""

from __future__ import annotations

from pathlib import Path

from pipeline.contracts.errors import PipelineError

MEMINFO = Path("/proc/meminfo")
CGROUP_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def available_memory_bytes(meminfo: Path = MEMINFO, cgroup_files: tuple[tuple[Path, Path], ...] = CGROUP_FILES) -> int:
    """Memory this process can still take: the kernel's MemAvailable, or what its cgroup leaves if that is less.

    Raises:
        PipelineError: the kernel does not say.
    """
    for line in meminfo.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
            break
    else:
        raise PipelineError(f"{meminfo} has no MemAvailable; give the memory limit explicitly")
    for limit_file, usage_file in cgroup_files:
        if limit_file.exists() and usage_file.exists():
            limit = limit_file.read_text(encoding="ascii").strip()
            if limit != "max":
                available = min(available, int(limit) - int(usage_file.read_text(encoding="ascii")))
    return max(available, 0)
