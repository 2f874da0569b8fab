"""Warm-up compiles what the injection calls."""

from __future__ import annotations

from pipeline.kernels import arc_snr, render
from pipeline.kernels.warm_up import warm_up


def test_warm_up_leaves_nothing_to_compile() -> None:
    """The kernels of the hot path have machine code afterwards, and a second warm-up adds none."""
    assert warm_up() > 0
    hot = (render.render_spectrum, render.render_stamps, arc_snr.arc_snr_linear, arc_snr.arc_snr_nonlinear)
    counts = [len(kernel.signatures) for kernel in hot]
    assert min(counts) >= 1
    warm_up()
    assert [len(kernel.signatures) for kernel in hot] == counts
