"""The exported file against torch, stamp by stamp."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pipeline.training.checkpoint import Checkpoint
from pipeline.training.export import export_onnx
from pipeline.training.features import FeatureSpec
from pipeline.training.scorer import Scorer

CPU = torch.device("cpu")
SPEC = FeatureSpec(("ebv_mag", "psfdepth_r_mag"), (0.1, 23.0), (0.05, 0.4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("features", [None, SPEC], ids=["stamps", "stamps and features"])
def test_file_gives_the_logits_of_torch(
    make_checkpoint: Callable[..., Checkpoint], features: FeatureSpec | None
) -> None:
    """37 raw stamps agree within 1e-4, alone too; NaN and noiseless ones give NaN, their neighbours stay."""
    made = make_checkpoint(features=features)
    data = export_onnx(made)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(3)
    stamps = generator.normal(0.1, 0.03, (37, 3, 32, 32)).astype(np.float32)
    beside = generator.normal([0.1, 23.0], [0.05, 0.4], (37, 2)).astype(np.float32)
    inputs = {"stamps": stamps} | ({} if features is None else {"features": beside})
    scorer = Scorer(made.build(CPU), made.preprocess, features, CPU)
    expected = scorer.logits(stamps, None if features is None else features.standardised(beside))
    (found,) = session.run(["logit"], inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    (alone,) = session.run(["logit"], {name: values[5:6] for name, values in inputs.items()})
    np.testing.assert_allclose(alone, expected[5:6], rtol=1e-4, atol=1e-4)

    stamps[2, 1, 16, 16], stamps[4, 0, 0, 0], stamps[6, 2] = np.nan, np.inf, 0.5
    (found,) = session.run(["logit"], inputs)
    assert np.flatnonzero(np.isnan(found)).tolist() == [2, 4, 6]
    kept = np.setdiff1d(np.arange(37), [2, 4, 6])
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-4, atol=1e-4)

    model = onnx.load_from_string(data)
    (document,) = [entry.value for entry in model.metadata_props if entry.key == "darkhaloscope"]
    assert json.loads(document) == made.document()
