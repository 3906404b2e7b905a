"""Normalizations and Softmax: every result depends on a whole row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from qcompiler.analysis.backward.rule import (
    Array,
    Gradients,
    Inputs,
    Node,
    Pullback,
    Rule,
    UnknownFormError,
    given,
    optional,
    unbroadcast,
)

__all__ = ["RULES"]


def _layer_norm(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    """``y = γ n + β``, ``n = (x - mean) / s``, ``s² = var + ε`` over the trailing axes.

    With ``h = γ ∂y``: ``∂x = (h - mean(h) - n · mean(h n)) / s``.
    """
    return _normalized(node, inputs, centred=True)


def _rms_norm(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    """``y = γ n``, ``n = x / s``, ``s² = mean(x²) + ε``: ``∂x = (h - n · mean(h n)) / s``."""
    return _normalized(node, inputs, centred=False)


def _normalized(node: Node, inputs: Inputs, *, centred: bool) -> tuple[Array, Pullback]:
    data, scale, bias = given(inputs, 0), given(inputs, 1), optional(inputs, 2)
    if node.outputs > 1:
        raise UnknownFormError("mean and deviation as results of their own")
    axes = tuple(range(node.integer("axis", -1) % data.ndim, data.ndim))
    epsilon = data.dtype.type(float(node.attributes.get("epsilon", 1e-5)))
    middle = data - data.mean(axis=axes, keepdims=True) if centred else data
    deviation = np.sqrt((middle * middle).mean(axis=axes, keepdims=True) + epsilon)
    normal = middle / deviation
    result = normal * scale if bias is None else normal * scale + bias

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        found: list[Array | None] = [None, None]
        if wanted[0]:
            inner = gradient * scale
            along = inner - normal * (inner * normal).mean(axis=axes, keepdims=True)
            found[0] = (along - inner.mean(axis=axes, keepdims=True) if centred else along) / deviation
        if wanted[1]:
            found[1] = unbroadcast(gradient * normal, scale.shape)
        if bias is not None:
            found.append(unbroadcast(gradient, bias.shape) if wanted[2] else None)
        return found

    return result, pullback


def _batch_norm(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    """The affine map of inference, ``y = (x - mean) · γ / √(var + ε) + β``: statistics are constants."""
    data = given(inputs, 0)
    if node.integer("training_mode", 0):
        raise UnknownFormError("statistics of the batch")
    scale, bias, mean, variance = (given(inputs, index) for index in range(1, 5))
    shape = (-1, *(1 for _ in range(data.ndim - 2)))
    root = np.sqrt(variance + data.dtype.type(float(node.attributes.get("epsilon", 1e-5))))
    normal = (data - mean.reshape(shape)) / root.reshape(shape)
    others = (0, *range(2, data.ndim))

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        if any(wanted[3:]):
            raise UnknownFormError("gradients of kept statistics")
        return [
            gradient * (scale / root).reshape(shape) if wanted[0] else None,
            (gradient * normal).sum(axis=others) if wanted[1] else None,
            gradient.sum(axis=others) if wanted[2] else None,
            None,
            None,
        ]

    return normal * scale.reshape(shape) + bias.reshape(shape), pullback


def _softmax(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    """``∂x = y · (∂y - Σ ∂y y)`` along the axis."""
    data = given(inputs, 0)
    axis = node.integer("axis", -1)
    raised = np.exp(data - data.max(axis=axis, keepdims=True))
    result = raised / raised.sum(axis=axis, keepdims=True)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        del wanted
        return [result * (gradient - (gradient * result).sum(axis=axis, keepdims=True))]

    return result, pullback


def _reduced(mean: bool, node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    """ReduceMean and ReduceSum; axes are an attribute or an operand."""
    data, operand = given(inputs, 0), optional(inputs, 1)
    axes = node.integers("axes") if operand is None else [int(axis) for axis in operand.reshape(-1)]
    if not axes and node.integer("noop_with_empty_axes", 0):
        return data, lambda gradient, wanted: [gradient, *(None for _ in wanted[1:])]
    along = tuple(sorted(axis % data.ndim for axis in axes)) if axes else tuple(range(data.ndim))
    kept = tuple(1 if axis in along else size for axis, size in enumerate(data.shape))
    share = math.prod(data.shape[axis] for axis in along) if mean else 1
    result = data.sum(axis=along, keepdims=bool(node.integer("keepdims", 1))) / data.dtype.type(share)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        part = gradient.reshape(kept) / data.dtype.type(share)
        return [np.broadcast_to(part, data.shape), *(None for _ in wanted[1:])]

    return np.asarray(result), pullback


def _reduce_mean(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    return _reduced(True, node, inputs)


def _reduce_sum(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    return _reduced(False, node, inputs)


RULES: Final[dict[str, Rule]] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "RMSNormalization": _rms_norm,
    "Softmax": _softmax,
}
