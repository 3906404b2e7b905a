"""Codes inside an integer graph as the real numbers that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.quant.annotations import Annotation, annotation
from qcompiler.quant.arithmetic import dequantize
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams

__all__ = ["code_meanings", "first_codes", "real_numbers"]


def first_codes(model: ir.Model) -> dict[str, str]:
    """Per real tensor the codes that first stand for it in graph order, by name."""
    found: dict[str, str] = {}
    for name, meaning in code_meanings(model).items():
        found.setdefault(meaning.of, name)
    return found


def code_meanings(model: ir.Model) -> dict[str, Annotation]:
    """What codes mean, by name, in graph order."""
    values = (value for node in model.graph for value in node.outputs if value.name)
    return {str(value.name): meaning for value in values if (meaning := annotation(value)) is not None}


def real_numbers(array: NDArray[Any], meaning: Annotation | None) -> NDArray[Any]:
    """Codes as the real numbers that they stand for, channels first; what is float stays as it is."""
    if meaning is None or not np.issubdtype(array.dtype, np.integer):
        return array
    params = QParams(np.asarray(meaning.scale, np.float32), np.asarray(meaning.zero_point, np.int32))
    numbers = dequantize(array, params, QFormat(32))
    return np.moveaxis(numbers, -1, 1) if meaning.channels_last and numbers.ndim > 2 else numbers
