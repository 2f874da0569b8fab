"""Normalisation against numpy, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.training_config import PreprocessSection
from pipeline.training.preprocess import annulus, normalise, normalised, require_same_spec, spec_sha256, stamp_radius


def _stamps(n: int = 5, size: int = 64) -> np.ndarray:
    generator = np.random.default_rng(4)
    return generator.normal(0.1, 0.03, (n, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize("annulus_px", [(20.0, 32.0), (10.0, 14.3), (16.0, 40.0)])
def test_annulus_statistics_are_those_of_numpy(annulus_px: tuple[float, float]) -> None:
    """Median and unscaled MAD over low <= r < high about pixel 32, clipped, agree with numpy to float32."""
    stamps = _stamps()
    y, x = np.mgrid[:64, :64] - 32
    inside = (np.hypot(x, y) >= annulus_px[0]) & (np.hypot(x, y) < annulus_px[1])
    median = np.median(stamps[..., inside], axis=-1)[..., None, None]
    mad = np.median(np.abs(stamps[..., inside][..., None, :] - median), axis=-1)[..., None]
    expected = np.clip((stamps - median) / mad, -4, 4)
    got = normalise(torch.from_numpy(stamps), PreprocessSection(annulus_px=annulus_px, clip=4.0))
    np.testing.assert_allclose(got.numpy(), expected, rtol=2e-5, atol=2e-5)


def test_normalisation_is_per_stamp_and_leaves_its_input_alone() -> None:
    """A stamp normalises to the same bits alone and in a batch; the input keeps its values."""
    stamps = torch.from_numpy(_stamps())
    before = stamps.clone()
    together = normalise(stamps, PreprocessSection())
    alone = torch.cat([normalise(stamp[None], PreprocessSection()) for stamp in stamps])
    assert torch.equal(together, alone)
    assert torch.equal(stamps, before)
    assert together.dtype == torch.float32


def test_scale_and_offset_cancel() -> None:
    """a x + b normalises like x, so depth and sky level alone separate nothing."""
    stamps = torch.from_numpy(_stamps())
    spec = PreprocessSection()
    assert torch.allclose(normalise(stamps * 8.0 + 0.5, spec), normalise(stamps, spec), atol=1e-3)


def test_unit_is_a_mad_or_a_sigma() -> None:
    """Sky of unit sigma comes out with that width; the clip counts in the same unit."""
    stamps = torch.from_numpy(np.random.default_rng(4).normal(3.0, 7.0, (8, 3, 64, 64)).astype(np.float32))
    plain, scaled = (normalise(stamps, PreprocessSection(unit=unit, clip=2.0)) for unit in ("mad", "sigma"))
    wide = normalise(stamps, PreprocessSection(clip=50.0)) / 1.4826
    torch.testing.assert_close(scaled, wide.clamp(-2.0, 2.0))
    assert float(wide.std()) == pytest.approx(1.0, rel=0.02)
    assert float(plain.abs().max()) == float(scaled.abs().max()) == 2.0


def test_stamps_without_noise_are_refused_with_their_number() -> None:
    """A MAD of 0 in one band of two stamps is an error that says 2 of 5."""
    stamps = torch.from_numpy(_stamps())
    stamps[1, 2] = 0.25
    stamps[3] = 0.0
    with pytest.raises(ContractError, match="2 of 5 stamps have a MAD of 0"):
        normalise(stamps, PreprocessSection())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pixels_that_are_not_finite_are_refused(value: float) -> None:
    """One such pixel, even outside the annulus, is an error and never becomes 0."""
    stamps = torch.from_numpy(_stamps())
    stamps[2, 0, 32, 32] = value
    with pytest.raises(ContractError, match="1 of 5 stamps hold pixels that are not finite"):
        normalise(stamps, PreprocessSection())


def test_centre_is_pixel_size_over_two() -> None:
    """The radius is 0 at (32, 32) of 64, and the annulus is symmetric about that pixel."""
    assert float(stamp_radius(64)[32, 32]) == 0.0
    inside = annulus(64, PreprocessSection(annulus_px=(20.0, 31.0)))
    assert torch.equal(inside[1:, 1:], inside[1:, 1:].flip(0))
    assert torch.equal(inside[1:, 1:], inside[1:, 1:].flip(1))


@pytest.mark.parametrize("annulus_px", [(44.0, 45.0)])
def test_empty_annulus_is_a_configuration_error(annulus_px: tuple[float, float]) -> None:
    """An annulus with too few pixels for a median is refused before any pixel is used."""
    with pytest.raises(ConfigError, match="expected at least 32"):
        annulus(64, PreprocessSection(annulus_px=annulus_px))


def test_another_spec_is_refused() -> None:
    """Equal specs pass, a different clip or annulus raises."""
    require_same_spec(PreprocessSection(), PreprocessSection())
    for other in (PreprocessSection(clip=5.0), PreprocessSection(annulus_px=(16.0, 32.0))):
        with pytest.raises(ContractError, match="trained with preprocess"):
            require_same_spec(PreprocessSection(), other)


def test_unusable_stamps_are_told_apart_without_spoiling_the_others() -> None:
    """Flag false and zeros for a NaN pixel and for a band without noise; the others keep their bits."""
    stamps = torch.from_numpy(_stamps())
    stamps[1, 0, 0, 0] = float("nan")
    stamps[3, 2] = 1.0
    values, usable = normalised(stamps, PreprocessSection())
    assert usable.tolist() == [True, False, True, False, True]
    assert bool((values[~usable] == 0).all())
    assert torch.equal(values[usable], normalise(stamps[usable], PreprocessSection()))


def test_hash_follows_the_values() -> None:
    """Equal specs have equal hashes, another clip another one."""
    assert spec_sha256(PreprocessSection()) == spec_sha256(PreprocessSection(clip=10.0))
    assert spec_sha256(PreprocessSection()) != spec_sha256(PreprocessSection(clip=9.0))
