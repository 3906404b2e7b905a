"""Matrix products: MatMul (batched and broadcast) and Gemm."""

from __future__ import annotations

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
    given,
    optional,
    unbroadcast,
)

__all__ = ["RULES"]


def _matmul(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    """``Y = A B``: ``∂A = ∂Y Bᵀ`` and ``∂B = Aᵀ ∂Y``, summed over repeated leading axes."""
    del node
    first, second = given(inputs, 0), given(inputs, 1)
    # A vector is a row on the left and a column on the right, and the axis that makes it one is dropped.
    left = first[None, :] if first.ndim == 1 else first
    right = second[:, None] if second.ndim == 1 else second
    full = np.matmul(left, right)
    result = np.matmul(first, second) if 1 in (first.ndim, second.ndim) else full

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        whole = gradient.reshape(full.shape)
        into_first = into_second = None
        if wanted[0]:
            into_first = unbroadcast(np.matmul(whole, np.swapaxes(right, -1, -2)), left.shape).reshape(first.shape)
        if wanted[1]:
            into_second = _into_right(left, whole, right).reshape(second.shape)
        return into_first, into_second

    return np.asarray(result), pullback


def _into_right(left: Array, gradient: Array, right: Array) -> Array:
    if right.ndim == 2:  # the usual weight: one product over all rows
        return np.asarray(left.reshape(-1, left.shape[-1]).T @ gradient.reshape(-1, gradient.shape[-1]))
    return unbroadcast(np.matmul(np.swapaxes(left, -1, -2), gradient), right.shape)


def _gemm(node: Node, inputs: Inputs) -> tuple[Array, Pullback]:
    """``Y = alpha A' B' + beta C``."""
    first, second, bias = given(inputs, 0), given(inputs, 1), optional(inputs, 2)
    alpha, beta = float(node.attributes.get("alpha", 1.0)), float(node.attributes.get("beta", 1.0))
    left = first.T if node.integer("transA", 0) else first
    right = second.T if node.integer("transB", 0) else second
    result = left @ right
    if alpha != 1.0:
        result *= alpha
    if bias is not None:
        result = result + (bias if beta == 1.0 else beta * bias)

    def pullback(gradient: Array, wanted: Sequence[bool]) -> Gradients:
        scaled = gradient if alpha == 1.0 else alpha * gradient
        found: list[Array | None] = [None, None]
        if wanted[0]:
            found[0] = (scaled @ right.T).T if left is not first else scaled @ right.T
        if wanted[1]:
            found[1] = (left.T @ scaled).T if right is not second else left.T @ scaled
        if bias is not None:
            found.append(beta * unbroadcast(gradient, bias.shape) if wanted[2] else None)
        return found

    return result, pullback


RULES: Final[dict[str, Rule]] = {"Gemm": _gemm, "MatMul": _matmul}
