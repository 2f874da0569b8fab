"""From stamp to template: known galaxies under noise and pedestals come back, everything else says why not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.source_bank import BankLimits, GalaxyStamp
from pipeline.stages.source_bank import Template, assemble_bank, make_template
from pipeline.stages.template_quality import half_light_radius_arcsec

SCALE_ARCSEC = 0.03
LIMITS = BankLimits()
# Half-light radius of an exponential disc in scale lengths.
DISC_HLR = 1.67835


def galaxy(kind: str, hlr_arcsec: float, size: int = 96, x_px: float = 47.5, y_px: float = 47.5) -> np.ndarray:
    """A round galaxy of unit flux, integrated over 5 x 5 points per pixel."""
    fine = (np.arange(size * 5) + 0.5) / 5 - 0.5
    radius_px = np.hypot(fine[None, :] - x_px, fine[:, None] - y_px)
    hlr_px = hlr_arcsec / SCALE_ARCSEC
    light = np.exp(-math.log(2) * (radius_px / hlr_px) ** 2 if kind == "gaussian" else -DISC_HLR * radius_px / hlr_px)
    binned = light.reshape(size, 5, size, 5).mean(axis=(1, 3))
    return binned / binned.sum()


def observed(image: np.ndarray, noise: float, pedestal: float = 0.0, seed: int = 11, **known: float) -> GalaxyStamp:
    """A stamp of the picture with white noise and a flat level."""
    sky = np.random.default_rng(seed).normal(scale=noise, size=image.shape) + pedestal
    return GalaxyStamp(index=seed, image=(image + sky).astype(np.float32), **known)


@pytest.mark.parametrize("kind", ["gaussian", "disc"])
@pytest.mark.parametrize("hlr_arcsec", [0.15, 0.3])
@pytest.mark.parametrize("pedestal", [0.0, 2e-4, -1e-4])
def test_half_light_radius_survives_noise_and_pedestal(kind: str, hlr_arcsec: float, pedestal: float) -> None:
    """Within 5 per cent; the pedestal of 2e-4 holds 1.8 times the galaxy's flux."""
    template = make_template(observed(galaxy(kind, hlr_arcsec), 1e-4, pedestal), SCALE_ARCSEC, LIMITS)
    assert template.reject_reason == "none"
    assert template.hlr_arcsec == pytest.approx(hlr_arcsec, rel=0.05)


def test_pedestal_share_says_what_clipping_alone_would_have_left() -> None:
    """Nearly nothing in a deep stamp, most of the light in one with a level of 1.8 times the flux."""
    deep = make_template(observed(galaxy("gaussian", 0.2), 1e-7), SCALE_ARCSEC, LIMITS)
    lifted = make_template(observed(galaxy("gaussian", 0.2), 1e-5, 2e-4), SCALE_ARCSEC, LIMITS)
    assert deep.pedestal_fraction < 0.01
    assert lifted.pedestal_fraction == pytest.approx(2e-4 * 96**2 / (1 + 2e-4 * 96**2), abs=0.02)


def test_template_is_what_the_contract_says() -> None:
    """Unit sum, float32, not negative, dark outside, centred to half a pixel, residual offset recorded."""
    stamp = observed(galaxy("disc", 0.2, x_px=52.3, y_px=41.1), 2e-4, 1e-4, mag=24.5, redshift=1.2)
    template = make_template(stamp, SCALE_ARCSEC, LIMITS)
    image = template.image
    assert image.shape == (96, 96) and image.dtype == np.float32
    assert image.sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
    assert image.min() == 0.0
    assert not image[:6].any() and not image[:, :6].any()
    assert template.offset_x_px == pytest.approx(0.3 - 0.5, abs=0.15)
    assert template.offset_y_px == pytest.approx(0.1 - 0.5, abs=0.15)
    assert (template.mag, template.redshift) == (24.5, 1.2)


def test_snr_is_flux_over_white_noise() -> None:
    """Flux over sigma times the root of the segment's area, with the noise measured or given."""
    stamp = observed(galaxy("gaussian", 0.2), 2e-4)
    measured = make_template(stamp, SCALE_ARCSEC, LIMITS)
    given = make_template(replace(stamp, noise_sigma=4e-4), SCALE_ARCSEC, LIMITS)
    assert measured.snr == pytest.approx(2 * given.snr, rel=0.05)
    assert 1 / (4e-4 * math.sqrt(np.pi) * 30) < given.snr < 1 / (4e-4 * math.sqrt(np.pi) * 8)


def test_neighbours_are_dark() -> None:
    """A neighbour brighter than the galaxy leaves nothing in the template."""
    image = galaxy("gaussian", 0.2) + 3 * galaxy("gaussian", 0.15, x_px=78.0, y_px=75.0)
    template = make_template(observed(image, 1e-4), SCALE_ARCSEC, LIMITS)
    assert template.reject_reason == "none"
    assert template.image[68:, 68:].sum() == 0.0
    assert template.hlr_arcsec == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("size", [40, 160])
def test_stamps_of_other_sizes_fill_the_template(size: int) -> None:
    """A small stamp is surrounded by darkness, a large one is cut, and the galaxy stays the same."""
    image = galaxy("gaussian", 0.2, size, (size - 1) / 2, (size - 1) / 2)
    template = make_template(observed(image, 1e-4), SCALE_ARCSEC, LIMITS)
    assert template.image.shape == (96, 96)
    assert template.reject_reason == "none"
    assert template.hlr_arcsec == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(
    ("reason", "stamp"),
    [
        ("too_faint", observed(np.zeros((96, 96)), 1e-3)),
        ("too_faint", observed(galaxy("gaussian", 0.2), 2.5e-3)),
        ("pedestal_dominated", observed(np.zeros((96, 96)), 1e-5, 1e-3)),
        ("pedestal_dominated", observed(galaxy("gaussian", 0.2), 1e-4, 3e-2)),
        ("touches_edge", observed(galaxy("gaussian", 0.6, 48, 23.5, 23.5), 2e-5)),
        ("touches_edge", observed(galaxy("disc", 0.9, 200, 99.5, 99.5), 2e-6)),
        ("hlr_out_of_range", observed(galaxy("gaussian", 0.06), 1e-4)),
        (
            "blended",
            observed(galaxy("gaussian", 0.15, x_px=37.5) + galaxy("gaussian", 0.15, x_px=57.5), 1e-5),
        ),
    ],
)
def test_rejected_galaxies_say_why(reason: str, stamp: GalaxyStamp) -> None:
    """One stamp for each reason; a rejected template has unit sum or no light at all."""
    template = make_template(stamp, SCALE_ARCSEC, LIMITS)
    assert template.reject_reason == reason
    assert template.image.sum(dtype=np.float64) == pytest.approx(1.0, abs=1e-5) or not template.image.any()


def test_a_pixel_that_is_not_finite_rejects_the_stamp() -> None:
    """NaN is a reason, not an error."""
    stamp = observed(galaxy("gaussian", 0.2), 1e-4)
    stamp.image[5, 5] = np.nan
    template = make_template(stamp, SCALE_ARCSEC, LIMITS)
    assert template.reject_reason == "non_finite" and not template.image.any()


def test_cleaning_a_clipped_template_removes_its_pedestal() -> None:
    """A galaxy on clipped noise, as an old bank stores it, gets its own half-light radius back within a tenth."""
    stamp = observed(galaxy("disc", 0.25), 4e-4)
    clipped = np.maximum(gaussian_filter(stamp.image, 0.5), 0.0)
    clipped /= clipped.sum()
    assert half_light_radius_arcsec(clipped, SCALE_ARCSEC) > 0.5
    template = make_template(replace(stamp, image=clipped.astype(np.float32)), SCALE_ARCSEC, LIMITS)
    assert template.reject_reason == "none"
    assert template.hlr_arcsec == pytest.approx(0.25, rel=0.1)


def test_common_resolution_smooths_by_the_missing_width() -> None:
    """A Gaussian galaxy grows in quadrature by what its PSF lacks; the template carries the common FWHM."""
    stamp = observed(galaxy("gaussian", 0.15), 1e-5, psf_fwhm_arcsec=0.1)
    template = make_template(stamp, SCALE_ARCSEC, replace(LIMITS, common_psf_fwhm_arcsec=0.2))
    assert template.psf_fwhm_arcsec == 0.2
    assert template.hlr_arcsec == pytest.approx(math.sqrt(0.15**2 + (0.2**2 - 0.1**2) / 4), rel=0.03)


@pytest.mark.parametrize("known", [{"psf_fwhm_arcsec": 0.12}, {}])
def test_a_resolution_that_smoothing_cannot_reach_is_refused(known: dict[str, float]) -> None:
    """Neither a wider nor an unknown PSF is brought to 0.1 arcsec."""
    stamp = observed(galaxy("gaussian", 0.2), 1e-4, **known)
    with pytest.raises(ConfigError, match="galaxy 11: its resolution"):
        make_template(stamp, SCALE_ARCSEC, replace(LIMITS, common_psf_fwhm_arcsec=0.1))


def test_a_stamp_too_small_is_refused() -> None:
    """Less than 16 px a side holds no background."""
    with pytest.raises(ContractError, match="at least 16 px"):
        make_template(GalaxyStamp(3, np.zeros((12, 40), dtype=np.float32)), SCALE_ARCSEC, LIMITS)


def test_bank_is_in_the_order_of_the_index() -> None:
    """Whatever order templates come in, the bank and its digest are the same."""
    templates = [
        make_template(observed(galaxy("disc", 0.2), 1e-4, seed=seed, psf_fwhm_arcsec=0.1), SCALE_ARCSEC, LIMITS)
        for seed in (4, 2, 9)
    ]
    first = assemble_bank(templates, SCALE_ARCSEC, "test", "here", "now")
    second = assemble_bank(reversed(templates), SCALE_ARCSEC, "test", "here", "later")
    assert first.columns["index"].tolist() == [2, 4, 9]
    assert first.digest == second.digest
    assert first.psf_fwhm_arcsec == pytest.approx(0.1)


def test_rejected_templates_stay_unless_only_usable_are_wanted() -> None:
    """They are flagged in the one bank and absent from the other."""
    dark = Template(np.zeros((96, 96), dtype=np.float32), 1, "too_faint")
    good = make_template(observed(galaxy("disc", 0.2), 1e-4), SCALE_ARCSEC, LIMITS)
    assert assemble_bank([dark, good], SCALE_ARCSEC, "t", "s", "n").usable.tolist() == [False, True]
    assert assemble_bank([dark, good], SCALE_ARCSEC, "t", "s", "n", only_usable=True).images.shape[0] == 1
    with pytest.raises(ContractError, match="usable galaxy"):
        assemble_bank([dark], SCALE_ARCSEC, "t", "s", "n", only_usable=True)
    with pytest.raises(ContractError, match="more than one galaxy: 1"):
        assemble_bank([dark, dark], SCALE_ARCSEC, "t", "s", "n")
