"""Tensors with a document: what goes in comes out."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from pipeline.contracts.errors import ContractError
from pipeline.training.tensor_file import pack_tensors, unpack_tensors


def test_tensors_and_document_come_back() -> None:
    """Every dtype, a scalar, channels-last order, two names of one memory; the document with nested values."""
    one = torch.arange(6.0)
    tensors = {
        "a": one,
        "same": one,
        "bf16": one.to(torch.bfloat16),
        "step": torch.tensor(3.0),
        "last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    }
    document = {"text": "ä", "list": [1, None, 0.1], "large": 2**62}
    read, found = unpack_tensors(pack_tensors(tensors, document))
    assert found == document
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_files_without_a_document_are_refused() -> None:
    """Plain safetensors, and a document that is not an object."""
    with pytest.raises(ContractError, match="not a safetensors file with a document"):
        unpack_tensors(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(ContractError, match="expected a JSON object"):
        unpack_tensors(pack_tensors({}, [1]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="JSON compliant"):
        pack_tensors({}, {"loss": float("nan")})
