"""All kernels by operator."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from qcompiler.runtime.standard import codes, moves, numbers, pooling, shapes
from qcompiler.runtime.standard.kernel import Kernel

__all__ = ["KERNELS"]

KERNELS: Final[Mapping[str, Kernel]] = MappingProxyType(
    {**codes.KERNELS, **moves.KERNELS, **numbers.KERNELS, **pooling.KERNELS, **shapes.KERNELS}
)
"""Kernels of standard operators; they keep the operator's meaning in operator sets 7 to 26."""
