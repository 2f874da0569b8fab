"""Where bytes live: one URL type, one filesystem factory, and the layout of a run.

`s3a://` means `s3://`; a path without scheme is a local folder. Credentials come from the
environment (AWS_ACCESS_KEY_ID or the pod's role), never from configuration.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import fsspec
from botocore.exceptions import BotoCoreError, ClientError
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from pipeline.contracts.config import RunSection
from pipeline.contracts.errors import ConfigError, StorageError

STORAGE_FAILURES = (OSError, BotoCoreError, ClientError, aiohttp.ClientError)

# A batch of tile ranges is some hundred requests; botocore's default of 10 connections would queue them.
_S3_CONNECTIONS = 64
_DIGEST_BLOCK_BYTES = 2**22
_PARTIAL_SUFFIX = ".partial"


@dataclass(frozen=True)
class Location:
    """A file or folder at a URL, with the region and endpoint that reach it.

    Raises:
        ConfigError: unknown scheme, or an S3 URL without region.
        StorageError: from every method that touches bytes and fails.
    """

    url: str
    region: str | None = None
    endpoint_url: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", _normalise(self.url))
        if self.scheme == "s3" and not self.region:
            raise ConfigError(f"{self.url}: an S3 location needs a region")

    @property
    def scheme(self) -> str:
        """`file`, `s3` or `https`."""
        return self.url.partition("://")[0]

    @property
    def path(self) -> str:
        """The URL as its filesystem wants it."""
        return self.url if self.scheme in ("http", "https") else self.url.partition("://")[2]

    @property
    def filesystem(self) -> fsspec.AbstractFileSystem:
        """The fsspec filesystem of this location; instances are shared by fsspec."""
        return fsspec.filesystem(self.scheme, **self._options())

    def join(self, *parts: str) -> Location:
        """The location below this one."""
        return replace(self, url="/".join((self.url, *parts)))

    def exists(self) -> bool:
        """True if a file or folder is there."""
        with storage_errors(f"look up {self.url}"):
            return bool(self.filesystem.exists(self.path))

    def read_bytes(self) -> bytes:
        """The whole file."""
        with storage_errors(f"read {self.url}"):
            return bytes(self.filesystem.cat_file(self.path))

    def write_bytes(self, data: bytes) -> None:
        """Replace the file as a whole; a reader sees the old or the new content, never a part."""
        with storage_errors(f"write {self.url}"):
            if self.scheme == "file":
                _replace_file(Path(self.path), data)
            else:
                self.filesystem.pipe_file(self.path, data)

    def upload(self, local: Path) -> None:
        """Replace the file by a local one of any size; a reader sees the old or the new content, never a part."""
        with storage_errors(f"write {self.url}"):
            if self.scheme == "file":
                _replace_file_by(Path(self.path), local)
            else:
                self.filesystem.put_file(str(local), self.path)

    def sha256(self) -> str:
        """Digest of the file, read block by block."""
        with storage_errors(f"read {self.url}"), self.filesystem.open(self.path, "rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(_DIGEST_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def remove(self) -> None:
        """Delete the file; nothing happens if it is not there."""
        with storage_errors(f"delete {self.url}"):
            if self.filesystem.exists(self.path):
                self.filesystem.rm_file(self.path)

    def remove_partial_files(self) -> None:
        """Delete what interrupted local writes left below this folder."""
        for name in self.sizes():
            if name.endswith(_PARTIAL_SUFFIX):
                self.join(name).remove()

    def names(self) -> list[str]:
        """Sorted names directly inside this folder; empty if it does not exist."""
        with storage_errors(f"list {self.url}"):
            if not self.filesystem.exists(self.path):
                return []
            entries = self.filesystem.ls(self.path, detail=False)
        return sorted({str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries})

    def size(self) -> int:
        """Size of the file in bytes; 0 if it is not there."""
        with storage_errors(f"look up {self.url}"):
            try:
                return int(self.filesystem.info(self.path)["size"])
            except FileNotFoundError:
                return 0

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the file."""
        with storage_errors(f"read {self.url}"):
            return bytes(self.filesystem.cat_file(self.path, start=start, end=stop))

    def etag(self) -> str | None:
        """The server's entity tag, which changes with the content; None where there is none."""
        with storage_errors(f"look up {self.url}"):
            info = self.filesystem.info(self.path)
        found = info.get("ETag") or info.get("etag")
        return str(found) if found else None

    def sizes(self) -> dict[str, int]:
        """Relative path to size in bytes of every file below this folder; empty if there is none."""
        with storage_errors(f"list {self.url}"):
            if not self.filesystem.exists(self.path):
                return {}
            found = self.filesystem.find(self.path, detail=True)
        prefix = len(self.path.rstrip("/")) + 1
        return {str(name)[prefix:]: int(info["size"]) for name, info in sorted(found.items())}

    def versions(self) -> dict[str, str]:
        """Relative path to size and entity tag, or time of change, of every file below this folder."""
        with storage_errors(f"list {self.url}"):
            found = self.filesystem.find(self.path, detail=True) if self.filesystem.exists(self.path) else {}
        prefix = len(self.path.rstrip("/")) + 1
        return {str(name)[prefix:]: _version(info) for name, info in sorted(found.items())}

    def zarr_store(self) -> Store:
        """A zarr store rooted here."""
        if self.scheme == "file":
            return LocalStore(self.path)
        return FsspecStore.from_url(self.url, storage_options=self._options())

    def _options(self) -> dict[str, object]:
        if self.scheme != "s3":
            return {}
        client = {"region_name": self.region}
        if self.endpoint_url:
            client["endpoint_url"] = self.endpoint_url
        return {
            "client_kwargs": client,
            "use_listings_cache": False,
            "config_kwargs": {"max_pool_connections": _S3_CONNECTIONS},
        }


CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class RunLayout:
    """Every location of one run, below `root`/`name`; its cutouts may be those of another run."""

    root: Location
    cutouts_root: Location | None = None

    @classmethod
    def of(cls, run: RunSection) -> RunLayout:
        """The layout of the run that a configuration names."""
        return cls.at(Location(run.root, run.region, run.endpoint_url).join(run.name), run.cutouts_from)

    @classmethod
    def at(cls, root: Location, cutouts_from: str | None) -> RunLayout:
        """The layout of the run in a folder; `cutouts_from` is the folder of the run that holds its cutouts."""
        return cls(root, Location(cutouts_from, root.region, root.endpoint_url) if cutouts_from else None)

    @property
    def record(self) -> Location:
        """State, counts and provenance of the run."""
        return self.root.join("run.json")

    @property
    def config(self) -> Location:
        """The resolved configuration."""
        return self.root.join("config.yaml")

    @property
    def plan(self) -> Location:
        """The frozen shard table."""
        return self.root.join("plan.json")

    @property
    def pilot(self) -> Location:
        """The pilot's SNR density and acceptance estimate."""
        return self.root.join("pilot.json")

    @property
    def sampling(self) -> Location:
        """What the sampler did: acceptance, weights, distance from the target, cost."""
        return self.root.join("sampling.json")

    @property
    def gates(self) -> Location:
        """Gate results."""
        return self.root.join("gates.json")

    @property
    def network_gates(self) -> Location:
        """Results of the gates on the trained network."""
        return self.root.join("network_gates.json")

    @property
    def training(self) -> Location:
        """Checkpoint, history, scores."""
        return self.root.join("training")

    @property
    def checkpoint(self) -> Location:
        """The trained network."""
        return self.training.join(CHECKPOINT_FILE)

    @property
    def anchors(self) -> Location:
        """Tables of the real lenses whose stamps are the cube `anchors`, their scores and recall."""
        return self.root.join("anchors")

    @property
    def report(self) -> Location:
        """The HTML page and its linked files."""
        return self.root.join("report")

    @property
    def diagnostics(self) -> Location:
        """Logs and reasons saved when something failed."""
        return self.root.join("diagnostics")

    @property
    def success(self) -> Location:
        """Marker written after the whole run was verified."""
        return self.root.join("_SUCCESS")

    def cube(self, name: str) -> Location:
        """Folder of a cube: its marker and the Zarr hierarchy `cube.zarr`."""
        return self._owner(name).join("cubes", name)

    def receipts(self, name: str) -> Location:
        """Folder of the receipts of a cube's shards."""
        return self._owner(name).join("receipts", name)

    def _owner(self, cube: str) -> Location:
        return self.cutouts_root if cube == "cutouts" and self.cutouts_root is not None else self.root


@contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Turn failures of filesystems and S3 clients into StorageError that says what was attempted."""
    try:
        yield
    except STORAGE_FAILURES as error:
        raise StorageError(f"cannot {action}: {type(error).__name__}: {error}") from error


def _version(info: Mapping[str, object]) -> str:
    changed = next((info[key] for key in ("ETag", "etag", "LastModified", "mtime") if info.get(key)), "")
    return f"{info['size']} {changed}"


def _normalise(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        if not url:
            raise ConfigError("expected a URL or a folder, got an empty text")
        return "file://" + str(Path(url).expanduser().absolute())
    scheme = "s3" if scheme == "s3a" else scheme
    if scheme not in ("file", "s3", "http", "https"):
        raise ConfigError(f"{url}: expected file://, s3://, s3a:// or https://")
    rest = rest.rstrip("/")
    if scheme == "file":
        return "file://" + str(Path(rest or "/").absolute())
    if not rest or rest.startswith("/"):
        raise ConfigError(f"{url}: names no {'bucket' if scheme == 's3' else 'host'}")
    return f"{scheme}://{rest}"


def _replace_file_by(path: Path, local: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PARTIAL_SUFFIX}")
    try:
        shutil.copyfile(local, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _replace_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PARTIAL_SUFFIX}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
