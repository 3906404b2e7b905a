"""split-concat: the model computes what it did, parts of a skip connection keep scales of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.errors import UsageError
from qcompiler.ir import originals
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.passes.calibrate.calibrate import Calibrate
from qcompiler.passes.calibrate.calibrate_weights import CalibrateWeights
from qcompiler.passes.calibrate.judge import relative_error
from qcompiler.passes.equalize.split_concat import SplitConcat
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.target.load import load

ALWAYS = SplitConcat(when="always")


def unet(make: SimpleNamespace, *, small: float = 1.0, readers: int = 1) -> ir.Model:
    """Down once and up again: the skip connection joins the first features, ``small`` times as large, with the last."""
    random = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (12, 8, 3, 3), "w3": (12, 12, 3, 3), "w4": (12, 8, 2, 2), "w6": (5, 6, 1, 1)}
    content = {name: (random.standard_normal(shape) / 5).astype(np.float32) for name, shape in shapes.items()}
    content |= {"w5": (random.standard_normal((6, 16, 3, 3)) / 5).astype(np.float32), "w7": content["w6"][:, :1] + 0}
    content["w5"][:, :8] /= small
    content["w7"] = (random.standard_normal((6, 16, 3, 3)) / 5).astype(np.float32)
    content |= {"b5": random.standard_normal(6).astype(np.float32), "factor": np.array(small, np.float32)}
    nodes = [
        make.node("Conv", "x w1", "a", pads=[1, 1, 1, 1]),
        make.node("Tanh", "a", "b"),
        make.node("Mul", "b factor", "skip"),
        make.node("MaxPool", "b", "c", kernel_shape=[2, 2], strides=[2, 2]),
        make.node("Conv", "c w2", "d", pads=[1, 1, 1, 1]),
        make.node("Relu", "d", "e"),
        make.node("Conv", "e w3", "f", pads=[1, 1, 1, 1]),
        make.node("Relu", "f", "g"),
        make.node("ConvTranspose", "g w4", "h", strides=[2, 2]),
        make.node("Concat", "skip h", "j", axis=1),
        make.node("Conv", "j w5 b5", "k", pads=[1, 1, 1, 1]),
        make.node("Relu", "k", "l"),
    ]
    if readers > 1:
        nodes += [make.node("Conv", "j w7", "m", pads=[1, 1, 1, 1]), make.node("Add", "l m", "n")]
    nodes.append(make.node("Conv", f"{'n' if readers > 1 else 'l'} w6"))
    if readers == 1:
        del content["w7"]
    return make.build(nodes, ["N", 3, 8, 8], **content)  # type: ignore[no-any-return]


@pytest.mark.parametrize("readers", [1, 2])
def test_the_layers_behind_a_skip_concat_are_split(make: SimpleNamespace, readers: int) -> None:
    model = unet(make, readers=readers)
    before = make.kinds(model)
    context = make.run(model, ALWAYS)
    after = make.kinds(model)
    assert "Concat" not in after
    assert after.count("Conv") == before.count("Conv") + readers
    assert after.count("Add") == before.count("Add") + readers
    added = 2 * readers - 1
    assert context.records[0].notes[0].text == f"split the layers behind 1 of 1 Concat nodes; {added} nodes added"
    assert {str(value.name) for node in model.graph for value in node.outputs} >= {"k", "l", "y"}


@pytest.mark.parametrize("transposed", [0, 1])
def test_products_of_three_parts(make: SimpleNamespace, transposed: int) -> None:
    random = np.random.default_rng(1)
    weight = random.standard_normal((12, 5)).astype(np.float32)
    nodes = [make.node("Relu", "x", "a"), make.node("Tanh", "x", "b"), make.node("Concat", "a fixed b", "j", axis=-1)]
    nodes += [make.node("Gemm", "j w b1", transB=transposed)]
    model = make.build(
        nodes,
        [3, 4],
        w=np.ascontiguousarray(weight.T) if transposed else weight,
        fixed=random.standard_normal((3, 4)).astype(np.float32),
        b1=random.standard_normal(5).astype(np.float32),
    )
    make.run(model, ALWAYS)
    assert make.kinds(model) == ["Relu", "Tanh", "Gemm", "Gemm", "Add", "Gemm", "Add"]
    text = [make.node("Tanh", "x", "b"), make.node("Concat", "x b", "j", axis=2), make.node("MatMul", "j w")]
    model = make.build(text, ["N", 5, 6], w=weight)
    make.run(model, ALWAYS)
    assert make.kinds(model) == ["Tanh", "MatMul", "MatMul", "Add"]


def samples(model: ir.Model) -> Any:
    random = np.random.default_rng(5)
    feeds = [{"x": random.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]
    return data.load(feeds, data.inputs_of(model))


def test_samples_tell_whether_parts_are_alike(make: SimpleNamespace) -> None:
    for small, split in ((0.01, True), (1.0, False)):
        model = unet(make, small=small)
        context = Context(Edit(model), calibration=samples(model), records=[PassRecord("split-concat")])
        SplitConcat().run(model, context)
        assert ("Concat" not in make.kinds(model)) is split
        assert split or "its parts are alike" in make.skipped(context)
    model = unet(make)
    context = Context(Edit(model), records=[PassRecord("split-concat")])
    SplitConcat().run(model, context)
    assert "no calibration sample tells how large its parts are" in make.skipped(context)


def test_scales_of_their_own_lower_the_error(make: SimpleNamespace) -> None:
    """The skip is a hundredth as large as what it joins, and its weights a hundred times as large."""
    errors = {}
    for split in (False, True):
        model = unet(make, small=0.01)
        context = Context(Edit(model), target=load("edge-npu"), calibration=samples(model))
        context.records.append(PassRecord("split-concat"))
        reference = Runner(originals.restored(model))
        if split:
            SplitConcat().run(model, context)
        for step in (AssignFormats(), Calibrate(), CalibrateWeights()):
            step.run(model, context)
        assert context.calibration is not None
        candidate = Runner(materialized(model))
        errors[split] = relative_error(reference, candidate, context.calibration, context, "test")
    assert errors[True] < errors[False] / 4


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([("Relu", "j", "r"), ("Conv", "r w", "y")], "Relu_r (Relu) reads it as a whole"),
        ([("Conv", "j w", "y")], "Conv_y behind it sums over groups of channels"),
    ],
)
def test_refusals(make: SimpleNamespace, nodes: list[tuple[str, str, str]], reason: str) -> None:
    grouped = len(nodes) == 1
    made = [make.node("Concat", "x x", "j", axis=1)]
    made += [make.node(kind, inputs, output, **({"group": 2} if grouped else {})) for kind, inputs, output in nodes]
    weight = np.ones((4, 4 if grouped else 8, 1, 1), np.float32)
    context = make.run(make.build(made, [1, 4, 3, 3], w=weight), ALWAYS)
    assert context.edit.count == 0
    assert reason in make.skipped(context)


def test_the_ratio_is_at_least_one(make: SimpleNamespace) -> None:
    model = unet(make)
    with pytest.raises(UsageError, match="ratio"):
        SplitConcat(ratio=0.5).run(model, Context(Edit(model)))
