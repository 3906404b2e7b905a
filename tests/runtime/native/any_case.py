"""A random instance of any operator, from its family's own maker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.quant.functions import every_case
from tests.runtime.native import (
    cases_convolution,
    cases_elementwise,
    cases_logarithmic,
    cases_lookup,
    cases_matmul,
    cases_norms,
    cases_pooling,
    cases_requantize,
    cases_resize,
    cases_softmax,
    cases_weight_only,
)

__all__ = ["case"]

_Maker: TypeAlias = Callable[[str, np.random.Generator], tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]]

_MAKERS: Final[dict[str, _Maker]] = {
    **dict.fromkeys(("QAdd", "QConcat", "QMul", "QSub"), cases_elementwise.case),
    **dict.fromkeys(("QConv", "QConvChannelsLast"), cases_convolution.case),
    **dict.fromkeys(("QGemm", "QMatMul"), cases_matmul.case),
    **dict.fromkeys(("QLayerNormalization", "QRMSNormalization"), cases_norms.case),
    **dict.fromkeys(("QLogDequantize", "QLogQuantize"), cases_logarithmic.case),
    **dict.fromkeys(("QLookup", "QLookupInterpolated"), cases_lookup.case),
    "QMatMulWeightOnly": cases_weight_only.case,
    "QResize": cases_resize.case,
    "QSoftmax": cases_softmax.case,
    "Requantize": cases_requantize.case,
}


def case(name: str, random: np.random.Generator) -> tuple[list[NDArray[Any]], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes, and positions of constant inputs; all but the first are constant where no maker says."""
    family = every_case.family(name)
    if "Pool" in name or name.startswith("QReduceMean"):
        return cases_pooling.case(name, random)
    if family in _MAKERS:
        return _MAKERS[family](name, random)
    inputs, attributes = every_case.CASES[family](name, random)
    return inputs, attributes, tuple(range(1, len(inputs)))
