"""What an exported network says about itself: stored, read, and compared with stamps."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.contracts.errors import ContractError
from pipeline.contracts.network_file import NetworkSpec
from pipeline.contracts.training_config import PreprocessSection

PREPROCESS = PreprocessSection(annulus_px=(18.0, 30.0), clip=5.0)


def spec(**changes: Any) -> NetworkSpec:
    """A network of three bands."""
    content = {
        "model": "LensResNet", "bands": ("g", "r", "z"), "stamp_size_px": 64, "pixel_scale_arcsec": 0.262,
        "features": (), "preprocess": PREPROCESS, "preprocess_sha256": PREPROCESS.sha256(),
        "checkpoint_sha256": "a" * 64,
        "batch_size": 32, "code_version": "1",
    }  # fmt: skip
    return NetworkSpec(**(content | changes))


def test_metadata_survive_the_file() -> None:
    """Properties are texts; foreign ones are passed over."""
    properties = spec().properties()
    assert all(isinstance(text, str) for text in properties.values())
    assert NetworkSpec.from_properties(properties | {"producer": "another program"}, "n") == spec()


def test_missing_or_changed_metadata_are_refused() -> None:
    """A file without them, of another version, or whose normalisation is not what its hash says."""
    properties = spec().properties()
    for wrong in ({}, properties | {"format_version": "2"}, properties | {"bands": "no JSON"}):
        with pytest.raises(ContractError, match="n is not an exported network"):
            NetworkSpec.from_properties(wrong, "n")
    other = spec(preprocess=PreprocessSection(clip=4.0)).properties()
    with pytest.raises(ContractError, match="is not that of"):
        NetworkSpec.from_properties(other, "n")


@pytest.mark.parametrize(
    ("bands", "size", "scale"), [(("r", "g", "z"), 64, 0.262), (("g", "r", "z"), 60, 0.262), (("g", "r", "z"), 64, 0.3)]
)
def test_other_stamps_are_refused_with_both_kinds_named(bands: tuple[str, ...], size: int, scale: float) -> None:
    """Order of bands, size and pixel scale must be those of the training."""
    spec().require_stamps(("g", "r", "z"), 64, 0.262, "survey")
    with pytest.raises(ContractError, match=f"expects bands g,r,z, 64 px.*got {','.join(bands)}, {size} px, {scale}"):
        spec().require_stamps(bands, size, scale, "survey")
