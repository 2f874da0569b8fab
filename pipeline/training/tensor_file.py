"""Tensors and a JSON document in one file, in the safetensors format: reading executes nothing.

The document stands in the header's `__metadata__`, so weights and what they mean cannot be parted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from pipeline.contracts.errors import ContractError

_KEY = "darkhaloscope"
_LENGTH_BYTES = 8


def pack_tensors(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> bytes:
    """The file's bytes.

    Args:
        tensors: copied to the CPU.
        document: anything that JSON can hold; NaN is refused.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata={_KEY: json.dumps(document, allow_nan=False)})


def unpack_tensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU, and the document.

    Raises:
        ContractError: not such a file, or a truncated one.
    """
    try:
        tensors = safetensors.torch.load(data)
        (length,) = struct.unpack("<Q", data[:_LENGTH_BYTES])
        header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
        document = json.loads(header["__metadata__"][_KEY])
    except (SafetensorError, ValueError, KeyError, struct.error) as error:
        raise ContractError(f"not a safetensors file with a document: {error}") from error
    if not isinstance(document, dict):
        raise ContractError(f"expected a JSON object in the file's header, got {type(document).__name__}")
    return tensors, document
