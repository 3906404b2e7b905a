"""All rules by operator."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from qcompiler.analysis.backward import codes, convolution, elementwise, moves, norms, pooling, products, unary
from qcompiler.analysis.backward.rule import Rule

__all__ = ["RULES"]

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        **codes.RULES,
        **convolution.RULES,
        **elementwise.RULES,
        **moves.RULES,
        **norms.RULES,
        **pooling.RULES,
        **products.RULES,
        **unary.RULES,
    }
)
"""Rules of standard operators in operator sets 13 to 25."""
