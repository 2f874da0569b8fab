"""CPU rates of calls that take turns, and the wall time from a fresh interpreter to the first arc."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MIN_ROUND_S = 0.3
# Parameters of glibc's mallopt: the size from which an array gets pages of its own, and how much free heap is kept.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_COLD_START = """
import time
start = time.perf_counter()
import numpy as np
from pipeline.kernels.arc_draws import sersic_arcs
from pipeline.kernels.psf import round_psf
from pipeline.kernels.render import StampGrid, render_arcs
imported = time.perf_counter()
draws = sersic_arcs(3, theta_e_arcsec=1.2, lens_q=0.7, lens_phi_rad=0.3, gamma1=0.02, gamma2=0.01, lens_x_arcsec=0.0,
    lens_y_arcsec=0.0, src_x_arcsec=0.1, src_y_arcsec=0.1, src_re_arcsec=0.2, src_n=1.0, src_q=0.7, src_phi_rad=1.0)
render_arcs(draws, round_psf([1.3, 1.2, 1.1], "moffat", 3.5, 64, 0.262), StampGrid(64, 0.262))
print(imported - start, time.perf_counter() - imported)
"""


class Case(NamedTuple):
    """Something to time: a call, and how many stamps it makes."""

    run: Callable[[], Any]
    stamps: int


def keep_memory() -> None:
    """Let this process keep the pages of freed arrays for the next ones, as it would once it had freed a large array.

    NumPy code with temporaries of half a megabyte then runs up to twice as fast; without this call the rates would
    depend on what ran before. Needs glibc.
    """
    allocator = ctypes.CDLL(None)
    allocator.mallopt(_MMAP_THRESHOLD, 2**25)
    allocator.mallopt(_TRIM_THRESHOLD, 2**28)


def rate_in_own_process(driver: str) -> float:
    """Stamps per CPU second that a program beside this file prints, run by itself with its memory as it comes."""
    program = str(Path(__file__).with_name(f"{driver}.py"))
    return float(subprocess.run([sys.executable, program], capture_output=True, check=True).stdout)


def measured_rates(timed: dict[str, Case], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Stamps per CPU second in each round, the cases taking turns."""
    rates: dict[str, list[float]] = {name: [] for name in timed}
    for case in timed.values():
        case.run()
    for _ in range(rounds):
        for name, case in timed.items():
            start, stamps, spent = time.process_time(), 0, 0.0
            while spent < _MIN_ROUND_S:
                case.run()
                stamps += case.stamps
                spent = time.process_time() - start
            rates[name].append(stamps / spent)
    return {name: np.array(values) for name, values in rates.items()}


def cold_start(empty_cache: bool) -> dict[str, float]:
    """Wall seconds of a fresh interpreter to its first arc, best of three; and with nothing compiled, if asked for."""
    _first_arc(os.environ)
    runs = [_first_arc(os.environ) for _ in range(3)]
    found = {"process": min(run[0] for run in runs), "imports": min(run[1] for run in runs)}
    found["first arc"] = min(run[2] for run in runs)
    if empty_cache:
        with tempfile.TemporaryDirectory() as folder:
            _, found["imports, nothing compiled"], found["first arc, nothing compiled"] = _first_arc(
                {**os.environ, "NUMBA_CACHE_DIR": folder}
            )
    print("\ncold start, wall seconds: " + "; ".join(f"{name} {value:.2f}" for name, value in found.items()))
    return found


def _first_arc(environment: Mapping[str, str]) -> tuple[float, float, float]:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _COLD_START], env=environment, capture_output=True, check=True)
    imports, first = done.stdout.split()
    return time.perf_counter() - start, float(imports), float(first)
