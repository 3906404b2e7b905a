"""Slow dense forms of the rounding methods, as their papers write them: one output channel, one column at a time."""

from __future__ import annotations

import numpy as np


def snap(value: float, scale: float, zero: float, minimum: int, maximum: int) -> float:
    return (min(max(round(value / scale) + zero, minimum), maximum) - zero) * scale


def gptq(weights: np.ndarray, hessian: np.ndarray, order: np.ndarray, grid: list[tuple], limits: tuple) -> np.ndarray:
    """GPTQ of one row: an inverse Hessian, updated by elimination after every column (Optimal Brain Quantization)."""
    real, inverse, done = weights.astype(np.float64), np.linalg.inv(hessian), []
    result = np.empty_like(real)
    for column in order:
        result[column] = snap(real[column], *grid[column], *limits)
        factor = inverse[:, column] / inverse[column, column]
        real = real - factor * (real[column] - result[column])
        inverse = inverse - np.outer(factor, inverse[column])
        done.append(column)
        inverse[done, :] = inverse[:, done] = 0.0
        inverse[done, done] = 1.0
    return result


def objective(weights: np.ndarray, real: np.ndarray, inputs: np.ndarray, missing: np.ndarray) -> float:
    """Mean of ``|missing + inputs (weights - real)|^2``."""
    return float(np.square(missing + inputs @ (weights - real)).mean())
