"""What a preflight check is, and the checks that every kind of run shares: buckets, regions, compiled kernels."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipeline.contracts.config import RunConfig
from pipeline.contracts.errors import ConfigError, StorageError
from pipeline.kernels.compiled import use_compiled_cache
from pipeline.storage.locations import Location

REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_AWS = Config(connect_timeout=10, read_timeout=20, retries={"max_attempts": 2, "mode": "standard"})


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was looked at.
        state: failed ends the run; unknown could not be looked at, and the detail says why.
        detail: what was found, and if it failed what to do.
    """

    name: str
    state: Literal["ok", "failed", "unknown"]
    detail: str


def passed(name: str, is_good: bool, good: str, bad: str) -> Check:
    """A check with one of two details."""
    return Check(name, "ok", good) if is_good else Check(name, "failed", bad)


def unknown(name: str, reason: str) -> Check:
    """A check that could not be made."""
    return Check(name, "unknown", f"not checkable: {reason}")


def aws_client(service: str, region: str | None, endpoint_url: str | None = None) -> Any:
    """A botocore client that does not wait long."""
    return botocore.session.get_session().create_client(
        service, region_name=region, endpoint_url=endpoint_url, config=_AWS
    )


def check_storage(config: RunConfig) -> Iterator[Check]:
    """Regions and rights of every bucket and folder that the run uses."""
    run = config.run
    inputs = [Location(url, run.region, run.endpoint_url) for url in _inputs(config)]
    root = Location(run.root, run.region, run.endpoint_url)
    buckets = sorted({place.path.split("/")[0] for place in (*inputs, root) if place.scheme == "s3"})
    for bucket in buckets:
        yield _check_bucket(bucket, config)
    for place in inputs:
        if place.scheme in ("s3", "file"):
            yield _check_readable(place)
    yield _check_writable(root)


def check_kernel_folder() -> Check:
    """The folder of compiled kernels can be written."""
    try:
        return Check("numba cache", "ok", str(use_compiled_cache()))
    except ConfigError as error:
        return Check("numba cache", "failed", str(error))


def check_region_variables(config: RunConfig) -> Iterator[Check]:
    """The pod's region is the configuration's, never a default."""
    if config.run.region is None:
        # Accepted by the configuration only where none of its URLs is on S3.
        yield Check("region", "ok", "nothing of this run lies on S3")
        return
    for name in REGION_VARIABLES:
        found = os.environ.get(name)
        yield passed(name, found == config.run.region, str(found), f"expected {config.run.region}, found {found}")


def _inputs(config: RunConfig) -> list[str]:
    source, psf = config.injection.source, config.injection.psf
    found = [config.survey.bricks, config.manifest.url, *config.manifest.also, config.run.cutouts_from, psf.stamps]
    found.append(source.url if source.kind == "bank" else None)
    found.append(config.anchors.url if config.anchors is not None else None)
    return list(dict.fromkeys(url for url in found if url))


def _check_bucket(bucket: str, config: RunConfig) -> Check:
    name, wanted = f"bucket {bucket}", config.run.region
    try:
        answer = aws_client("s3", wanted, config.run.endpoint_url).head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        if status != 301:
            return Check(name, "failed", f"HeadBucket: {status} {answer.get('Error', {}).get('Message', '')}".strip())
    except BotoCoreError as error:
        return Check(name, "failed", f"HeadBucket: {error}")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    region = answer.get("BucketRegion") or headers.get("x-amz-bucket-region")
    if region is None:
        return unknown(name, f"{config.run.endpoint_url or 'the server'} names no region")
    return passed(name, region == wanted, f"in {region}", f"is in {region}, the configuration says {wanted}")


def _check_readable(place: Location) -> Check:
    try:
        found = place.exists()
    except StorageError as error:
        return Check("read", "failed", str(error))
    return passed("read", found, place.url, f"{place.url} does not exist, or may not be listed")


def _check_writable(root: Location) -> Check:
    probe, content = root.join(f".preflight-{uuid.uuid4().hex}"), b"darkhaloscope"
    try:
        probe.write_bytes(content)
        same = probe.read_bytes() == content
        probe.remove()
    except StorageError as error:
        return Check("write", "failed", str(error))
    return passed("write", same, root.url, f"{root.url}: what was written is not what is read")
