"""A source bank in memory, a lens system, a run's anchors and a small phase 3 on disk, a web server that fails."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from onnx import TensorProto, helper

from pipeline.contracts.anchors import MEASURED_ANCHORS
from pipeline.contracts.datasets import CUTOUTS
from pipeline.contracts.network_file import FEATURES_NAME, INPUT_NAME, OUTPUT_NAME, NetworkSpec
from pipeline.contracts.source_bank import BANK_COLUMNS, SourceBank, bank_digest
from pipeline.contracts.training_config import PreprocessSection
from pipeline.stages.arc_scene import Observation
from pipeline.stages.lens_system import LensSystem
from pipeline.storage.anchor_stamps import ANCHOR_CUBE
from pipeline.storage.anchor_tables import write_anchor_table
from pipeline.storage.cube import CubeShape, create_cube, cube_attributes, publish_cube, write_shard
from pipeline.storage.locations import RunLayout

SIDE_PX = 32
PIXEL_SCALE_ARCSEC = 0.03


@pytest.fixture(scope="session")
def make_bank() -> Callable[..., SourceBank]:
    """See `template_bank`."""
    return template_bank


@pytest.fixture(scope="session")
def lens_system() -> LensSystem:
    """An elliptical isothermal lens off the middle in weak shear, with an exponential disc behind it."""
    return LensSystem(
        theta_e_arcsec=1.4,
        lens_q=0.75,
        lens_phi_rad=0.5,
        lens_slope=2.0,
        shear_gamma1=0.03,
        shear_gamma2=-0.02,
        lens_x_arcsec=0.1,
        lens_y_arcsec=-0.2,
        src_x_arcsec=0.3,
        src_y_arcsec=0.1,
        src_re_arcsec=0.15,
        src_n=1.0,
        src_q=0.6,
        src_phi_rad=1.0,
        mag_r=22.0,
        gr=0.3,
        rz=0.2,
    )


@pytest.fixture(scope="session")
def observation() -> Observation:
    """Seeing and depths like those of DR10."""
    return Observation((1.3, 1.2, 1.1), (24.7, 23.9, 23.0))


@pytest.fixture(scope="session")
def store_anchors() -> Callable[..., None]:
    """See `write_anchor_stamps`."""
    return write_anchor_stamps


def write_anchor_stamps(layout: RunLayout, image: np.ndarray, reject_reason: list[str], cube_row: list[int]) -> None:
    """Publish stamps (anchor, band, y, x) as the cube `anchors` and store a measured table that names its rows."""
    shape = CubeShape(dict(zip(("sample", "band", "y", "x"), image.shape, strict=True)), 4, 4)
    location = layout.cube(ANCHOR_CUBE)
    create_cube(location, CUTOUTS, shape)
    for shard in range(shape.n_shards):
        rows = shape.rows(shard)
        part = {}
        for variable in CUTOUTS.variables:
            lengths = tuple({**shape.sizes, "sample": rows.stop - rows.start}[dim] for dim in variable.dims)
            values = np.full(lengths, "", object) if variable.dtype == "str" else np.zeros(lengths, variable.dtype)
            part[variable.name] = (variable.dims, values)
        part["image"][1][:] = image[rows]
        part["psfsize_arcsec"][1][:] = np.linspace(1.5, 1.1, image.shape[1])
        write_shard(location, CUTOUTS, shape, shard, xr.Dataset(part))
    publish_cube(location, cube_attributes(CUTOUTS, shape, {"plan_sha256": "a" * 64}))
    filled: dict[str, object] = {"str": "", "int64": 0, "float64": 0.0}
    table = pd.DataFrame({v.name: [filled[v.dtype]] * len(cube_row) for v in MEASURED_ANCHORS.variables})
    table["reject_reason"], table["cube_row"] = reject_reason, cube_row
    table["visibility_tier"] = [f"tier of {row}" for row in cube_row]
    write_anchor_table(layout.anchors, "measured", table)


def template_bank(n_templates: int = 5, unusable: tuple[int, ...] = (1,)) -> SourceBank:
    """Templates with a core at the middle, a blob 6 px along +x and one 3 px along +y; wider ones later."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - (SIDE_PX - 1) / 2
    width_px = 1.5 + 0.2 * np.arange(n_templates)[:, None, None]
    blobs = ((0.0, 0.0, 0.5), (6.0, 0.0, 0.3), (0.0, 3.0, 0.2))
    light = sum(share * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * width_px**2)) for dx, dy, share in blobs)
    images = np.asarray(light / light.sum(axis=(1, 2), keepdims=True), np.float32)
    columns: dict[str, np.ndarray] = {
        column.name: np.full(n_templates, column.missing or 0, dtype=column.dtype) for column in BANK_COLUMNS
    }
    columns["index"] = np.arange(100, 100 + n_templates)
    columns["hlr_arcsec"] = np.linspace(0.12, 0.2, n_templates).astype(np.float32)
    columns["usable"] = np.ones(n_templates, np.uint8)
    columns["usable"][list(unusable)] = 0
    columns["reject_reason"][list(unusable)] = 2
    return SourceBank(
        images=images,
        columns=columns,
        pixel_scale_arcsec=PIXEL_SCALE_ARCSEC,
        psf_fwhm_arcsec=0.1,
        galaxy_kind="three Gaussians",
        source="test suite",
        created_utc="2026-01-01T00:00:00Z",
        digest=bank_digest(images, columns, PIXEL_SCALE_ARCSEC),
    )


@pytest.fixture(scope="session")
def make_network() -> Callable[..., bytes]:
    """See `mean_network`."""
    return mean_network


def mean_network(
    bands: tuple[str, ...] = ("g", "r", "z"), size_px: int = 32, features: tuple[str, ...] = (), **changes: Any
) -> bytes:
    """An exported network: the logit is the mean of a stamp's pixels plus its features. `changes` are of its spec."""
    preprocess = PreprocessSection(annulus_px=(9.0, 16.0))
    spec = NetworkSpec(
        model="mean",
        bands=bands,
        stamp_size_px=size_px,
        pixel_scale_arcsec=0.262,
        features=features,
        preprocess=preprocess,
        preprocess_sha256=preprocess.sha256(),
        checkpoint_sha256="c" * 64,
        batch_size=4,
        code_version="test suite",
    )
    sizes = {INPUT_NAME: ["n", len(bands), size_px, size_px]} | ({FEATURES_NAME: ["n", "number"]} if features else {})
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
    logit = helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["n"])
    axes = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("second", TensorProto.INT64, [1], [1]),
    ]
    mean = "mean" if features else OUTPUT_NAME
    nodes = [helper.make_node("ReduceMean", [INPUT_NAME, "axes"], [mean], keepdims=0)]
    if features:
        nodes.append(helper.make_node("ReduceSum", [FEATURES_NAME, "second"], ["sum"], keepdims=0))
        nodes.append(helper.make_node("Add", [mean, "sum"], [OUTPUT_NAME]))
    graph = helper.make_graph(nodes, "mean", inputs, [logit], axes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, spec.properties() | {name: json.dumps(value) for name, value in changes.items()})
    return bytes(model.SerializeToString())


@pytest.fixture
def make_phase3(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Writes the inputs of a manifest; see `phase3_tables` for what keyword arguments replace.

    Returns the section `inputs` of a configuration. `part_rows` splits the parent catalogue into files.
    """

    def write(part_rows: int = 1_000_000, **replaced: Any) -> dict[str, str]:
        tables = phase3_tables() | replaced
        for name, columns in tables.items():
            table = columns if isinstance(columns, pa.Table) else pa.table(columns)
            for part, start in enumerate(range(0, table.num_rows, part_rows if name == "parent" else 1_000_000)):
                file = tmp_path / name / f"part-{part:05d}.parquet"
                file.parent.mkdir(exist_ok=True)
                pq.write_table(table.slice(start, part_rows), file)
        return {name: str(tmp_path / name) for name in tables}

    return write


def phase3_tables(n_hosts: int = 600) -> dict[str, Any]:
    """Hosts in 40 bricks and 6 regions; region 9 is in no selection, 5 hosts have no magnitude, 7 no LRG flag."""
    rng = np.random.default_rng(5)
    names = np.array([f"{700 + i:04d}m{200 + i:03d}" for i in range(40)])
    splits = np.array(["test", "train", "val", "train", "test", "", "", "", "", "train"], object)
    region = rng.choice([0, 1, 2, 3, 4, 9], n_hosts).astype(np.int32)
    rmag = rng.uniform(18.0, 20.5, n_hosts).astype(np.float32)
    zmag = rmag - np.float32(0.7)
    flag = np.ones(n_hosts, bool)
    flag[:7] = False
    psfsize_r = rng.uniform(1.0, 1.6, 40)
    sets = [("topk_density_k100", "topk", "density", region) for region in (0, 1, 2, 3)]
    sets += [("strat_custom_n_lrg", "stratified", "n_lrg", region) for region in (0, 1, 2, 4)]
    return {
        "parent": {
            "region_id": region,
            "region_split": pa.array(splits[region], pa.string()),
            "brickname": names[rng.integers(0, 40, n_hosts)],
            "ra": rng.uniform(0.0, 360.0, n_hosts),
            "dec": rng.uniform(-60.0, 30.0, n_hosts),
            "zmag": pa.array(zmag, mask=np.arange(n_hosts) % 120 == 50),
            "rmag": rmag,
            "w1mag": zmag - np.float32(1.2),
            "rz": np.full(n_hosts, 0.7, np.float32),
            "zw1": np.full(n_hosts, 1.2, np.float32),
            "is_v3_color_relaxed": flag,
        },
        "bricks_with_region": {
            "brickname": names,
            "psfsize_g": psfsize_r * 1.1,
            "psfsize_r": psfsize_r,
            "psfsize_z": psfsize_r * 0.9,
            "psfdepth_r": rng.uniform(23.6, 25.5, 40),
            "ebv": rng.uniform(0.0, 0.1, 40),
        },
        "region_selections": {
            "selection_set_id": [row[0] for row in sets],
            "selection_strategy": [row[1] for row in sets],
            "ranking_mode": [row[2] for row in sets],
            "region_id": np.array([row[3] for row in sets], np.int32),
            "region_split": pa.array([splits[row[3]] for row in sets], pa.string()),
        },
    }


class FaultyServer(ThreadingHTTPServer):
    """Serves a folder; the next requests of a file can be made to fail, one fault each.

    A fault is an HTTP status, a (status, headers) pair, or one of "truncate" (half of the announced bytes), "short"
    (half, announced as such), "page" (a web page of the file's size), "slow" (half, then silence), "drip" (a byte
    every 20 ms).
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _FaultyHandler)
        self.folder = folder
        self.faults: dict[str, list[object]] = defaultdict(list)
        self.requests: list[tuple[str, str, float]] = []

    @property
    def url(self) -> str:
        """Where the folder is served."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, name: str, method: str = "GET") -> int:
        """How often a file was asked for."""
        return sum((method, name) == (made, path.rsplit("/", 1)[-1]) for made, path, _ in self.requests)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is expected here."""


class _FaultyHandler(BaseHTTPRequestHandler):
    server: FaultyServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _answer(self, with_body: bool) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.server.requests.append((self.command, self.path, time.monotonic()))
        queue = self.server.faults[f"{self.command} {name}"]
        fault = queue.pop(0) if queue else None
        path = self.server.folder / self.path.lstrip("/")
        status, headers = fault if isinstance(fault, tuple) else (fault, {})
        if isinstance(status, int) or not path.is_file():
            self.send_response(status if isinstance(status, int) else 404)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        if fault == "page":
            data = b"<html>".ljust(len(data), b" ")
        sent = data[: len(data) // 2] if fault in ("truncate", "short", "slow") else data
        self.send_response(200)
        self.send_header("Content-Length", str(len(sent if fault == "short" else data)))
        self.end_headers()
        if with_body and fault == "drip":
            for byte in data:
                self.wfile.write(bytes([byte]))
                time.sleep(0.02)
        elif with_body:
            self.wfile.write(sent)
        if fault == "slow":
            self.wfile.flush()
            time.sleep(1.0)
        if fault in ("truncate", "slow"):
            self.close_connection = True


@pytest.fixture
def faulty_server(tmp_path: Path) -> Iterator[FaultyServer]:
    """A FaultyServer of the folder `served`, on the loopback interface."""
    (tmp_path / "served").mkdir()
    server = FaultyServer(tmp_path / "served")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
