"""Numbers that the head sees beside the stamp: the feed's columns, standardised as in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.errors import ContractError
from pipeline.contracts.feed_config import FEATURE_COLUMNS
from pipeline.training.example_index import example_features


@dataclass(frozen=True)
class FeatureSpec:
    """Which columns, and the mean and standard deviation of every number over the training examples.

    Attributes:
        columns: names among FEATURE_COLUMNS.
        mean: one per number; a column per band gives one number per band.
        scale: likewise; 1 where the training examples do not differ.
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def standardised(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(example, number) float32 from the feed's features: mean 0 and variance 1 over the training examples."""
        if values.shape[1] != len(self.mean):
            raise ContractError(f"features {self.columns}: expected {len(self.mean)} numbers, got {values.shape[1]}")
        scaled: NDArray[np.float64] = (values.astype(np.float64) - np.array(self.mean)) / np.array(self.scale)
        return scaled.astype(np.float32)

    def of_rows(self, rows: xr.Dataset) -> NDArray[np.float32]:
        """(sample, number) float32 standardised features of rows of a cube.

        Args:
            rows: the columns, dim `sample`.

        Raises:
            ContractError: a column that is missing, or a value that is not finite.
        """
        missing = [name for name in self.columns if name not in rows]
        if missing:
            raise ContractError(f"the network sees the columns {missing} beside the stamp; the cube does not have them")
        return self.standardised(example_features(rows[list(self.columns)].rename(sample="example"), self.columns))

    def document(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> FeatureSpec:
        """The stored specification; ContractError if it names a column that no network may see."""
        spec = cls(*(tuple(document[name]) for name in ("columns", "mean", "scale")))
        barred = [name for name in spec.columns if name not in FEATURE_COLUMNS]
        if barred:
            raise ContractError(f"a network may see {FEATURE_COLUMNS} beside the stamp, not {barred}")
        return spec


def fit_features(values: NDArray[np.float32], names: Sequence[str]) -> FeatureSpec | None:
    """Mean and scale over the training examples; None without names.

    Args:
        values: (example, number) features of the training split.
        names: their columns.
    """
    if not names:
        return None
    wide = values.astype(np.float64)
    scale = wide.std(axis=0)
    return FeatureSpec(tuple(names), tuple(wide.mean(axis=0).tolist()), tuple(np.where(scale > 0, scale, 1.0).tolist()))
