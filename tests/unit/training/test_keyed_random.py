"""Random numbers on tensors are those of the kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.kernels.random import keyed_normal, keyed_uniform
from pipeline.training.keyed_random import PURPOSE_CENTRE, keyed_normals, keyed_uniforms


@pytest.mark.parametrize("seed", [0, 11, 2**62 + 12345])
def test_numbers_are_those_of_the_kernels(seed: int) -> None:
    """Uniforms bit for bit, normals to rounding, for small and large rows, seeds and epochs."""
    rows = [0, 7, 2**33 + 5]
    for epoch in (0, 9):
        uniform = keyed_uniforms(seed, torch.tensor(rows), PURPOSE_CENTRE, epoch, 3)
        normal = keyed_normals(seed, torch.tensor(rows), PURPOSE_CENTRE, epoch, 3)
        for number, row in enumerate(rows):
            for slot in range(3):
                key = (np.uint64(seed), np.uint64(row), PURPOSE_CENTRE, epoch, slot)
                assert uniform[number, slot].item() == keyed_uniform(*key)
                assert normal[number, slot].item() == pytest.approx(keyed_normal(*key), rel=1e-12, abs=1e-14)


def test_numbers_are_uniform_and_normal() -> None:
    """Means and variances of 30,000 numbers within 5 sigma."""
    rows = torch.arange(10_000)
    uniform, normal = keyed_uniforms(3, rows, 101, 1, 3), keyed_normals(3, rows, 102, 1, 3)
    assert float(uniform.mean()) == pytest.approx(0.5, abs=5 * 0.2887 / 173)
    assert float(normal.mean()) == pytest.approx(0.0, abs=5 / 173)
    assert float(normal.var()) == pytest.approx(1.0, abs=5 * 1.414 / 173)
