"""Which sizes open dimensions have where costs depend on them: those of the largest calibration sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import onnx_ir as ir

from qcompiler.analysis.workload import bind_dimensions
from qcompiler.calibration import made_up
from qcompiler.calibration.data import Dataset, inputs_of
from qcompiler.ir.copies import shared_copy

__all__ = ["Shapes", "bind_open", "bound_copy", "input_shapes", "shapes_text"]

Shapes: TypeAlias = Mapping[str, Sequence[int]]
"""A shape by name of an input."""


def input_shapes(model: ir.Model, data: Dataset | None) -> dict[str, tuple[int, ...]]:
    """Shapes of all inputs: per dimension the largest of the samples; of made-up samples where there are none."""
    return made_up.shapes(inputs_of(model)) if data is None else data.largest_shapes()


def bind_open(model: ir.Model, shapes: Shapes | None) -> None:
    """Give open dimensions of a model their sizes; ``None`` takes those of a made-up sample."""
    if any(_open(value) for value in model.graph.inputs):
        bind_dimensions(model, input_shapes(model, None) if shapes is None else shapes)


def bound_copy(model: ir.Model, shapes: Shapes | None) -> ir.Model:
    """A copy of a model without open dimensions (:func:`bind_open`)."""
    copy = shared_copy(model)
    bind_open(copy, shapes)
    return copy


def shapes_text(model: ir.Model, shapes: Shapes) -> str:
    """The shapes of inputs with open dimensions; empty where nothing is open."""
    names = [str(value.name) for value in model.graph.inputs if _open(value)]
    return ", ".join(f"{name} [{', '.join(map(str, shapes[name]))}]" for name in names if name in shapes)


def _open(value: ir.Value) -> bool:
    return value.shape is None or not value.shape.is_static()
