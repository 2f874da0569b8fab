"""Windows of a brick's files, what they cost, and what is said when a file or the filesystem fails."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray

from pipeline.contracts.errors import BrickCorruptError, BrickMissingError, ContractError, StorageError
from pipeline.storage.bricks import FIRST_RANGE_BYTES, MAX_GAP_BYTES, Brick, Key, Windows, brick_file
from pipeline.storage.tile_table import parse_tiled_image
from pipeline.storage.window_plan import plan_windows

BRICK = "1126p222"
SIDE_PX = 1000
IMAGE_KEYS: list[Key] = [("image", "g"), ("image", "r"), ("invvar", "g")]
KEYS: list[Key] = [*IMAGE_KEYS, ("psfsize", "g"), ("maskbits", "")]
SHARED_DATA = Path(__file__).parents[3] / "../shared/data"
REAL_FOLDERS = [
    SHARED_DATA / "minibrick_0591m305",
    SHARED_DATA / "emr_golden/inputs/coadds/0591m305",
    SHARED_DATA / "emr_golden/inputs/coadds/9059m305",
]


class CountingFileSystem(LocalFileSystem):  # type: ignore[misc]
    """The local filesystem, counting what range requests transfer; `fault` may fail a request instead."""

    cachable = False

    def __init__(self, fault: Callable[[str, int], Exception | None] = lambda path, start: None) -> None:
        super().__init__()
        self.fault = fault
        self.batches: list[list[tuple[str, int, int]]] = []
        self.bytes_read = 0

    def cat_ranges(self, paths: Any, starts: Any, ends: Any, **options: Any) -> list[Any]:
        self.batches.append(list(zip(paths, starts, ends, strict=True)))
        return list(super().cat_ranges(paths, starts, ends, **options))

    def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        if (failure := self.fault(path, start)) is not None:
            raise failure
        content = bytes(super().cat_file(path, start, end, **options))
        self.bytes_read += len(content)
        return content


def survey_header() -> fits.Header:
    """World coordinates as the survey writes them."""
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 112.6, "CRVAL2": 22.25, "CRPIX1": 500.5}
    cards |= {"CRPIX2": 500.5, "CD1_1": -0.262 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.262 / 3600}
    return fits.Header([*cards.items(), ("RADESYS", "FK5"), ("EQUINOX", 2000.0)])


def write_file(path: Path, data: NDArray[Any], **options: Any) -> None:
    """One coadd in tiles of 100x100 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu = fits.CompImageHDU(data, survey_header(), tile_shape=(100, 100), **options)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a brick of 1000x1000 px, compressed as the survey does."""
    root = tmp_path_factory.mktemp("bricks")
    rng = np.random.default_rng(11)
    for key in KEYS:
        path = root / brick_file("cache", BRICK, key)
        image = rng.normal(0.0, 4e-3, (SIDE_PX, SIDE_PX)).astype(np.float32)
        if key[0] == "image":
            image[400:410, 300:420] = np.nan
            write_file(path, image, compression_type="RICE_1", quantize_level=-1e-4, quantize_method=2, dither_seed=7)
        elif key[0] == "invvar":
            write_file(path, image * 1e7, compression_type="RICE_1", quantize_level=16.0, quantize_method=-1)
        elif key[0] == "psfsize":
            write_file(path, np.round(image, 2) + 1, compression_type="GZIP_2", quantize_level=0.0)
        else:
            write_file(path, (image > 0.01).astype(np.int32) * 2049, compression_type="HCOMPRESS_1")
    return root


@pytest.fixture
def root(master: Path, tmp_path: Path) -> Path:
    """A copy of the brick whose files may be damaged."""
    for key in KEYS:
        path = tmp_path / brick_file("cache", BRICK, key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((master / brick_file("cache", BRICK, key)).read_bytes())
    return tmp_path


def open_brick(root: Path, keys: list[Key] = KEYS, fs: LocalFileSystem | None = None) -> Brick:
    """The brick below `root`, by default through the plain local filesystem."""
    return Brick.open(fs or fsspec.filesystem("file"), str(root), "cache", BRICK, keys)


def random_windows(n_windows: int, size: int = 64, seed: int = 3) -> Windows:
    """Windows inside the image."""
    x0, y0 = np.random.default_rng(seed).integers(0, SIDE_PX - size, (2, n_windows))
    return Windows(x0, y0, size)


def cut(path: Path, windows: Windows) -> NDArray[Any]:
    """The windows out of a full astropy read, zero-padded."""
    with fits.open(path) as hdus:
        data = np.array(hdus[1].data)
    margin = 2000
    padded = np.pad(data, margin)
    corners = zip(windows.x0 + margin, windows.y0 + margin, strict=True)
    return np.stack([padded[y : y + windows.size, x : x + windows.size] for x, y in corners])


def test_stamps_equal_a_full_read(master: Path) -> None:
    """Every kind of file gives the pixels and types of a full astropy read, in different windows per file."""
    requests = {key: random_windows(9, 64, seed) for seed, key in enumerate(KEYS)}
    requests["psfsize", "g"] = random_windows(5, 1)
    brick = open_brick(master)
    stamps = brick.read(requests)
    assert not brick.problems
    assert brick.shape == (SIDE_PX, SIDE_PX)
    assert set(stamps) == set(KEYS)
    for key, values in stamps.items():
        assert values.dtype == (np.int32 if key[0] == "maskbits" else np.float32)
        assert np.array_equal(values, cut(master / brick_file("cache", BRICK, key), requests[key]), equal_nan=True)


def test_blank_pixels_and_negative_invvar_stay(master: Path) -> None:
    """NaN pixels of an image and negative values of an invvar are returned as they are."""
    stamps = open_brick(master).read(
        {
            ("image", "g"): Windows(np.array([290]), np.array([390]), 64),
            ("invvar", "g"): Windows(np.array([0]), np.array([0]), 64),
        }
    )
    assert np.isnan(stamps["image", "g"]).sum() == 10 * 54
    assert (stamps["invvar", "g"] < 0).any()


def test_windows_leave_the_image(master: Path) -> None:
    """Pixels outside are zero, whether a window leaves the image in part, encloses it or misses it."""
    windows = Windows(np.array([-30, 970, 980, 1900, -64, 200]), np.array([-30, 500, -20, 5, 0, 1000]), 64)
    around = Windows(np.array([-12]), np.array([-12]), 1024)
    for key in (("image", "g"), ("maskbits", "")):
        path = master / brick_file("cache", BRICK, key)
        brick = open_brick(master, [key])
        values = brick.read({key: windows})[key]
        assert np.array_equal(values, cut(path, windows), equal_nan=True)
        assert not values[3:].any()
        assert np.array_equal(brick.read({key: around})[key], cut(path, around), equal_nan=True)


def test_no_windows_cost_nothing(master: Path) -> None:
    """No windows, or windows outside only, give arrays of the right shape without a request."""
    fs = CountingFileSystem()
    brick = open_brick(master, IMAGE_KEYS, fs)
    none = np.empty(0, np.int64)
    stamps = brick.read(
        {("image", "g"): Windows(none, none, 64), ("image", "r"): Windows(np.array([-99]), np.array([0]), 64)}
    )
    assert stamps["image", "g"].shape == (0, 64, 64)
    assert stamps["image", "r"].shape == (1, 64, 64) and not stamps["image", "r"].any()
    assert len(fs.batches) == 1


def test_one_batch_to_open_and_one_to_read(master: Path) -> None:
    """Opening is one batch with one range per file, reading is one batch of disjoint ranges; both are counted."""
    fs = CountingFileSystem()
    brick = open_brick(master, KEYS, fs)
    assert [(start, end) for _, start, end in fs.batches[0]] == [(0, FIRST_RANGE_BYTES)] * len(KEYS)
    brick.read(dict.fromkeys(KEYS, random_windows(6)))
    assert len(fs.batches) == 2
    assert brick.requests == len(fs.batches[0]) + len(fs.batches[1])
    assert brick.bytes_fetched == fs.bytes_read
    for (path, _, end), (next_path, next_start, _) in zip(fs.batches[1][:-1], fs.batches[1][1:], strict=True):
        assert path != next_path or next_start > end


@pytest.mark.parametrize("n_windows", [3, 12, 40])
def test_bytes_stay_within_a_fifth_of_the_least(master: Path, n_windows: int) -> None:
    """Images cost at most 1.2 times their headers, tables and touched tiles, in fewer requests than tiles."""
    fs = CountingFileSystem()
    brick = open_brick(master, IMAGE_KEYS, fs)
    windows = random_windows(n_windows)
    brick.read(dict.fromkeys(IMAGE_KEYS, windows))
    least = n_tiles = 0
    for key in IMAGE_KEYS:
        image = parse_tiled_image((master / brick_file("cache", BRICK, key)).read_bytes(), "a.fits")
        tiles = plan_windows(image, windows.x0, windows.y0, windows.size).tiles
        # The first range is fixed, and longer than the headers and the table of so small a brick.
        least += max(image.metadata_bytes, FIRST_RANGE_BYTES)
        least += int(
            np.maximum(image.start[tiles] + image.length[tiles] - FIRST_RANGE_BYTES, 0)
            .clip(max=image.length[tiles])
            .sum()
        )
        n_tiles += tiles.size
    assert least <= fs.bytes_read <= 1.2 * least
    assert brick.requests < n_tiles + len(IMAGE_KEYS)


def test_gaps_are_bridged_only_if_small(master: Path) -> None:
    """A gap of one tile among many wanted ones is fetched along; tiles far from each other are two requests."""
    fs = CountingFileSystem()
    brick = open_brick(master, [("invvar", "g")], fs)
    image = parse_tiled_image((master / brick_file("cache", BRICK, ("invvar", "g"))).read_bytes(), "a.fits")
    assert (image.length < MAX_GAP_BYTES).all()
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(10) * 100 + 10, [510, 610]))
    but_one = np.arange(20) != 8
    brick.read({("invvar", "g"): Windows(column[but_one], row[but_one], 64)})
    brick.read({("invvar", "g"): Windows(np.array([110, 810]), np.array([510, 510]), 64)})
    assert [len(batch) for batch in fs.batches] == [1, 1, 2]


def test_from_s3_a_request_is_dearer_than_a_gap(master: Path) -> None:
    """One range per file, whatever lies between the tiles, and the same pixels."""
    fs = CountingFileSystem()
    fs.protocol = ("s3", "s3a")
    windows = dict.fromkeys(IMAGE_KEYS, random_windows(6))
    thrifty, brick = open_brick(master, IMAGE_KEYS), open_brick(master, IMAGE_KEYS, fs)
    stamps, read = thrifty.read(windows), brick.read(windows)
    assert len(fs.batches[1]) == len(IMAGE_KEYS) < thrifty.requests - len(IMAGE_KEYS)
    assert brick.bytes_fetched > thrifty.bytes_fetched
    for key in IMAGE_KEYS:
        np.testing.assert_array_equal(stamps[key], read[key])


def test_wcs_equals_astropys(master: Path) -> None:
    """The WCS maps as the one astropy makes from the whole header, and knows the image's size."""
    brick = open_brick(master)
    with fits.open(master / brick_file("cache", BRICK, ("image", "g"))) as hdus:
        expected = WCS(hdus[1].header)
    x, y = np.random.default_rng(0).uniform(-100, 1100, (2, 50))
    assert np.array_equal(brick.wcs.pixel_to_world_values(x, y), expected.pixel_to_world_values(x, y))
    assert brick.wcs.pixel_shape == expected.pixel_shape == (SIDE_PX, SIDE_PX)
    assert brick.wcs.wcs.radesys == expected.wcs.radesys == "FK5"


def test_long_headers_take_a_second_batch(tmp_path: Path) -> None:
    """A table beyond the first range is read in full with one more batch, for the files that need it."""
    rng = np.random.default_rng(0)
    for band in ("g", "r"):
        header = survey_header()
        if band == "r":
            header.extend([(f"HK{i:05d}", i) for i in range(900)])
        path = tmp_path / brick_file("cache", BRICK, ("image", band))
        path.parent.mkdir(exist_ok=True)
        image = rng.normal(0, 1, (300, 300)).astype(np.float32)
        hdu = fits.CompImageHDU(image, header, compression_type="RICE_1", tile_shape=(100, 100))
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    fs = CountingFileSystem()
    keys: list[Key] = [("image", "g"), ("image", "r")]
    brick = open_brick(tmp_path, keys, fs)
    assert [len(batch) for batch in fs.batches] == [2, 1]
    windows = Windows(np.array([50, 220]), np.array([70, 230]), 64)
    stamps = brick.read(dict.fromkeys(keys, windows))
    assert not brick.problems
    for key in keys:
        assert np.array_equal(stamps[key], cut(tmp_path / brick_file("cache", BRICK, key), windows))


def test_missing_file_is_a_problem_of_that_file(root: Path) -> None:
    """A missing file is named; the others are read, and the first of them gives the shape."""
    path = root / brick_file("cache", BRICK, ("image", "g"))
    path.unlink()
    brick = open_brick(root)
    assert list(brick.problems) == [("image", "g")]
    assert isinstance(brick.problems["image", "g"], BrickMissingError)
    assert str(brick.problems["image", "g"]) == f"brick {BRICK}: {path}: expected a file, found none"
    assert brick.shape == (SIDE_PX, SIDE_PX)
    assert set(brick.read(dict.fromkeys(KEYS, random_windows(2)))) == set(KEYS[1:])


def test_brick_without_usable_file(tmp_path: Path) -> None:
    """If nothing can be used, shape and wcs raise the first problem and read returns nothing."""
    brick = open_brick(tmp_path)
    assert len(brick.problems) == len(KEYS)
    assert brick.read(dict.fromkeys(KEYS, random_windows(2))) == {}
    for attribute in ("shape", "wcs"):
        with pytest.raises(BrickMissingError, match="image-g.fits.fz: expected a file"):
            getattr(brick, attribute)


@pytest.mark.parametrize("length", [0, 100, 5000, 9000])
def test_file_truncated_in_its_head(root: Path, length: int) -> None:
    """A file that ends in its headers or table is corrupt when the brick is opened."""
    path = root / brick_file("cache", BRICK, ("image", "r"))
    path.write_bytes(path.read_bytes()[:length])
    brick = open_brick(root)
    assert isinstance(brick.problems["image", "r"], BrickCorruptError)
    assert str(brick.problems["image", "r"]).startswith(f"brick {BRICK}: {path}: expected ")
    assert ("image", "r") not in brick.read(dict.fromkeys(KEYS, random_windows(2)))


@pytest.mark.parametrize("key", [("image", "r"), ("psfsize", "g"), ("maskbits", "")])
def test_file_truncated_in_its_tiles(root: Path, key: Key) -> None:
    """A file that lacks tiles is corrupt when they are read, and says where it ends; its other tiles serve."""
    path = root / brick_file("cache", BRICK, key)
    length = path.stat().st_size * 2 // 3
    path.write_bytes(path.read_bytes()[:length])
    brick = open_brick(root)
    assert not brick.problems
    early = {key: Windows(np.array([10]), np.array([10]), 64)}
    assert np.array_equal(brick.read(early)[key], open_brick(root).read(early)[key])
    late = Windows(np.array([10, 900]), np.array([10, 930]), 64)
    stamps = brick.read(dict.fromkeys(KEYS, late))
    assert set(stamps) == set(KEYS) - {key}
    assert isinstance(brick.problems[key], BrickCorruptError)
    assert f"brick {BRICK}: {path}: expected data up to byte" in str(brick.problems[key])


@pytest.mark.parametrize("key", KEYS)
def test_garbled_tiles_are_a_problem_of_that_file(root: Path, key: Key) -> None:
    """Tiles of ones do not decode; the file is left out and the problem names it."""
    path = root / brick_file("cache", BRICK, key)
    content = path.read_bytes()
    start = parse_tiled_image(content, "a.fits").metadata_bytes
    path.write_bytes(content[:start] + b"\xff" * (len(content) - start))
    brick = open_brick(root)
    assert set(brick.read(dict.fromkeys(KEYS, random_windows(3)))) == set(KEYS) - {key}
    assert isinstance(brick.problems[key], BrickCorruptError)
    assert f"brick {BRICK}: {path}: tile " in str(brick.problems[key])


def test_files_of_different_shape(root: Path) -> None:
    """The file whose shape differs from the first one's is corrupt."""
    path = root / brick_file("cache", BRICK, ("image", "r"))
    write_file(path, np.zeros((900, SIDE_PX), np.float32), compression_type="RICE_1")
    brick = open_brick(root)
    assert list(brick.problems) == [("image", "r")]
    assert "expected the shape (1000, 1000) of" in str(brick.problems["image", "r"])
    assert str(brick.problems["image", "r"]).endswith("got (900, 1000)")


def test_file_without_world_coordinates(root: Path) -> None:
    """A first file without celestial coordinates is corrupt; the next one serves."""
    path = root / brick_file("cache", BRICK, ("image", "g"))
    hdu = fits.CompImageHDU(np.zeros((SIDE_PX, SIDE_PX), np.float32), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    brick = open_brick(root)
    assert "expected celestial world coordinates" in str(brick.problems["image", "g"])
    assert brick.wcs.has_celestial


@pytest.mark.parametrize("failure", [PermissionError("403"), TimeoutError("slow"), OSError(errno.EIO, "broken")])
@pytest.mark.parametrize("late", [False, True])
def test_failing_filesystem_is_a_storage_error(master: Path, failure: Exception, late: bool) -> None:
    """Any other failure, on opening or reading, is a StorageError that names the file and carries its cause."""
    fs = CountingFileSystem(lambda path, start: failure if "invvar-g" in path and bool(start) == late else None)
    with pytest.raises(
        StorageError, match=rf"invvar-g.fits.fz: reading bytes .* failed: {type(failure).__name__}"
    ) as e:
        open_brick(master, KEYS, fs).read(dict.fromkeys(KEYS, random_windows(9)))
    assert e.value.__cause__ is failure


def test_range_beyond_the_end_is_corrupt(root: Path) -> None:
    """A store that refuses ranges beyond the end, as S3 does, makes the truncated file corrupt."""
    path = root / brick_file("cache", BRICK, ("image", "g"))
    path.write_bytes(path.read_bytes()[: 2 * FIRST_RANGE_BYTES])

    def refuse(path: str, start: int) -> Exception | None:
        return OSError(errno.EINVAL, "InvalidRange") if start >= Path(path).stat().st_size else None

    brick = open_brick(root, [("image", "g")], CountingFileSystem(refuse))
    assert brick.read({("image", "g"): Windows(np.array([900]), np.array([900]), 64)}) == {}
    assert str(brick.problems["image", "g"]).endswith(f"the file ends at {2 * FIRST_RANGE_BYTES}")


def test_refused_range_inside_the_file_is_a_storage_error(master: Path) -> None:
    """An invalid-argument failure that the file's length does not explain stays a StorageError."""
    fs = CountingFileSystem(lambda path, start: OSError(errno.EINVAL, "bad request") if start else None)
    with pytest.raises(StorageError, match="bad request"):
        open_brick(master, KEYS, fs).read(dict.fromkeys(KEYS, random_windows(9)))


def test_ignored_ranges_are_a_storage_error(master: Path) -> None:
    """A server that sends more than the range is refused, not misread."""

    class WholeFileSystem(CountingFileSystem):
        def cat_file(self, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
            return super().cat_file(path, None, None, **options)

    with pytest.raises(StorageError, match="ranges are not honoured"):
        open_brick(master, KEYS, WholeFileSystem())


def test_brick_file_names() -> None:
    """Names follow both layouts; maskbits has no band."""
    assert brick_file("cache", BRICK, ("image", "g")) == "1126p222/legacysurvey-1126p222-image-g.fits.fz"
    assert brick_file("public", BRICK, ("maskbits", "")) == "112/1126p222/legacysurvey-1126p222-maskbits.fits.fz"


@pytest.mark.parametrize(
    ("layout", "key"),
    [("s3", ("image", "g")), ("cache", ("model", "g")), ("cache", ("image", "")), ("cache", ("maskbits", "g"))],
)
def test_brick_file_of_unknown_parts(layout: str, key: Key) -> None:
    """An unknown layout, kind or band is a ContractError."""
    with pytest.raises(ContractError, match="expected"):
        brick_file(layout, BRICK, key)


def test_requests_beyond_the_opened_files(master: Path) -> None:
    """A file that the brick was not opened with, or windows of no shape, are a ContractError."""
    with pytest.raises(ContractError, match="was opened with"):
        open_brick(master, IMAGE_KEYS).read({("image", "z"): random_windows(1)})
    with pytest.raises(ContractError, match="windows: expected"):
        Windows(np.array([1, 2]), np.array([1]), 64)
    with pytest.raises(ContractError, match="windows: expected"):
        Windows(np.array([1]), np.array([1]), 0)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the real coadds of ../shared/data are not here")
@pytest.mark.parametrize("folder", REAL_FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_real_coadds_equal_a_full_read(folder: Path, tmp_path: Path) -> None:
    """Every real coadd, in windows all over it and beyond its edges, gives the pixels of a full astropy read."""
    brickname = folder.name.removeprefix("minibrick_")
    (tmp_path / brickname).symlink_to(folder.resolve())
    keys: list[Key] = [(kind, band) for kind in ("image", "invvar", "psfsize") for band in "grz"]
    keys.append(("maskbits", ""))
    brick = Brick.open(fsspec.filesystem("file"), str(tmp_path), "cache", brickname, keys)
    x0, y0 = np.random.default_rng(1).integers(-70, 260, (2, 25))
    windows = Windows(x0, y0, 64)
    stamps = brick.read(dict.fromkeys(keys, windows))
    assert not brick.problems
    assert brick.wcs.has_celestial
    for key in keys:
        expected = cut(tmp_path / brick_file("cache", brickname, key), windows)
        assert np.array_equal(stamps[key], expected, equal_nan=True)
