"""Facts about `dhs render`, called as a user calls it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from astropy.io import fits
from matplotlib.image import imread
from typer.testing import CliRunner

from pipeline.commands.render import render_command
from pipeline.contracts.errors import ConfigError, ContractError, PipelineError

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(render_command)


def render(*arguments: str) -> str:
    """What the command prints; its error is raised."""
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_every_file_shows_the_same_system(tmp_path: Path) -> None:
    """A picture, a FITS and an NPZ file of one call; numbers and pixels of the last two agree."""
    names = [str(tmp_path / f"arc.{suffix}") for suffix in ("png", "fits", "npz")]
    outputs = [part for name in names for part in ("-o", name)]
    printed = render("--theta-e-arcsec", "1.6", "--src-y-arcsec", "-0.15", "--phi-deg", "90", "--seed", "4", *outputs)
    assert all(name in printed for name in names)
    assert "magnification" in printed
    assert imread(names[0]).shape[1] > 1500
    with np.load(names[2], allow_pickle=False) as arrays, fits.open(names[1]) as hdus:
        assert hdus[0].header["THETAE"] == float(arrays["theta_e_arcsec"]) == 1.6
        assert hdus[0].header["SRCY"] == -0.15
        assert hdus[0].header["LENSPHI"] == pytest.approx(np.pi / 2)
        assert hdus[0].header["SEED"] == int(arrays["seed"]) == 4
        for index, band in enumerate(arrays["bands"].tolist()):
            assert (hdus[f"ARC_{band}"].data == arrays["arcs_nmgy"][index]).all()
            noisy = arrays["arcs_nmgy"][index] + arrays["sky_noise_nmgy"][index]
            assert (hdus[f"NOISY_{band}"].data == noisy).all()
            header = hdus[f"ARC_{band}"].header
            assert header["SNRMATCH"] == pytest.approx(float(arrays["arc_snr_matched"][index]))
            assert header["SKYSIG"] == pytest.approx(float(arrays["sigma_nmgy"][index]))
        assert arrays["tangential_arcsec"].shape == arrays["tangential_caustic_arcsec"].shape


def test_the_same_command_writes_the_same_bytes(tmp_path: Path) -> None:
    """Files do not depend on when they are written, noise included."""
    for suffix in ("png", "fits", "npz"):
        one, other = tmp_path / f"one.{suffix}", tmp_path / f"other.{suffix}"
        for path in (one, other):
            render("--seed", "1", "--noise", "--size-px", "32", "-o", str(path))
        assert one.read_bytes() == other.read_bytes()


def test_without_seed_there_is_no_noise(tmp_path: Path) -> None:
    """Only arcs are stored; per-band lists and the PSF are taken as given."""
    name = str(tmp_path / "arc.npz")
    render("--psfsize-arcsec", "1.0,0.9,0.8", "--psf-profile", "gaussian", "-o", name)
    with np.load(name) as arrays:
        assert "sky_noise_nmgy" not in arrays.files
        assert arrays["psf_fwhm_arcsec"].tolist() == [1.0, 0.9, 0.8]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--noise",), ConfigError, "--seed"),
        (("--psfsize-arcsec", "1.3,1.2"), ConfigError, "--psfsize-arcsec '1.3,1.2': expected 3 numbers"),
        (("--depth-mag", "24,x,23"), ConfigError, "--depth-mag"),
        (("--q", "1.2"), ContractError, "lens_q"),
        (("--slope", "3.5"), ContractError, "lens_slope"),
        (("--size-px", "15"), ContractError, "size_px"),
        (("--accuracy", "2"), ContractError, "accuracy"),
        (("--psf-profile", "airy"), ContractError, "airy"),
        (("--moffat-beta", "1"), ContractError, "moffat_beta"),
        (("--seed", "-3"), ContractError, "seed"),
    ],
)
def test_bad_values_are_errors_of_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], error: type[PipelineError], message: str
) -> None:
    """Each names the value, ends with 2 and writes nothing."""
    with pytest.raises(error, match=message) as caught:
        render(*arguments, "-o", str(tmp_path / "arc.npz"))
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_unknown_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """A second output of an unknown kind prevents the first."""
    with pytest.raises(ConfigError, match=r"\.png, \.fits, \.npz"):
        render("-o", str(tmp_path / "arc.npz"), "-o", str(tmp_path / "arc.jpg"))
    assert not list(tmp_path.iterdir())
