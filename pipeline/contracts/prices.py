"""Prices and published figures that a cost estimate rests on, each with its source; all can be overridden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pipeline.contracts.priors import Positive, Section

NonNegative = Annotated[float, Field(ge=0.0)]


class Prices(Section):
    """US dollars in us-east-2, entered by hand from the public price lists; look them up anew before a budget.

    Not in here: disks of the nodes, logs, taxes. Traffic between S3 and EC2 of one region is free.
    """

    as_of: str = "list prices of 2025"
    source: str = "aws.amazon.com/ec2/pricing, /s3/pricing, /eks/pricing, /emr/pricing; spot: a typical value"
    node_type: str = "m5.2xlarge"
    node_vcpu: Annotated[int, Field(ge=1)] = 8
    node_network_gbit_per_s: Positive = 2.5
    node_on_demand_usd_per_h: Positive = 0.384
    node_spot_usd_per_h: Positive = 0.16
    driver_usd_per_h: NonNegative = 0.192
    eks_usd_per_h: NonNegative = 0.10
    emr_fee_usd_per_node_h: NonNegative = 0.096
    s3_put_usd_per_1000: NonNegative = 0.005
    s3_get_usd_per_1000: NonNegative = 0.0004
    s3_storage_usd_per_gb_month: NonNegative = 0.023


class MeasuredRates(Section):
    """What one stamp and one brick cost, as measured; nothing here has a default.

    Attributes:
        source: command, machine and date of the measurement.
        mode: injection.mode it was measured in.
        rows_per_brick: stamps cut out of each brick. The rates per stamp hold near this number.
        cutouts_core_s: CPU time per stamp of the cutouts stage: reading, decoding, measuring, storing.
        injection_core_s: CPU time per stamp of the injection stage: reading cutouts, rendering, SNR, storing.
        read_bytes_per_brick: bytes fetched from a brick's files.
        requests_per_brick: range requests for them.
    """

    source: Annotated[str, Field(min_length=1)]
    mode: str
    rows_per_brick: Positive
    cutouts_core_s: Positive
    injection_core_s: Positive
    read_bytes_per_brick: Positive
    requests_per_brick: Positive

    @property
    def stamps_per_core_s(self) -> float:
        """Stamps per second and core through both stages."""
        return 1.0 / (self.cutouts_core_s + self.injection_core_s)


@dataclass(frozen=True)
class EmrRun:
    """A run of the EMR system as its own documents report it, and what follows from its design."""

    n_stamps: int
    n_bricks: int
    vcpu: int
    nodes: int
    wall_h: float
    stored_bytes: float
    files: int
    files_per_brick: int
    brick_bytes: float
    passes: int


# Stage 4c of Gen5 with COSMOS sources, cluster j-5Z6LYAOSMAUU: 2 h 25 min on 34 m5.2xlarge, 489.99 GB in 3,604 files.
# Seven files of a brick were read whole, and all of it twice, because two Spark actions evaluated an uncached RDD.
GEN5 = EmrRun(
    n_stamps=11_750_000,
    n_bricks=133_163,
    vcpu=272,
    nodes=34,
    wall_h=2 + 25 / 60,
    stored_bytes=489.99e9,
    files=3604,
    files_per_brick=7,
    brick_bytes=73.6e6,
    passes=2,
)
