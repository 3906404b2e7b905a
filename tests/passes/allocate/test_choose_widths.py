"""Widths are chosen by what 8 bits cost the outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.calibration.data import load as load_data
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.allocate.choose_widths import ChooseWidths
from qcompiler.passes.allocate.widths import is_narrow
from qcompiler.pipeline.base import Context
from qcompiler.pipeline.spec import parse
from qcompiler.quant import state
from qcompiler.target.load import load


def prepared(models_folder: Path, target: str, **options: object) -> tuple[ir.Model, Context]:
    model = io.load(models_folder / "digits_vit.onnx")
    inputs = {str(value.name): (np.dtype(np.float32), tuple(value.shape or ())) for value in model.graph.inputs}
    data = load_data(models_folder / "digits_calibration.npz", inputs).subset(range(32))
    ctx = Context(edit=Edit(model), target=load(target), calibration=data, **options)  # type: ignore[arg-type]
    for step in parse("normalize"):
        step.run(model, ctx)
    return model, ctx


def wide_kinds(model: ir.Model) -> set[str]:
    return {
        node.op_type
        for node in model.graph
        for index in range(len(node.inputs))
        if (quant := state.edge_quant(node, index)) is not None and quant.format.bits == 16
    }


def test_what_loses_at_8_bits_stays_wide_and_the_rest_does_not(models_folder: Path) -> None:
    model, ctx = prepared(models_folder, "edge-npu")
    ChooseWidths().run(model, ctx)
    narrow = {node.op_type for node in model.graph if is_narrow(node)}
    AssignFormats().run(model, ctx)
    assert "LayerNormalization" in wide_kinds(model)
    assert narrow
    assert not narrow & wide_kinds(model)
    note = ctx.records[-1].notes[-1].text
    assert "16 bits stay at" in note
    assert all(kind in note for kind in narrow)


def test_a_tolerance_decides_how_much_may_be_lost(models_folder: Path) -> None:
    model, ctx = prepared(models_folder, "edge-npu")
    ChooseWidths(tolerance=1e9, samples=4).run(model, ctx)
    AssignFormats().run(model, ctx)
    assert not wide_kinds(model)


@pytest.mark.parametrize(("target", "options"), [("cpu-x86", {}), ("edge-npu", {"format": "w8a16"})])
def test_nothing_is_measured_where_there_is_nothing_to_choose(
    models_folder: Path, target: str, options: dict[str, str]
) -> None:
    model, ctx = prepared(models_folder, target, **options)
    before = len(ctx.records[-1].notes) if ctx.records else 0
    ChooseWidths().run(model, ctx)
    assert not any(is_narrow(node) for node in model.graph)
    assert (len(ctx.records[-1].notes) if ctx.records else 0) == before
