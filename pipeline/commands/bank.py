"""`dhs bank`: make a bank of source galaxies, and look at one before it is used."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated

import typer

from pipeline.contracts.errors import ConfigError, GateError
from pipeline.contracts.source_bank import BankLimits, SourceBank
from pipeline.driver.provenance import code_version
from pipeline.report.bank_sheet import quality_numbers, summary_text, write_bank_sheet
from pipeline.stages.source_bank import assemble_bank, make_template
from pipeline.stages.template_quality import BankQuality, judge_bank
from pipeline.storage.galaxy_catalogue import open_galaxy_catalogue
from pipeline.storage.locations import Location
from pipeline.storage.source_bank import bank_stamps, read_bank, write_bank

app = typer.Typer(no_args_is_help=True, help="Make and inspect banks of galaxies that are lensed as sources.")

_DEFAULTS = BankLimits()

Region = Annotated[str | None, typer.Option(help="AWS region of an s3:// URL")]
Endpoint = Annotated[str | None, typer.Option("--endpoint-url", help="S3 endpoint other than AWS")]


@app.command("build")
def bank_build_command(
    output: Annotated[str, typer.Option("--output", "-o", metavar="BANK", help="HDF5 file to write")],
    fits_catalogue: Annotated[str | None, typer.Option(help="GalSim galaxy catalogue, a FITS table")] = None,
    images: Annotated[str | None, typer.Option(help="its galaxy stamps: folder, or the one FITS file")] = None,
    psfs: Annotated[str | None, typer.Option(help="its PSF stamps: folder, or the one FITS file")] = None,
    photometry: Annotated[str | None, typer.Option(help="FITS table with IDENT and ZPHOT")] = None,
    hdf5: Annotated[
        str | None, typer.Option(help="instead of a catalogue: a bank to clean, such as an EMR one")
    ] = None,
    pixscale: Annotated[float | None, typer.Option(help="pixel scale that the stamps must have [arcsec]")] = None,
    stamp_size: Annotated[int, typer.Option(help="side of a template [px]")] = _DEFAULTS.stamp_size_px,
    psf_fwhm: Annotated[float | None, typer.Option(help="smooth all templates to this FWHM [arcsec]")] = None,
    min_snr: Annotated[float, typer.Option(help="smallest SNR of a galaxy")] = _DEFAULTS.min_snr,
    min_hlr: Annotated[float, typer.Option(help="[arcsec]")] = _DEFAULTS.hlr_range_arcsec[0],
    max_hlr: Annotated[float, typer.Option(help="[arcsec]")] = _DEFAULTS.hlr_range_arcsec[1],
    only_usable: Annotated[
        bool, typer.Option("--only-usable", help="leave rejected galaxies out, for readers that ignore meta/usable")
    ] = False,
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Turn galaxy stamps into a bank of templates.

    Reads a GalSim catalogue with its images, or an existing HDF5 bank. Subtracts each stamp's background, keeps the
    galaxy alone, judges it. Writes BANK.
    """
    limits = BankLimits(
        stamp_size_px=stamp_size,
        min_snr=min_snr,
        hlr_range_arcsec=(min_hlr, max_hlr),
        common_psf_fwhm_arcsec=psf_fwhm,
    )

    def place(url: str) -> Location:
        return Location(url, region, endpoint_url)

    if hdf5 is not None and (fits_catalogue or images or psfs or photometry):
        raise ConfigError("expected --hdf5 or --fits-catalogue with --images and --psfs, got both")
    if hdf5 is not None:
        bank = _cleaned(place(hdf5), limits, pixscale, only_usable)
    elif fits_catalogue and images and psfs:
        bank = _from_catalogue(
            (place(fits_catalogue), place(images), place(psfs)),
            place(photometry) if photometry else None,
            limits,
            pixscale,
            only_usable,
        )
    else:
        raise ConfigError("expected --fits-catalogue, --images and --psfs, or --hdf5")
    quality = judge_bank(bank)
    typer.echo(summary_text(quality_numbers(bank, quality)))
    _demand_galaxies(output, quality)
    target = place(output)
    write_bank(target, bank, code_version())
    typer.echo(target.url)


@app.command("inspect")
def bank_inspect_command(
    bank_url: Annotated[str, typer.Argument(metavar="BANK", help="HDF5 file of a bank")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="folder of the sheet")],
    region: Region = None,
    endpoint_url: Endpoint = None,
) -> None:
    """Say what a bank holds, and end with exit code 3 if its templates are noise pedestals rather than galaxies.

    Reads BANK. Writes FOLDER/contact_sheet.png, FOLDER/quality.json and FOLDER/index.html.
    """
    bank = read_bank(Location(bank_url, region, endpoint_url))
    quality = judge_bank(bank)
    page = write_bank_sheet(Location(output, region, endpoint_url), bank, quality)
    typer.echo(summary_text(quality_numbers(bank, quality)))
    typer.echo(page.url)
    _demand_galaxies(bank_url, quality)


def _from_catalogue(
    files: tuple[Location, Location, Location],
    photometry: Location | None,
    limits: BankLimits,
    pixel_scale_arcsec: float | None,
    only_usable: bool,
) -> SourceBank:
    catalogue = open_galaxy_catalogue(*files, photometry, pixel_scale_arcsec)
    scale = catalogue.pixel_scale_arcsec
    templates = [make_template(stamp, scale, limits) for stamp in catalogue.stamps()]
    kind = " ".join(("observed", *catalogue.bands))
    return assemble_bank(templates, scale, kind, catalogue.source, _now(), only_usable)


def _cleaned(location: Location, limits: BankLimits, pixel_scale_arcsec: float | None, only_usable: bool) -> SourceBank:
    bank = read_bank(location)
    scale = bank.pixel_scale_arcsec
    if pixel_scale_arcsec is not None and abs(pixel_scale_arcsec / scale - 1.0) > 1e-4:
        raise ConfigError(f"--pixscale {pixel_scale_arcsec}: the bank has {scale} arcsec; templates are not resampled")
    templates = [make_template(stamp, scale, limits) for stamp in bank_stamps(bank)]
    source = f"{location.url.rsplit('/', 1)[-1]} digest {bank.digest} ({bank.source})"
    return assemble_bank(templates, scale, bank.galaxy_kind, source, _now(), only_usable)


def _demand_galaxies(name: str, quality: BankQuality) -> None:
    if not quality.n_usable:
        reasons = {reason: count for reason, count in quality.n_by_reason.items() if count}
        raise GateError(f"{name}: no usable template among {quality.n_templates}: {json.dumps(reasons)}")
    if quality.is_pedestal_dominated:
        raise GateError(f"{name}: {quality.message}")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
