"""The four grids of injection parameters of the EMR system."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.contracts.emr_manifest import CONFIG_NUMBERS
from pipeline.contracts.errors import ConfigError

# theta_E [arcsec], source minus host magnitude [mag], effective radius [arcsec], source ellipticity, shear.
_AXES: dict[str, tuple[tuple[float, ...], ...]] = {
    "grid_small": ((0.3, 0.6, 1.0), (1.0, 2.0), (0.08, 0.15), (0.0, 0.3), (0.0, 0.03)),
    "grid_medium": (
        (0.25, 0.35, 0.5, 0.8, 1.2),
        (0.5, 1.0, 1.5, 2.0),
        (0.05, 0.1, 0.2),
        (0.0, 0.2, 0.4),
        (0.0, 0.03),
    ),
    "grid_full": (
        (0.2, 0.25, 0.3, 0.4, 0.6, 0.8, 1.2, 1.6),
        (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5),
        (0.04, 0.06, 0.08, 0.12, 0.18, 0.25),
        (0.0, 0.2, 0.4),
        (0.0, 0.02, 0.04),
    ),
    "grid_sota": (
        (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5),
        (0.5, 1.0, 1.5, 2.0),
        (0.06, 0.1, 0.15, 0.2),
        (0.0, 0.2, 0.4),
        (0.0, 0.02, 0.04),
    ),
}
GRID_NAMES = tuple(_AXES)


@dataclass(frozen=True)
class InjectionGrid:
    """A grid in the order of its config_id, which is also that of nested loops over the axes.

    Attributes:
        config_ids: names of the entries.
        numbers: the CONFIG_NUMBERS, each (entry,) float64: arcsec, mag, arcsec, 1, 1.
    """

    config_ids: tuple[str, ...]
    numbers: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.config_ids)


@cache
def injection_grid(name: str) -> InjectionGrid:
    """The grid of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in _AXES:
        raise ConfigError(f"grid {name!r}: expected one of {', '.join(GRID_NAMES)}")
    entries = list(itertools.product(*_AXES[name]))
    config_ids = tuple(
        f"{name}_{number:04d}_te{theta:g}_dm{dmag:g}_rf{reff:g}_e{ellipticity:g}_sh{shear:g}"
        for number, (theta, dmag, reff, ellipticity, shear) in enumerate(entries, start=1)
    )
    values = np.array(entries, dtype=np.float64)
    return InjectionGrid(config_ids, {column: values[:, i] for i, column in enumerate(CONFIG_NUMBERS)})
