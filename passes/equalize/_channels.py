"""What is known of the channels of a graph: where labels begin, what they pass, where they end (``_channel_walk``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from qcompiler.passes.equalize._layout import Labels, Layout
from qcompiler.passes.equalize._producers import Linear, Norm
from qcompiler.passes.equalize._union import SignedUnion

__all__ = ["Balance", "Channels", "Meeting", "Reader", "Source"]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where labels begin: output ``i`` of ``maker`` has label ``first + i``."""

    maker: Linear | Norm
    first: int

    @property
    def count(self) -> int:
        """Number of channels."""
        return self.maker.size[1] if isinstance(self.maker, Linear) else self.maker.size

    @property
    def labels(self) -> Labels:
        """All its labels."""
        return np.arange(self.first, self.first + self.count)

    def among(self, reasons: Mapping[int, str]) -> dict[int, str]:
        """Reasons for its labels, by output."""
        return {index: reasons[self.first + index] for index in range(self.count) if self.first + index in reasons}


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A matrix product that takes labels in; input ``i`` has label ``labels[i]``."""

    layer: Linear
    labels: Labels
    shifted: bool


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """A product of two labelled tensors: ``left[..., i]`` multiplies ``right[..., i]``.

    Attributes:
        node: The MatMul.
        left: Labels of the left operand, ``(…, depth)``, with the axes of its batch.
        right: Labels of the right operand, likewise.
    """

    node: ir.Node
    left: Labels
    right: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Balance:
    """A layer whose bias takes a shift back, behind whose result the shifted tensor is added."""

    layer: Linear
    labels: Labels


@dataclass(slots=True, eq=False)
class Channels:
    """What is known of a graph's channels.

    Attributes:
        sources: In graph order.
        readers: Matrix products that take labels in.
        meetings: Products of two labelled tensors.
        balances: Layers that take a shift back.
        averages: Products ``softmax(S) V`` that labels pass as their right operand.
        layouts: Labels of every labelled tensor.
        shifted: Tensors that a shift of their labels still reaches.
        union: Ties of labels.
        stuck: Why a label cannot be multiplied.
        still: Why a label cannot be shifted.
        refused: Nodes whose constants cannot be changed, with the reason.
    """

    sources: list[Source] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)
    balances: list[Balance] = field(default_factory=list)
    averages: list[tuple[ir.Node, Layout]] = field(default_factory=list)
    layouts: dict[ir.Value, Layout] = field(default_factory=dict)
    shifted: set[ir.Value] = field(default_factory=set)
    union: SignedUnion = field(default_factory=SignedUnion)
    stuck: dict[int, str] = field(default_factory=dict)
    still: dict[int, str] = field(default_factory=dict)
    refused: list[tuple[ir.Node, str]] = field(default_factory=list)

    def stop(self, value: ir.Value, reason: str, *, scale: bool = True) -> None:
        """What reads ``value`` lets no shift through, and no factor unless told otherwise."""
        for label in self.layouts[value].all().tolist():
            if scale:
                self.stuck.setdefault(label, reason)
            if value in self.shifted:
                self.still.setdefault(label, reason)

    def hold(self, labels: Iterable[int], reason: str) -> None:
        """Labels that cannot be shifted."""
        for label in labels:
            self.still.setdefault(label, reason)
