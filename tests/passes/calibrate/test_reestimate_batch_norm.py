"""Statistics of BatchNormalization move by what rounding does, and only where that helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.calibration import data
from qcompiler.calibration.given_weights import WEIGHTS
from qcompiler.errors import DataError, UsageError
from qcompiler.ir import constants
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.calibrate.reestimate_batch_norm import ReestimateBatchNorm
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, PassRecord

TEXT = """<ir_version: 10, opset_import: ["" : 21]> g (float[N,3,8,8] x) => (float[N,4] y) {
   a = Conv <pads=[1,1,1,1]> (x, w1)
   n1 = BatchNormalization (a, g1, b1, m1, v1)
   r = Relu(n1)
   c = Conv <pads=[1,1,1,1], group=6> (r, w2)
   n2 = BatchNormalization (c, g2, b2, m2, v2)
   s = Relu(n2)
   p = GlobalAveragePool(s)
   f = Flatten(p)
   y = Gemm <transB=1> (f, w3) }"""


def prepared(samples: int = 40) -> tuple[ir.Model, Context]:
    """A network whose statistics are those of its calibration samples."""
    proto = onnx.parser.parse_model(TEXT)
    random = np.random.default_rng(2)
    shapes = {"w1": (6, 3, 3, 3), "w2": (6, 1, 3, 3), "w3": (4, 6)}
    content: dict[str, Any] = {name: 0.2 + random.standard_normal(shape) for name, shape in shapes.items()}
    for index in "12":
        content |= {f"g{index}": random.uniform(0.5, 2, 6), f"b{index}": random.standard_normal(6)}
        content |= {f"m{index}": np.zeros(6), f"v{index}": np.ones(6)}
    for name, array in content.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{index}"
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    feeds = [{"x": np.abs(random.standard_normal((1, 3, 8, 8))).astype(np.float32)} for _ in range(samples)]
    context = Context(Edit(model), records=[PassRecord("reestimate-batch-norm")])
    context.calibration = data.load(feeds, data.inputs_of(model))
    for index, name in (("1", "a"), ("2", "c")):
        seen = np.concatenate([Runner(model, [name]).run(feed)[name] for feed in feeds])
        for kind, array in (("m", seen.mean((0, 2, 3))), ("v", seen.var((0, 2, 3)))):
            context.edit.set_constant(model.graph.initializers[kind + index], array.astype(np.float32))
    return model, context


def content(model: ir.Model, name: str) -> Any:
    return np.asarray(constants.array(model.graph.initializers[name]), np.float64)


def _best(weight: Any, limit: int) -> Any:
    """By brute force: the share of its largest weight at which each row loses least."""
    shares = []
    for row in weight.reshape(len(weight), -1):
        errors = {}
        for share in np.linspace(1.0, 0.4, 25):
            scale = np.abs(row).max() / limit * share
            errors[share] = np.square(np.clip(np.rint(row / scale), -limit, limit) * scale - row).sum()
        shares.append(min(errors, key=lambda share: errors[share]))
    return np.array(shares).reshape(-1, 1, 1, 1)


def test_first_statistics_are_those_behind_rounded_weights() -> None:
    model, context = prepared()
    weight = content(model, "w1")
    scale = np.abs(weight).max((1, 2, 3), keepdims=True) / 127 * _best(weight, 127)
    ReestimateBatchNorm(guard=False).run(model, context)
    assert context.calibration is not None
    copy = model.clone()
    copy.graph.initializers["w1"].const_value = ir.Tensor(
        (np.clip(np.rint(weight / scale), -127, 127) * scale).astype(np.float32)
    )
    seen = np.concatenate([Runner(copy, ["a"]).run(feed)["a"] for feed in context.calibration])
    np.testing.assert_allclose(content(model, "m1"), seen.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(content(model, "v1"), seen.var((0, 2, 3)), rtol=1e-3)
    np.testing.assert_array_equal(content(model, "w1"), weight)  # only statistics change


def test_later_statistics_see_the_earlier_ones() -> None:
    """Behind rounded weights every normalization gives what it gave: mean and variance of its result are the same."""
    model, context = prepared()
    assert context.calibration is not None
    before = [Runner(model, ["n1", "n2"]).run(feed) for feed in context.calibration]
    which = ReestimateBatchNorm(bits=3, guard=False)
    which.run(model, context)
    rounded = which._rounded(model)
    after = [Runner(rounded, ["n1", "n2"]).run(feed) for feed in context.calibration]
    for name in ("n1", "n2"):
        old, new = (np.concatenate([run[name] for run in runs]) for runs in (before, after))
        np.testing.assert_allclose(new.mean((0, 2, 3)), old.mean((0, 2, 3)), atol=1e-3)
        np.testing.assert_allclose(new.std((0, 2, 3)), old.std((0, 2, 3)), rtol=1e-3)


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_samples_left_out_decide(granularity: str) -> None:
    model, context = prepared()
    before = content(model, "m1")
    (which,) = spec.resolve(f"reestimate-batch-norm{{bits=3 granularity={granularity}}}")
    which.run(model, context)
    text = context.records[0].notes[-1].text
    assert "output error on 5 samples left out" in text
    kept = text.startswith("measured 2 BatchNormalization nodes anew")
    assert kept != np.array_equal(content(model, "m1"), before)


def test_what_does_not_prove_itself_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from qcompiler.passes.calibrate import reestimate_batch_norm

    model, context = prepared(8)
    count = context.edit.count
    verdicts = iter([1.0, 1.0])
    monkeypatch.setattr(reestimate_batch_norm, "relative_error", lambda *_: next(verdicts))
    ReestimateBatchNorm(bits=3).run(model, context)
    assert context.edit.count == count
    assert context.records[0].notes[-1].text.startswith("new statistics of BatchNormalization were rejected")


def test_refusals() -> None:
    model, context = prepared(4)
    with pytest.raises(UsageError, match="weights of 1 bits"):
        ReestimateBatchNorm(bits=1).run(model, context)
    for each in spec.resolve("fold-batch-norm"):
        each.run(model, context)
    ReestimateBatchNorm().run(model, context)
    assert context.records[0].notes[-1].text.startswith("no BatchNormalization is left to measure")
    model, context = prepared(4)
    context.calibration = None
    with pytest.raises(DataError, match="needs calibration samples"):
        ReestimateBatchNorm().run(model, context)


def test_a_tensor_that_others_read_stays_what_it_is() -> None:
    model, ctx = prepared()
    node = next(node for node in model.graph if node.op_type == "GlobalAveragePool")
    ctx.edit.replace_uses(node.outputs[0], ctx.edit.insert("GlobalMaxPool", [next(
        item.outputs[0] for item in model.graph if item.name == "Conv_3")], before=node).outputs[0])  # fmt: skip
    ctx.edit.remove(node)
    ReestimateBatchNorm().run(model, ctx)
    skips = {item.node: item.reason for item in ctx.records[0].skips}
    assert skips["BatchNormalization_4 (BatchNormalization)"].startswith("something else reads what it normalizes")


@pytest.mark.parametrize("shape", [(16,), (16, 3)], ids=["samples", "positions"])
def test_weights_of_positions_are_said_not_to_count(shape: tuple[int, ...]) -> None:
    model, context = prepared(16)
    x = np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)
    weights = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    context.calibration = data.load({"x": x, WEIGHTS: weights}, data.inputs_of(model))
    ReestimateBatchNorm().run(model, context)
    said = [note.text for note in context.records[0].notes if "weights of positions" in note.text]
    assert len(said) == len(shape) - 1
