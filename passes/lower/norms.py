"""LayerNormalization and RMSNormalization with a constant factor, in integers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcompiler.ir import patterns
from qcompiler.passes.lower.emitter import Emitter
from qcompiler.passes.lower.site import Codes, Lowering, NoIntegerForm, Site
from qcompiler.quant.annotations import Annotation, annotate
from qcompiler.quant.integer import norm_parameters
from qcompiler.quant.integer.norm_parameters import NormParameters

__all__ = ["LOWERINGS"]

_EPSILON: Final = 1e-5
"""What ONNX adds under the root where a node does not say."""


@dataclass(frozen=True, slots=True, eq=False)
class _Norm:
    """A normalization whose rows and factor are known.

    Attributes:
        site: Its group.
        data: The codes it reads.
        axes: The normalized axes counted from the end.
        size: Codes in a row.
        gamma: The factor; broadcasts against the data.
    """

    site: Site
    data: Codes
    axes: tuple[int, ...]
    size: int
    gamma: NDArray[Any]

    def parameters(self, beta: NDArray[Any] | None) -> NormParameters:
        """The constants; without ``beta`` those of RMSNorm.

        Raises:
            NoIntegerForm: 64 bits do not hold it.
        """
        x, y = _limits(self.data), _limits(self.site.output)
        epsilon = patterns.number(self.site.node, "epsilon", _EPSILON)
        bits = self.site.arithmetic.multiplier_bits
        if not bits:
            raise NoIntegerForm("a normalization multiplies, and the target's arithmetic only shifts")
        try:
            if beta is None:
                return norm_parameters.rms_parameters(x, y, self.gamma, size=self.size, epsilon=epsilon, bits=bits)
            return norm_parameters.layer_parameters(x, y, self.gamma, beta, size=self.size, epsilon=epsilon, bits=bits)
        except ValueError as error:
            raise NoIntegerForm(str(error)) from error


def _layer_normalization(site: Site, emitter: Emitter) -> ir.Value:
    norm = _norm(site)
    beta = np.zeros(()) if len(site.node.inputs) < 3 or site.node.inputs[2] is None else site.constant(2)
    if beta is None:
        raise NoIntegerForm("its shift is not constant")
    return _emit(norm, norm.parameters(beta), emitter, "QLayerNormalization", {"size": norm.size})


def _rms_normalization(site: Site, emitter: Emitter) -> ir.Value:
    norm = _norm(site)
    return _emit(norm, norm.parameters(None), emitter, "QRMSNormalization", {"x_zero_point": norm.data.zero_point})


def _norm(site: Site) -> _Norm:
    """What both have in common.

    Raises:
        NoIntegerForm: The factor is not constant, or the length of a row is not known.
    """
    data = site.codes(0)
    gamma = site.constant(1)
    if gamma is None:
        raise NoIntegerForm("its factor is not constant")
    axis, dimensions = patterns.integer(site.node, "axis", -1), patterns.rank(data.value)
    if axis >= 0:
        if dimensions is None:
            raise NoIntegerForm("the rank of its input is not known")
        axis -= dimensions
    row = _row_shape(data.value, -axis, gamma)
    return _Norm(site, data, tuple(range(axis, 0)), math.prod(row), gamma)


def _row_shape(value: ir.Value, dimensions: int, gamma: NDArray[Any]) -> tuple[int, ...]:
    """Shape of what is normalized together: of the data where it is known, else of the factor."""
    shape = patterns.static_shape(value)
    row = None if shape is None else shape[-dimensions:]
    if row is None or None in row:
        # a factor of size 1 may be broadcast
        if gamma.ndim != dimensions or 1 in gamma.shape:
            raise NoIntegerForm("the number of elements it normalizes together is not known")
        row = gamma.shape
    return tuple(int(size) for size in row if size is not None)


def _limits(codes: Codes) -> norm_parameters.Codes:
    """The codes as far as the arithmetic must hold them: all of the type, whatever a clamp says."""
    limits = np.iinfo(codes.dtype.numpy())
    return norm_parameters.Codes(codes.scale, codes.zero_point, int(limits.min), int(limits.max))


def _emit(norm: _Norm, found: NormParameters, emitter: Emitter, op_type: str, own: Mapping[str, int]) -> ir.Value:
    output = norm.site.output
    low, high = norm.site.clamp()
    names = ("multiplier", "bias", "shift") if op_type == "QLayerNormalization" else ("multiplier", "shift")
    constants = [emitter.constant(f"{output.of}_{name}", getattr(found, name)) for name in names]
    result = emitter.emit(
        op_type,
        [norm.data.value, *constants],
        {
            "axes": list(norm.axes),
            **own,
            "left": found.left,
            "right": found.right,
            "epsilon": found.epsilon,
            "root_shift": found.root_shift,
            "y_zero_point": output.zero_point,
            "to": output.dtype.value,
            "low": low,
            "high": high,
        },
        name=output.of,
        dtype=output.dtype,
        shape=output.value.shape,
    )
    annotate(result, Annotation(output.of, output.scale, output.zero_point))
    return result


def _refused(reason: str) -> Lowering:
    def refuse(site: Site, emitter: Emitter) -> ir.Value:  # noqa: ARG001 - the signature of a lowering
        raise NoIntegerForm(reason)

    return refuse


LOWERINGS: Final[Mapping[str, Lowering]] = MappingProxyType(
    {
        "LayerNormalization": _layer_normalization,
        "RMSNormalization": _rms_normalization,
        "InstanceNormalization": _refused(
            "InstanceNormalization has no integer form: its rows are the pixels of a map"
        ),
        "GroupNormalization": _refused("GroupNormalization has no integer form: its factor varies within a row"),
    }
)
