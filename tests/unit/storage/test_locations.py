"""Locations: URLs made uniform, atomic files, and failures that name what was attempted."""

from __future__ import annotations

import hashlib
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from pipeline.contracts.config import RunSection
from pipeline.contracts.errors import ConfigError, StorageError
from pipeline.storage.locations import Location, RunLayout, storage_errors


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """The operating system refuses to let any file of this process grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("s3a://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
        ("https://host/x/", "https://host/x"),
        ("file:///srv/x", "file:///srv/x"),
        ("/srv/x//", "file:///srv/x"),
    ],
)
def test_urls_are_made_uniform(written: str, url: str) -> None:
    """s3a is s3, a path is a file URL, and trailing slashes go."""
    location = Location(written, region="us-east-2")
    assert location.url == url
    assert location == Location(url, region="us-east-2")


def test_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is resolved where the process is, once."""
    monkeypatch.chdir(tmp_path)
    location = Location("runs")
    monkeypatch.chdir("/")
    assert location.url == f"file://{tmp_path}/runs"


def test_root_folder_is_the_root_folder() -> None:
    """`/` and `file:///` are the root of the file system, not the working folder."""
    assert Location("/").path == "/"
    assert Location("file:///").path == "/"


@pytest.mark.parametrize("url", ["s3://", "s3a://", "", "s3:///key"])
def test_url_without_bucket_or_path_is_refused(url: str) -> None:
    """A URL that names nothing is an error, not the working folder."""
    with pytest.raises(ConfigError):
        Location(url, region="us-east-2")


@pytest.mark.parametrize("url", ["gs://b/x", "S3://b/x", "hdfs://x", "memory://x"])
def test_unknown_scheme_is_refused(url: str) -> None:
    """Schemes other than file, s3, s3a, http and https are errors that say so."""
    with pytest.raises(ConfigError, match="expected file://"):
        Location(url, region="us-east-2")


@pytest.mark.parametrize("region", [None, ""])
def test_s3_without_region_is_refused(region: str | None) -> None:
    """An S3 location needs a region however it is written."""
    with pytest.raises(ConfigError, match="needs a region"):
        Location("s3a://bucket/x", region=region)


def test_join_keeps_region_and_endpoint() -> None:
    """A location below another is reached the same way."""
    below = Location("s3://b/x", "us-east-2", "http://localhost:1").join("y", "z.json")
    assert below == Location("s3://b/x/y/z.json", "us-east-2", "http://localhost:1")
    assert below.path == "b/x/y/z.json"


def test_s3_filesystem_gets_region_endpoint_and_no_listing_cache() -> None:
    """Region and endpoint reach the client, and listings are always fresh."""
    filesystem = Location("s3://b/x", "eu-west-1", "http://localhost:1").filesystem
    assert filesystem.client_kwargs == {"region_name": "eu-west-1", "endpoint_url": "http://localhost:1"}
    assert not filesystem.dircache.use_listings_cache


def test_file_round_trip(tmp_path: Path) -> None:
    """Written bytes are read back, folders are made, and sizes and names are relative."""
    root = Location(str(tmp_path / "a"))
    assert not root.exists()
    assert (root.names(), root.sizes()) == ([], {})
    root.join("b", "c.bin").write_bytes(b"12345")
    root.join("d.bin").write_bytes(b"")
    assert root.join("b", "c.bin").read_bytes() == b"12345"
    assert root.names() == ["b", "d.bin"]
    assert root.sizes() == {"b/c.bin": 5, "d.bin": 0}
    assert root.join("b").sizes() == {"c.bin": 5}


def test_remove_of_an_absent_file_is_no_error(tmp_path: Path) -> None:
    """Removing twice is removing once."""
    file = Location(str(tmp_path / "x"))
    file.write_bytes(b"1")
    file.remove()
    file.remove()
    assert not file.exists()


def test_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path: Path) -> None:
    """When the disk refuses the new content, the old one stays and nothing else lies around."""
    file = Location(str(tmp_path / "state.json"))
    file.write_bytes(b"old")
    with file_size_limit(1000), pytest.raises(StorageError, match=rf"cannot write {file.url}: OSError"):
        file.write_bytes(b"n" * 5000)
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_failed_first_write_leaves_no_file(tmp_path: Path) -> None:
    """A refused new file does not exist afterwards."""
    with file_size_limit(1000), pytest.raises(StorageError):
        Location(str(tmp_path / "new")).write_bytes(b"n" * 5000)
    assert list(tmp_path.iterdir()) == []


def test_readers_see_whole_files_while_they_are_replaced(tmp_path: Path) -> None:
    """A file that is replaced again and again is never seen absent, empty or in part."""
    file = Location(str(tmp_path / "x"))
    contents = {bytes([value]) * 100_000 for value in (1, 2)}
    file.write_bytes(min(contents))

    def replace_often() -> None:
        for _ in range(40):
            for content in contents:
                file.write_bytes(content)

    writer = threading.Thread(target=replace_often)
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(file.read_bytes())
    writer.join()
    assert seen
    assert set(seen) <= contents


def test_failures_name_url_and_cause(tmp_path: Path) -> None:
    """Every failing operation says what was attempted, where, and why."""
    absent = Location(str(tmp_path / "absent"))
    with pytest.raises(StorageError, match=rf"cannot read {absent.url}: FileNotFoundError"):
        absent.read_bytes()
    (tmp_path / "file").write_bytes(b"")
    below_file = Location(str(tmp_path / "file" / "x"))
    with pytest.raises(StorageError, match=rf"cannot write {below_file.url}"):
        below_file.write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="cannot delete"):
        Location(str(tmp_path / "folder")).remove()
    with pytest.raises(StorageError, match="cannot write"):
        Location(str(tmp_path / "folder")).write_bytes(b"1")


def test_unreachable_s3_is_a_storage_error() -> None:
    """A closed S3 endpoint becomes a StorageError with the URL."""
    failure = EndpointConnectionError(endpoint_url="http://localhost:1")
    with (
        pytest.raises(StorageError, match="cannot read s3://b/x: EndpointConnectionError"),
        storage_errors("read s3://b/x"),
    ):
        raise failure


def test_programming_errors_are_not_storage_errors() -> None:
    """A TypeError passes through unchanged."""
    with pytest.raises(TypeError), storage_errors("read"):
        len(3)  # type: ignore[arg-type]


def test_run_layout_lies_below_root_and_name() -> None:
    """Every location of a run is distinct and below root/name, reached with the run's region."""
    section = RunSection(name="r1", root="s3a://bucket/runs/", region="us-east-2", seed=1)
    layout = RunLayout.of(section)
    names = ("record", "config", "plan", "pilot", "gates", "training", "report", "diagnostics", "success")
    locations = [getattr(layout, name) for name in names]
    locations += [layout.cube("cutouts"), layout.receipts("cutouts"), layout.cube("training_cube")]
    assert len({location.url for location in locations}) == len(locations)
    assert all(location.url.startswith("s3://bucket/runs/r1/") for location in locations)
    assert {location.region for location in locations} == {"us-east-2"}


def test_cutouts_of_another_run_are_reached_like_the_run() -> None:
    """Only the cube and receipts of the cutouts lie in the other run, with the region and endpoint of this one."""
    root = Location("s3://bucket/runs/r1", "us-east-2", "http://localhost:1")
    layout = RunLayout.at(root, "s3://bucket/runs/r0")
    assert layout.cube("cutouts") == Location("s3://bucket/runs/r0/cubes/cutouts", "us-east-2", "http://localhost:1")
    assert layout.cube("training").url == "s3://bucket/runs/r1/cubes/training"
    assert RunLayout.at(root, None) == RunLayout(root)


def test_trainer_and_training_cube_do_not_share_a_folder() -> None:
    """The cube named training and the trainer's output must not overwrite each other's marker."""
    layout = RunLayout(Location("/runs/x"))
    assert layout.training != layout.cube("training")


def test_files_of_any_size_are_put_whole_and_hashed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload replaces the file and leaves no part of one; the digest is that of the content."""
    monkeypatch.setattr("pipeline.storage.locations._DIGEST_BLOCK_BYTES", 3)
    local, place = tmp_path / "local", Location(str(tmp_path / "far" / "x.bin"))
    for content in (b"first", b"second, longer"):
        local.write_bytes(content)
        place.upload(local)
        assert place.read_bytes() == content
        assert place.sha256() == hashlib.sha256(content).hexdigest()
    assert Location(str(tmp_path / "far")).names() == ["x.bin"]
    with pytest.raises(StorageError, match="cannot write"):
        place.upload(tmp_path / "absent")
