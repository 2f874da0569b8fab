"""Scoring stamps with an exported network, by ONNX Runtime on one thread; no torch."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.contracts.errors import ConfigError, ContractError
from pipeline.contracts.network_file import FEATURES_NAME, INPUT_NAME, OUTPUT_NAME, NetworkSpec

_RUNTIME = "onnxruntime"
_LOADING_ERRORS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
_ERRORS_ONLY = 3


class StampNetwork:
    """An exported network, ready to score.

    Attributes:
        spec: what the file says about itself.
        sha256: digest of the file.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        ContractError: the bytes are no exported network, or its input is not what its metadata say.
    """

    def __init__(self, data: bytes) -> None:
        self.sha256 = hashlib.sha256(data).hexdigest()
        where = f"network {self.sha256[:12]}"
        self._session = _open_session(data, where)
        self.spec = NetworkSpec.from_properties(self._session.get_modelmeta().custom_metadata_map, where)
        size = self.spec.stamp_size_px
        expected = [INPUT_NAME, len(self.spec.bands), size, size]
        inputs = {tensor.name: list(tensor.shape[1:]) for tensor in self._session.get_inputs()}
        got = [INPUT_NAME, *inputs.get(INPUT_NAME, [])]
        if got != expected or (FEATURES_NAME in inputs) != bool(self.spec.features):
            raise ContractError(f"{where}: expected the input {expected}, got {inputs}; features {self.spec.features}")

    def features(self, columns: xr.Dataset) -> NDArray[np.float32]:
        """What the network sees beside the stamps.

        Args:
            columns: `spec.features` of the stamps, dim sample, or sample and band.

        Returns:
            (stamp, number) float32; a column per band gives one number per band.
        """
        n_stamps = columns.sizes["sample"]
        parts = [columns[name].to_numpy().reshape(n_stamps, -1).astype(np.float32) for name in self.spec.features]
        return np.concatenate(parts, axis=1) if parts else np.empty((n_stamps, 0), np.float32)

    def logits(self, stamps: NDArray[np.float32], features: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Logits of stamps in order; the bits of one do not depend on the others.

        Args:
            stamps: (stamp, band, y, x) float32, any values. [nmgy]
            features: (stamp, number) from `features`; None, or no number, for a network without.

        Returns:
            (stamp) float32; NaN for a stamp that the preprocessing refuses, or with a feature that is not finite.

        Raises:
            ContractError: another shape or dtype, or features that are missing or not asked for.
        """
        expected = (len(self.spec.bands), self.spec.stamp_size_px, self.spec.stamp_size_px)
        if stamps.dtype != np.float32 or stamps.shape[1:] != expected:
            raise ContractError(
                f"network: expected float32 stamps of {expected}, got {stamps.dtype} {stamps.shape[1:]}"
            )
        beside = np.empty((len(stamps), 0), np.float32) if features is None else features
        if bool(beside.shape[1]) != bool(self.spec.features) or len(beside) != len(stamps):
            raise ContractError(f"network: expected features {self.spec.features}, got {beside.shape} numbers")
        logit = np.empty(len(stamps), dtype=np.float32)
        for start in range(0, len(stamps), self.spec.batch_size):
            chosen = slice(start, start + self.spec.batch_size)
            batch = {INPUT_NAME: np.ascontiguousarray(stamps[chosen])}
            if self.spec.features:
                batch[FEATURES_NAME] = np.ascontiguousarray(beside[chosen])
            (logit[chosen],) = self._session.run([OUTPUT_NAME], batch)
        return logit


def probability(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logistic of logits, float32; NaN stays NaN. Above a logit of 17 it is 1, so rank by logit."""
    exact = 1.0 / (1.0 + np.exp(-np.clip(logit.astype(np.float64), -700.0, None)))
    return exact.astype(np.float32)


def _open_session(data: bytes, where: str) -> Any:
    if importlib.util.find_spec(_RUNTIME) is None:
        raise ConfigError("scoring needs ONNX Runtime: install darkhaloscope with its extra score")
    runtime = importlib.import_module(_RUNTIME)
    state = importlib.import_module(f"{_RUNTIME}.capi.onnxruntime_pybind11_state")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except tuple(getattr(state, name) for name in _LOADING_ERRORS) as error:
        raise ContractError(f"{where} is not an ONNX file that can be run: {error}") from error
