"""What a worker reads once for injection: the source bank and measured PSFs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import BrickError
from pipeline.contracts.source_bank import SourceBank
from pipeline.stages.arcs import InjectionAssets
from pipeline.storage.locations import Location
from pipeline.storage.psf_stamps import read_psf_stamps
from pipeline.storage.source_bank import read_bank


def read_assets(config: RunConfig, bricknames: Sequence[str]) -> tuple[InjectionAssets, list[str]]:
    """Assets of the hosts in some bricks, and notes about PSF files that could not be used.

    Raises:
        ContractError: the bank breaks its contract.
        StorageError: the bank cannot be reached.
    """
    run, source, psf = config.run, config.injection.source, config.injection.psf
    bank = _bank(Location(source.url, run.region, run.endpoint_url)) if source.kind == "bank" else None
    stamps: dict[str, NDArray[np.float64]] = {}
    notes: list[str] = []
    if psf.stamps is not None:
        for brickname in sorted(set(bricknames)) if "{brickname}" in psf.stamps else [""]:
            try:
                stamps[brickname] = _psf_stamps(
                    psf.stamps, run.region, run.endpoint_url, brickname, config.survey.bands
                )
            except BrickError as error:
                notes.append(str(error))
    return InjectionAssets(bank, stamps), notes


@lru_cache(maxsize=1)
def _bank(location: Location) -> SourceBank:
    return read_bank(location)


@lru_cache(maxsize=64)
def _psf_stamps(
    template: str, region: str | None, endpoint_url: str | None, brickname: str, bands: tuple[str, ...]
) -> NDArray[np.float64]:
    return read_psf_stamps(template, region, endpoint_url, brickname, bands)
