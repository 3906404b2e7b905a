"""A random instance of any operator of the catalogue, extremes included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qcompiler.quant.integer import dyadic
from tests.quant.functions import (
    gather_cases,
    linear_cases,
    test_elementwise,
    test_pooling,
    test_resize,
    test_softmax,
    weight_only_cases,
)
from tests.quant.integer import norm_cases

__all__ = ["CASES", "Instance", "family", "long_sums"]

Instance: TypeAlias = tuple[list[NDArray[Any]], dict[str, Any]]

BYTE: Final = {"y_zero_point": -3, "to": 3, "low": -128, "high": 127}
WORD: Final = {"y_zero_point": 5, "to": 5, "low": -32768, "high": 32767}


def family(name: str) -> str:
    """The name without the endings of its variants."""
    for ending in ("Shift", "Packed", "Wide"):
        name = name.removesuffix(ending)
    return name


def _variant(name: str) -> linear_cases.Variant:
    return linear_cases.Variant("Wide" in name, "Packed" in name, not name.endswith("Shift"))


def _linear(name: str, random: np.random.Generator) -> Instance:
    base, variant = family(name), _variant(name)
    if base == "QGemm":
        case = linear_cases.gemm_case(random, variant)
    elif base == "QMatMul":
        case = linear_cases.matmul_case(random, variant)
    else:  # ConvInteger has kernels for one and two axes that differ most
        rank, transposed = int(random.integers(1, 3)), base == "QConvTranspose"
        case = linear_cases.conv_case(random, variant, transposed=transposed, rank=rank)
        if base == "QConvChannelsLast":
            case = linear_cases.channels_last(case)
    assert case.name == name
    return case.inputs, case.attributes


def _norm(name: str, random: np.random.Generator) -> Instance:
    types = [(np.int8, np.int8), (np.int8, np.int16), (np.int16, np.int8), (np.int16, np.int16)]
    case = norm_cases.make(
        random,
        rms="RMS" in name,
        size=int(random.choice([3, 48, 257])),
        types=types[random.integers(4)],
        content=norm_cases.CONTENTS[str(random.choice(sorted(norm_cases.CONTENTS)))],
        epsilon=1e-5,
        scale=3e-3,
    )
    return [case.x, *case.inputs], case.attributes


def _softmax(name: str, random: np.random.Generator) -> Instance:
    wide = bool(random.integers(2))
    limits = np.iinfo(np.int16 if wide else np.int8)
    x = random.integers(limits.min, limits.max, (2, 67), endpoint=True).astype(limits.dtype)
    factors = test_softmax.factors(2e-4 if wide else 0.06, 1 / 65535)
    if name.endswith("Shift"):
        powers = (2.0 ** (-24 if wide else -16), 2.0**-8)
        factors = [dyadic.choose_shift(power).shift for power in powers]
    return [x, *factors], {"axis": -1, **WORD}


def _lookup(name: str, random: np.random.Generator) -> Instance:
    if name == "QLookup":
        return [np.arange(-128, 128).astype(np.int8), random.integers(-(1 << 15), 1 << 15, 256).astype(np.int16)], {}
    codes = np.arange(-32768, 32768).astype(np.int16)
    table = np.clip(np.cumsum(random.integers(-40000, 40000, 513)), -(1 << 22), 1 << 22).astype(np.int32)
    return [codes, table], {"curved": int(random.integers(2)), "to": 5, "low": -32768, "high": 32767}


def _logarithmic(name: str, random: np.random.Generator) -> Instance:
    if name == "QLogDequantize":
        values = np.sort(random.integers(-32768, 32767, 16, endpoint=True)).astype(np.int16)
        return [np.arange(-128, 128).astype(np.int8).reshape(2, 128), values], {}
    dtype = [np.int8, np.int16][random.integers(2)]
    limits = np.iinfo(dtype)
    thresholds = np.sort(random.integers(limits.min, limits.max, 15, endpoint=True)).astype(dtype)
    x = random.integers(limits.min, limits.max, (3, 5, 67), endpoint=True).astype(dtype)
    x[0, 0, :17] = [limits.min, limits.max, *thresholds]
    return [x, thresholds], {}


def _elementwise(name: str, random: np.random.Generator) -> Instance:
    kinds = (int(random.choice([3, 5])), int(random.choice([3, 5])), int(random.choice([3, 5])))
    return test_elementwise.case(name, kinds, random)


def _max_pool(_: str, random: np.random.Generator) -> Instance:
    dtype, to = [(np.int8, 3), (np.int16, 5)][random.integers(2)]
    x = linear_cases.codes(random, (2, 3, 37), dtype)
    return [x], {"axis": 2, "kernel": 3, "stride": 2, "dilation": 1, "begin": 1, "end": 1, "to": to}


def _requantize(name: str, random: np.random.Generator) -> Instance:
    dtype = [np.int8, np.int16, np.int32, np.int64][random.integers(4)]
    bound = min(int(np.iinfo(dtype).max), 1 << 40)
    x = random.integers(-bound, bound, (5, 19), endpoint=True).astype(dtype)
    x[0, :2] = [-bound, bound]
    if name.endswith("Shift"):
        return [x, random.integers(1, 63, (5, 1)).astype(np.uint8)], {"x_zero_point": 7, **WORD}
    chosen = dyadic.choose(np.exp(random.uniform(-30, 1, (5, 1))), 31, bound + 7)
    assert chosen.multiplier is not None
    return [x, chosen.multiplier, chosen.shift], {"x_zero_point": 7, **WORD}


def _weight_only(_: str, random: np.random.Generator) -> Instance:
    made = weight_only_cases.case(random, finite=True)
    return made.inputs, made.attributes


CASES: Final[Mapping[str, Callable[[str, np.random.Generator], Instance]]] = {
    "QAdd": _elementwise,
    "QAveragePool": test_pooling.case,
    "QAveragePoolChannelsLast": test_pooling.case,
    "QConcat": _elementwise,
    "QConv": _linear,
    "QConvChannelsLast": _linear,
    "QConvTranspose": _linear,
    "QGather": gather_cases.case,
    "QGatherWeightOnly": gather_cases.case,
    "QGemm": _linear,
    "QGlobalAveragePool": test_pooling.case,
    "QLayerNormalization": _norm,
    "QLogDequantize": _logarithmic,
    "QLogQuantize": _logarithmic,
    "QLookup": _lookup,
    "QLookupInterpolated": _lookup,
    "QMatMul": _linear,
    "QMatMulWeightOnly": _weight_only,
    "QMaxPool": _max_pool,
    "QMul": _elementwise,
    "QRMSNormalization": _norm,
    "QReduceMean": test_pooling.case,
    "QResize": test_resize.case,
    "QSoftmax": _softmax,
    "QSub": _elementwise,
    "Requantize": _requantize,
}
"""Makers of instances by family."""


def long_sums(random: np.random.Generator) -> list[tuple[str, Instance]]:
    """Long sums of products of the greatest codes, in shapes that fill every tile of a matrix kernel."""
    found: list[tuple[str, Instance]] = []
    for wide in (False, True):
        ending, dtype = ("Wide", np.int16) if wide else ("", np.int8)
        least, greatest = np.iinfo(dtype).min, np.iinfo(dtype).max
        for picks in ([greatest], [least], [least, greatest]):
            bias = np.zeros(33, np.int64 if wide else np.int32)
            factor = _factor(300 << (23 if wide else 15), random)
            x = random.choice(picks, (17, 300)).astype(dtype)
            w = random.choice([-128, 127], (300, 33)).astype(np.int8)
            found.append((f"QGemm{ending}", ([x, w, bias, *factor], BYTE)))
            zeros = {"a_zero_point": int(least), "b_zero_point": int(greatest)}
            square = _factor(300 << (32 if wide else 16), random)
            second = random.choice(picks, (300, 33)).astype(dtype)
            found.append((f"QMatMul{ending}", ([x, second, *square], {**zeros, **BYTE})))
            image = random.choice(picks, (1, 33, 9, 8)).astype(dtype)
            kernel = random.choice([-128, 127], (18, 33, 3, 3)).astype(np.int8)
            shape = {"strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1], "group": 1, "x_zero_point": -7}
            found.append((f"QConv{ending}", ([image, kernel, bias[:18, None, None], *factor], {**shape, **BYTE})))
            turned = np.ascontiguousarray(np.moveaxis(image, 1, -1))
            found.append((f"QConvChannelsLast{ending}", ([turned, kernel, bias[:18], *factor], {**shape, **BYTE})))
    return found


def _factor(bound: int, random: np.random.Generator) -> list[NDArray[Any]]:
    chosen = dyadic.choose(float(np.exp2(random.uniform(5, 8))) / bound, 31, bound)
    assert chosen.multiplier is not None
    return [np.asarray(chosen.multiplier), np.asarray(chosen.shift)]
