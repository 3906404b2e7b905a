"""Mean and variance that a folded BatchNormalization tells about a tensor.

Training leaves, for each channel of a normalised tensor, its mean and variance: ranges without data and bias
correction without data are built on them (ZeroQ, Nagel et al. 2019). Folding removes the node that held them, so they
are kept on the tensor: as arrays in ``meta``, and as text in ``metadata_props``, which survives save and load.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["set_statistics", "statistics"]

_KEY = "qcompiler.statistics"
_MEAN = "qcompiler.mean"
_VARIANCE = "qcompiler.variance"


def set_statistics(value: ir.Value, mean: NDArray[Any], variance: NDArray[Any]) -> None:
    """Keep the statistics of a tensor.

    Args:
        value: The tensor; its axis 1 holds the channels.
        mean: Mean of each channel, in units of the tensor.
        variance: Variance of each channel.
    """
    value.meta[_KEY] = (mean.astype(np.float32), variance.astype(np.float32))
    value.metadata_props[_MEAN] = _to_text(mean)
    value.metadata_props[_VARIANCE] = _to_text(variance)


def statistics(value: ir.Value) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Mean and variance of each channel; ``None`` where they are not known.

    Raises:
        ValueError: the text in ``metadata_props`` is damaged.
    """
    found: tuple[NDArray[np.float32], NDArray[np.float32]] | None = value.meta.get(_KEY)
    if found is not None:
        return found
    mean, variance = value.metadata_props.get(_MEAN), value.metadata_props.get(_VARIANCE)
    return None if mean is None or variance is None else (_from_text(mean), _from_text(variance))


def _to_text(array: NDArray[Any]) -> str:
    """Little-endian float32 in base64: exact, and a third longer than the numbers themselves."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode("ascii")


def _from_text(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
