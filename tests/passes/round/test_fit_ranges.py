"""fit-ranges: scales of few-bit activations follow what is computed from them, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.errors import DataError, PipelineError
from qcompiler.ir.copies import shared_copy
from qcompiler.ir.execute import Runner
from qcompiler.passes.calibrate.choose_log_formats import ChooseLogFormats
from qcompiler.passes.calibrate.judge import relative_error
from qcompiler.passes.place.simulate import materialized
from qcompiler.passes.round import fit_ranges
from qcompiler.passes.round.fit_ranges import FitRanges
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context
from qcompiler.quant import state
from qcompiler.quant.state import TensorQuant

BLOCK = """a = Conv <pads=[1,1,1,1]> (x, w1) r = Relu(a) b = Conv <pads=[1,1,1,1]> (r, w2) s = Relu(b)
           c = Conv <pads=[1,1,1,1]> (s, w3) d = Add(c, r) t = Relu(d) y = Conv(t, w4)"""
SHAPES = {"w1": (8, 4, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 3, 3), "w4": (4, 8, 1, 1)}
INPUT, OUTPUT = "float[N,4,6,6] x", "float[N,4,6,6] y"


def feeds(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Images of heavy tails: the clip of least error of a tensor is not that of what is computed from it."""
    random = np.random.default_rng(seed)
    return [{"x": random.laplace(0, 1, (1, 4, 6, 6)).astype(np.float32) ** 3} for _ in range(count)]


def decisions(model: ir.Model) -> dict[str, TensorQuant]:
    """Decisions on values by name, those of edges by reader and input."""
    found = {str(value.name): quant for value, quant in state.quantized_values(model.graph)}
    for node in model.graph:
        for index in range(len(node.inputs)):
            own = state.own_edge_quant(node, index)
            if isinstance(own, TensorQuant):
                found[f"{node.name}[{index}]"] = own
    return found


def error(model: ir.Model, ctx: Context, held: list[dict[str, np.ndarray]]) -> float:
    """Of the quantized model's outputs on other samples."""
    from qcompiler.calibration import data

    dataset = data.load(held, data.inputs_of(model))
    return relative_error(Runner(shared_copy(model)), Runner(materialized(model)), dataset, ctx, "test")


def notes(ctx: Context) -> str:
    return " ".join(note.text for record in ctx.records for note in record.notes)


@pytest.fixture
def block(calibrated: Callable) -> tuple[ir.Model, Context]:
    return calibrated(BLOCK, INPUT, OUTPUT, SHAPES, feeds(24), "w8a4", "lowbit-cpu")


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """``lowbit-cpu`` with 8-bit weights beside 4-bit activations: what is seen is the error of activations alone."""
    from dataclasses import replace

    from qcompiler.target import load as loading

    target = loading.load("lowbit-cpu")
    target = replace(target, formats=(*target.formats, "w8a4"))
    monkeypatch.setattr("tests.passes.round.conftest.load", lambda _: target)


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("unit", ["block", "layer"])
def test_outputs_of_other_samples_are_nearer_and_only_narrow_scales_change(calibrated: Callable, unit: str) -> None:
    model, ctx = calibrated(BLOCK, INPUT, OUTPUT, SHAPES, feeds(24), "w8a4", "lowbit-cpu")
    held = feeds(16, seed=1)
    old, before = decisions(model), error(model, ctx, held)
    FitRanges(unit=unit).run(model, ctx)  # type: ignore[arg-type]
    new = decisions(model)
    changed = {name for name in old if old[name] != new[name]}
    assert changed
    assert changed <= {"Conv_b[0]", "s", "t"}  # what convolutions read; the residual stream "r" keeps its 8 bits
    for name in changed:
        assert new[name].format == old[name].format
        assert new[name].params.zero_point == old[name].params.zero_point
        assert 0.4 < float(new[name].params.scale / old[name].params.scale) < 2
    assert error(model, ctx, held) < before
    assert f"fitted {len(changed)} ranges" in notes(ctx)


@pytest.mark.usefixtures("offered")
def test_a_unit_that_is_not_better_on_samples_left_out_keeps_its_ranges(
    block: tuple[ir.Model, Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_ranges, "_searched", lambda _run, start, *_: dict.fromkeys(start, 0.05))
    model, ctx = block
    old = decisions(model)
    FitRanges().run(model, ctx)
    assert decisions(model) == old
    assert "keeps its ranges; output error on 3 samples left out" in notes(ctx)
    assert "fitted 0 ranges" in notes(ctx)


@pytest.mark.usefixtures("offered")
def test_a_bias_keeps_its_room(calibrated: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """No scale gets below that at which 32 bits hold the bias."""
    tried: list[float] = []
    monkeypatch.setattr(fit_ranges, "least_factor", lambda _: np.array([0.1, 0.85]))
    scaled = fit_ranges._scaled
    monkeypatch.setattr(fit_ranges, "_scaled", lambda s, f: tried.extend(f.values()) or scaled(s, f))
    model, ctx = calibrated(BLOCK, INPUT, OUTPUT, SHAPES, feeds(8), "w8a4", "lowbit-cpu")
    FitRanges().run(model, ctx)
    assert min(tried) >= 0.85


@pytest.mark.usefixtures("offered")
def test_codes_that_are_moved_from_unit_to_unit_keep_their_scale(calibrated: Callable) -> None:
    body = "a = Conv(x, w1) r = Relu(a) p = MaxPool <kernel_shape=[2,2]> (r) y = Conv(p, w2)"
    shapes = {"w1": (8, 4, 1, 1), "w2": (4, 8, 1, 1)}
    model, ctx = calibrated(body, INPUT, "float y", shapes, feeds(8), "w8a4", "lowbit-cpu")
    old = decisions(model)
    FitRanges().run(model, ctx)
    assert decisions(model) == old
    reasons = [skip.reason for record in ctx.records for skip in record.skips]
    assert "what it reads has a scale that other units share" in reasons


def test_without_few_bits_there_is_nothing_to_do(calibrated: Callable) -> None:
    model, ctx = calibrated(BLOCK, INPUT, OUTPUT, SHAPES, feeds(8), "w4a8", "lowbit-cpu")
    ctx.calibration = None
    FitRanges().run(model, ctx)
    assert "no layer reads codes of less than 8 bits" in notes(ctx)


@pytest.mark.usefixtures("offered")
def test_samples_are_asked_for(block: tuple[ir.Model, Context]) -> None:
    model, ctx = block
    ctx.calibration = None
    with pytest.raises(DataError, match="calibration samples"):
        FitRanges().run(model, ctx)


@pytest.mark.parametrize("option", ["samples=0", "batch=0", "batch=-8"])
def test_there_is_something_to_fit_to(option: str) -> None:
    with pytest.raises(PipelineError, match=f"{option} is below 1"):
        spec.parse(f"fit-ranges{{{option}}}")


def test_a_grid_has_no_range_to_fit(calibrated: Callable) -> None:
    samples = [{"x": feed["x"].reshape(1, 4, 36)} for feed in feeds(8)]
    body, weights = "p = Softmax (x) y = MatMul (p, w)", {"w": (36, 8)}
    model, ctx = calibrated(body, "float[N,4,36] x", "float[N,4,8] y", weights, samples, "w4a4", "lowbit-cpu")
    ChooseLogFormats(bits=4).run(model, ctx)
    before = decisions(model)
    assert str(before["p"].format) == "log4"
    FitRanges().run(model, ctx)
    assert "no layer reads codes of less than 8 bits" in notes(ctx)
    assert decisions(model) == before
