"""NetworkSpec: what an exported network says about itself, and the names of its input and output.

The file is ONNX with the normalisation inside the graph: `stamps` (stamp, band, y, x) float32 [nmgy] in, `logit`
(stamp) float32 out. A network that sees numbers beside the stamp has the input `features` (stamp, number) float32 too,
as the cube's columns give them. A stamp that cannot be normalised, because a pixel is not finite or a band has no noise
in the annulus, has the logit NaN, and so has one with a feature that is not finite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from pipeline.contracts.errors import ContractError
from pipeline.contracts.feed_config import FeatureColumn
from pipeline.contracts.priors import Positive, Section
from pipeline.contracts.training_config import PreprocessSection

NETWORK_FILE = "network.onnx"
INPUT_NAME = "stamps"
FEATURES_NAME = "features"
OUTPUT_NAME = "logit"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class NetworkSpec(Section):
    """Metadata of an exported network; every value is stored as JSON under its own name."""

    format_version: Literal[1] = 1
    model: Annotated[str, Field(min_length=1)] = Field(description="name of the architecture")
    bands: Annotated[tuple[str, ...], Field(min_length=1)] = Field(description="bands of a stamp in order")
    stamp_size_px: Annotated[int, Field(ge=16)]
    pixel_scale_arcsec: Positive
    features: tuple[FeatureColumn, ...] = Field(description="columns that the network sees beside the stamp, in order")
    preprocess: PreprocessSection = Field(description="normalisation that is part of the graph")
    preprocess_sha256: Sha256
    checkpoint_sha256: Sha256 = Field(description="digest of the checkpoint file that was exported")
    batch_size: Annotated[int, Field(ge=1)] = Field(
        description="stamps of a call; at this size a logit was found not to depend on its neighbours"
    )
    code_version: str

    def properties(self) -> dict[str, str]:
        """The metadata properties of the file."""
        return {name: json.dumps(value, sort_keys=True) for name, value in self.model_dump(mode="json").items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], where: str) -> NetworkSpec:
        """Read the metadata of a file.

        Args:
            properties: its metadata properties; those of other programs are passed over.
            where: names the file in errors.

        Raises:
            ContractError: one is missing or wrong, or the preprocess hash is not that of the preprocess spec.
        """
        try:
            known = {name: json.loads(text) for name, text in properties.items() if name in cls.model_fields}
            spec = cls.model_validate(known)
        except (ValueError, ValidationError) as error:
            raise ContractError(f"{where} is not an exported network of this version: {error}") from error
        if spec.preprocess_sha256 != spec.preprocess.sha256():
            raise ContractError(
                f"{where}: preprocess_sha256 {spec.preprocess_sha256} is not that of {spec.preprocess!r}"
            )
        return spec

    def require_stamps(self, bands: tuple[str, ...], stamp_size_px: int, pixel_scale_arcsec: float, where: str) -> None:
        """Refuse stamps of another kind than the network was trained on.

        Raises:
            ContractError: other bands, another order of them, another size or pixel scale; names both.
        """
        expected = (self.bands, self.stamp_size_px, self.pixel_scale_arcsec)
        got = (tuple(bands), stamp_size_px, pixel_scale_arcsec)
        if got != expected:
            raise ContractError(
                f"{where}: the network expects bands {','.join(expected[0])}, {expected[1]} px, {expected[2]} arcsec a "
                f"pixel; got {','.join(got[0])}, {got[1]} px, {got[2]} arcsec"
            )
