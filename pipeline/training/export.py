"""The trained network as one ONNX file with the normalisation inside: what scores stamps where there is no torch.

Run as a program, it exports a checkpoint: `python -m pipeline.training.export --checkpoint URL --out URL`.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.metadata
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor, nn

from pipeline.contracts.errors import ContractError, VerificationError
from pipeline.contracts.feed_config import FeatureColumn
from pipeline.contracts.network_file import FEATURES_NAME, INPUT_NAME, OUTPUT_NAME, NetworkSpec
from pipeline.logs import configure_logging
from pipeline.stages.network import StampNetwork
from pipeline.storage.locations import Location
from pipeline.training.checkpoint import Checkpoint
from pipeline.training.exit_code import exit_code
from pipeline.training.preprocess import normalised

# Fixed, so that the file is the same whatever version of the exporter's default is installed.
OPSET = 20
BATCH_SIZE = 32
LOGIT_TOLERANCE = 1e-4
_TEST_STAMPS = 2 * BATCH_SIZE + 5
_TEST_SEED = 20_260_101
_FEATURES: TypeAdapter[tuple[FeatureColumn, ...]] = TypeAdapter(tuple[FeatureColumn, ...])
EPILOG = """
reads   --checkpoint  checkpoint of a training
writes  --out         ONNX file: stamps (n, band, y, x) float32 nmgy in, logit (n) out; see docs/scoring.md
exit    0 verified, 2 configuration or contract, 3 the file does not reproduce the network, 75 retriable
"""

logger = logging.getLogger("pipeline.training")


class StampScorer(nn.Module):
    """Raw stamps, and raw features where the network sees some, to logits; NaN for what the trainer refuses.

    Args:
        checkpoint: its network is built on the CPU.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.network = checkpoint.build(torch.device("cpu"))
        self.preprocess = checkpoint.preprocess
        spec = checkpoint.features
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.tensor(() if spec is None else spec.mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(() if spec is None else spec.scale, dtype=torch.float32))

    def forward(self, stamps: Tensor, features: Tensor | None = None) -> Tensor:
        """(stamp, band, y, x) [nmgy] and (stamp, number) as the cube has them, all float32, to (stamp) float32."""
        values, usable = normalised(stamps, self.preprocess)
        beside = None
        if features is not None:
            complete = features.isfinite()
            usable = usable & complete.all(dim=1)
            beside = (torch.where(complete, features, self.mean) - self.mean) / self.scale
        logit: Tensor = self.network(values, beside)
        return torch.where(usable, logit, torch.full_like(logit, float("nan")))


def export_network(checkpoint: Checkpoint, checkpoint_sha256: str) -> bytes:
    """The best epoch's network as an ONNX file that was proven to give its logits.

    Args:
        checkpoint: what to export.
        checkpoint_sha256: digest of the checkpoint's file, stored in the metadata.

    Raises:
        VerificationError: ONNX Runtime does not give the network's logits for random stamps, or gives a number to a
            stamp that the trainer refuses.
    """
    scorer = StampScorer(checkpoint).eval()
    stamps, features = random_stamps(checkpoint), random_features(checkpoint)
    given = [torch.from_numpy(values) for values in (stamps, features) if values.shape[1]]
    with torch.inference_mode():
        expected = scorer(*given).numpy()
    names, n_stamps = [INPUT_NAME, FEATURES_NAME][: len(given)], torch.export.Dim("n", min=1)
    with _quiet_exporter():
        program = torch.onnx.export(
            scorer,
            tuple(values[:2] for values in given),
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=[OUTPUT_NAME],
            dynamic_shapes=tuple({0: n_stamps} for _ in names),
            verbose=False,
        )
    if program is None:
        raise VerificationError("the ONNX exporter returned no program")
    for batch_size in (BATCH_SIZE, 1):
        program.model.metadata_props.update(_spec(checkpoint, checkpoint_sha256, batch_size).properties())
        data: bytes = program.model_proto.SerializeToString()
        network = StampNetwork(data)
        verify_export(network, stamps, features, expected)
        if is_independent_of_neighbours(network, stamps, features):
            return data
    raise VerificationError("the exported network gives a stamp another logit in another call")


def random_stamps(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """Stamps to try an export on: noise with sources of all brightnesses; some cannot be normalised.

    Returns:
        (stamp, band, y, x) float32; stamps 1, 4, 7, 10 and 13 hold a NaN, an infinity, a band without noise, nothing
        but zeros, and nothing but NaN. [nmgy]
    """
    random = np.random.default_rng(_TEST_SEED)
    size = checkpoint.stamp_size_px
    shape = (_TEST_STAMPS, len(checkpoint.bands), size, size)
    y, x = np.mgrid[:size, :size] - size // 2
    source = np.exp(-np.hypot(x, y) / 3.0) * 10.0 ** random.uniform(-2, 2, (_TEST_STAMPS, 1, 1, 1))
    stamps: NDArray[np.float32] = (0.02 * random.normal(size=shape) + source).astype(np.float32)
    stamps[1, 0, size // 2, size // 2] = np.nan
    stamps[4, -1, 0, 0] = np.inf
    stamps[7, 0] = 0.25
    stamps[10] = 0.0
    stamps[13] = np.nan
    return stamps


def random_features(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """(stamp, number) float32 beside `random_stamps`, like those of the training; one of stamp 16 is missing."""
    spec = checkpoint.features
    if spec is None:
        return np.empty((_TEST_STAMPS, 0), np.float32)
    random = np.random.default_rng(_TEST_SEED + 1)
    features = random.normal(spec.mean, spec.scale, (_TEST_STAMPS, len(spec.mean))).astype(np.float32)
    features[16, -1] = np.nan
    return features


def verify_export(
    network: StampNetwork, stamps: NDArray[np.float32], features: NDArray[np.float32], expected: NDArray[np.float32]
) -> None:
    """Compare what ONNX Runtime computes with what torch computed.

    Args:
        network: the exported file.
        stamps: (stamp, band, y, x) float32. [nmgy]
        features: (stamp, number) float32 beside them.
        expected: (stamp) float32 logits; NaN where the preprocessing refuses the stamp.

    Raises:
        VerificationError: a logit differs by more than 1e-4, relative or absolute, or NaN stands elsewhere.
    """
    got = network.logits(stamps, features)
    if not np.allclose(got, expected, rtol=LOGIT_TOLERANCE, atol=LOGIT_TOLERANCE, equal_nan=True):
        difference = np.where(np.isnan(got) & np.isnan(expected), 0.0, np.abs(got - expected))
        worst = int(np.argmax(np.nan_to_num(difference, nan=np.inf)))
        raise VerificationError(
            f"the exported network differs from the trained one: stamp {worst} has {got[worst]}, "
            f"expected {expected[worst]}"
        )


def is_independent_of_neighbours(
    network: StampNetwork, stamps: NDArray[np.float32], features: NDArray[np.float32]
) -> bool:
    """True if logits have the same bits in order, reversed, and one stamp at a time."""
    logit = network.logits(stamps, features)
    reversed_logit = network.logits(stamps[::-1], features[::-1])[::-1]
    alone = np.concatenate([network.logits(*one) for one in zip(stamps[:, None], features[:, None], strict=True)])
    return np.array_equal(logit, reversed_logit, equal_nan=True) and np.array_equal(logit, alone, equal_nan=True)


def export_checkpoint(checkpoint_file: Location, out: Location) -> NetworkSpec:
    """Export a stored checkpoint and read the file back.

    Raises:
        ContractError: no checkpoint is there.
        VerificationError: as export_network, or the file reads back differently.
    """
    if not checkpoint_file.exists():
        raise ContractError(f"{checkpoint_file.url}: no checkpoint is there")
    stored = checkpoint_file.read_bytes()
    data = export_network(Checkpoint.from_bytes(stored), hashlib.sha256(stored).hexdigest())
    out.write_bytes(data)
    if out.read_bytes() != data:
        raise VerificationError(f"{out.url} reads back differently than it was written")
    return StampNetwork(data).spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, export, and turn a PipelineError into its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.training.export",
        description="Write a trained network as an ONNX file with its normalisation inside.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, metavar="URL", help="checkpoint of a training")
    parser.add_argument("--out", required=True, metavar="URL", help="file that the network goes to, network.onnx")
    parser.add_argument("--region", help="AWS region of s3:// URLs")
    parser.add_argument("--endpoint-url", help="S3 endpoint other than AWS")
    options = parser.parse_args(arguments)
    configure_logging()

    def work() -> int:
        checkpoint, out = (
            Location(url, options.region, options.endpoint_url) for url in (options.checkpoint, options.out)
        )
        spec = export_checkpoint(checkpoint, out)
        logger.info("exported", extra={"fields": {"out": options.out, **spec.model_dump(mode="json")}})
        return 0

    return exit_code(work)


def _spec(checkpoint: Checkpoint, checkpoint_sha256: str, batch_size: int) -> NetworkSpec:
    return NetworkSpec(
        model=checkpoint.network.name,
        bands=checkpoint.bands,
        stamp_size_px=checkpoint.stamp_size_px,
        pixel_scale_arcsec=checkpoint.pixel_scale_arcsec,
        features=_FEATURES.validate_python(() if checkpoint.features is None else checkpoint.features.columns),
        preprocess=checkpoint.preprocess,
        preprocess_sha256=checkpoint.preprocess.sha256(),
        checkpoint_sha256=checkpoint_sha256,
        batch_size=batch_size,
        code_version=f"darkhaloscope {importlib.metadata.version('darkhaloscope')}, torch {torch.__version__}",
    )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of packages that it does not need and of its own internals."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", message="# The axis name", category=UserWarning)
            yield
    finally:
        exporter.setLevel(level)


if __name__ == "__main__":
    # Modules live as long as the process: the collector need not walk through them, least of all at the end.
    gc.freeze()
    sys.exit(main())
