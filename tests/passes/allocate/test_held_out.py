"""Losses on samples that codes were not fitted on."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis.sensitivity import sensitivity
from qcompiler.calibration import data
from qcompiler.calibration.data import Dataset
from qcompiler.errors import PassError
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate._held_out import divided, held_out_losses, merged
from qcompiler.passes.allocate.alternatives import study_of
from qcompiler.passes.allocate.groups import tie_groups
from qcompiler.passes.allocate.roundings import rounding_named
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.target.load import load


def layer(inputs: int = 48) -> ir.Model:
    """One matrix product with as many inputs as there are samples, or more."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N,{inputs}] x) => (float[N,6] y) {{
       y = Gemm <transB=1> (x, w) }}"""
    proto = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).normal(size=(6, inputs)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    proto.graph.node[0].name = "Gemm_0"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def samples(count: int, inputs: int = 48) -> Dataset:
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.normal(size=(1, inputs)).astype(np.float32)} for _ in range(count)]
    return data.load(feeds, {"x": (np.dtype(np.float32), ("N", inputs))})


@pytest.mark.parametrize(("count", "parts", "judging"), [(40, 2, 20), (41, 2, 20), (40, 3, 13)])
def test_samples_are_divided_at_random_and_always_alike(count: int, parts: int, judging: int) -> None:
    dataset = samples(count)
    first, second = divided(dataset, parts)
    assert (len(first), len(second)) == (count - judging, judging)
    place = {feed["x"].tobytes(): index for index, feed in enumerate(dataset)}
    found = [[place[feed["x"].tobytes()] for feed in part] for part in (first, second)]
    assert sorted(found[0] + found[1]) == list(range(count))
    assert all(part == sorted(part) for part in found)
    assert {index % 2 for index in found[1]} == {0, 1}  # every other sample may be one of drawn words
    assert [part.digest() for part in divided(dataset, parts)] == [first.digest(), second.digest()]


def test_a_layer_of_few_rows_loses_more_on_others() -> None:
    model, dataset = layer(), samples(40)
    ctx = Context(Edit(model), target=load("lowbit-cpu"), calibration=dataset, records=[PassRecord("test")])
    groups, rounding = tie_groups(model, load("lowbit-cpu"), ["w8a8", "w3a8"]).groups, rounding_named("gptq")
    ask = partial(sensitivity, metric="measured")
    found = held_out_losses(model, ctx, groups, rounding, divided(dataset, 2), ask)
    fitted = sensitivity(study_of(model, ctx, groups, rounding))
    assert found.samples == 40
    assert found.losses["Gemm_0"]["w3a8"] > 1.3 * fitted.losses["Gemm_0"]["w3a8"]
    assert found.losses["Gemm_0"]["w8a8"] == pytest.approx(fitted.losses["Gemm_0"]["w8a8"], rel=0.5)


def test_a_loss_is_the_mean_of_both_halves_and_needs_both() -> None:
    model, dataset = layer(), samples(8)
    ctx = Context(Edit(model), target=load("lowbit-cpu"), calibration=dataset)
    study = study_of(model, ctx, tie_groups(model, load("lowbit-cpu"), ["w8a8", "w4a8", "w3a8"]).groups, rounding=())
    one = sensitivity(study)
    losses = {"Gemm_0": {"w8a8": 1.0, "w3a8": 3.0}}
    other = type(one)(**{**vars(one), "losses": losses, "dropped": {("Gemm_0", "w4a8"): "why"}})
    both = merged(one, other)
    assert set(both.losses["Gemm_0"]) == {"w8a8", "w3a8"}
    assert both.losses["Gemm_0"]["w3a8"] == pytest.approx((one.losses["Gemm_0"]["w3a8"] + 3.0) / 2)
    assert both.dropped == {("Gemm_0", "w4a8"): "why"}
    nothing = type(one)(**{**vars(one), "losses": {"Gemm_0": {}}})
    with pytest.raises(PassError, match="no option of 'Gemm_0'"):
        merged(one, nothing)
