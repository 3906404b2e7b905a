"""The roofline: products or bytes, whichever takes longer."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import onnx_ir as ir
import pytest

from qcompiler.analysis.roofline import roofline
from qcompiler.analysis.work import macs
from qcompiler.errors import TargetError
from qcompiler.ir.edit import Edit
from qcompiler.ir.shapes import infer
from qcompiler.passes.allocate.assign_formats import AssignFormats
from qcompiler.pipeline.base import Context
from qcompiler.target.cost import CostFacts
from qcompiler.target.load import load

RATES = MappingProxyType({"w8a8": 10.0, "w8a16": 5.0, "float": 1.0})


def seconds(model: ir.Model, form: str, facts: CostFacts) -> dict[str, float]:
    infer(model)
    AssignFormats().run(model, Context(Edit(model), target=load("edge-npu"), format=form))
    return {node.op_type: roofline(model, facts)[str(node.name)] for node in model.graph}


@pytest.mark.parametrize(("form", "rate"), [("w8a8", 10), ("w4a8", 10), ("w8a16", 5)])
def test_products_bound_a_target_with_wide_memory(small_cnn: ir.Model, form: str, rate: int) -> None:
    found = seconds(small_cnn, form, CostFacts(100.0, RATES, 1e12))
    conv = next(node for node in small_cnn.graph if node.op_type == "Conv")
    assert found["Conv"] == pytest.approx(macs(conv) / (100 * rate))
    assert found["Relu"] == found["Flatten"] == 0


def test_bytes_bound_a_target_with_narrow_memory(small_cnn: ir.Model) -> None:
    facts = CostFacts(1e15, RATES, 1000.0)
    eight, four = (seconds(small_cnn, form, facts) for form in ("w8a8", "w4a8"))
    gemm = next(node for node in small_cnn.graph if node.op_type == "Gemm")
    assert gemm.inputs[1] is not None
    assert gemm.inputs[1].const_value is not None
    assert eight["Gemm"] - four["Gemm"] == pytest.approx(gemm.inputs[1].const_value.size / 2 / 1000)
    inside = seconds(small_cnn, "w8a8", CostFacts(1e15, RATES, 1000.0, sram=1 << 20, node_overhead=0.5))
    assert inside["MaxPool"] == pytest.approx(0.5)
    assert eight["MaxPool"] > 0
    assert inside["Gemm"] < eight["Gemm"] + 0.5


def test_of_a_table_the_rows_that_are_looked_up_cost_bandwidth(parse: Callable[[str], ir.Model]) -> None:
    numbers = ", ".join(["0.5"] * 40)
    model = parse(f"""<ir_version: 10, opset_import: ["" : 21]> g (int64[2, 3] i) => (float[2, 3, 4] y)
        <float[10, 4] t = {{{numbers}}}> {{ y = Gather (t, i) }}""")
    model.graph[0].name = "look"
    facts = CostFacts(1e15, RATES, 1000.0, sram=1 << 20)
    assert roofline(model, facts)["look"] == pytest.approx(6 * 4 * 4 / 1000)


def test_a_format_without_a_rate_takes_the_nearest_wider_one() -> None:
    facts = CostFacts(1.0, RATES, 1.0)
    assert [facts.rate(4, 8), facts.rate(8, 8), facts.rate(2, 16), facts.rate(16, 16)] == [10, 10, 5, 1]
    assert facts.rate(4, None) == facts.rate(None, None) == 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"clock": 0.0}, "clock"),
        ({"bandwidth": float("nan")}, "bandwidth"),
        ({"sram": -1}, "sram"),
        ({"node_overhead": float("inf")}, "node_overhead"),
        ({"macs_per_cycle": {"w8a8": 1.0}}, "macs_per_cycle"),
        ({"macs_per_cycle": {"w8": 1.0, "float": 1.0}}, "macs_per_cycle.w8"),
        ({"macs_per_cycle": {"w8a8": -1.0, "float": 1.0}}, "macs_per_cycle.w8a8"),
        ({"macs_per_cycle": {"w0a0": 1.0, "float": 1.0}}, "macs_per_cycle.w0a0"),
        ({"macs_per_cycle": {"w99a99": 1.0, "float": 1.0}}, "macs_per_cycle.w99a99"),
        ({"macs_per_cycle": {"w8a33": 1.0, "float": 1.0}}, "macs_per_cycle.w8a33"),
        ({"macs_per_cycle": {"w08a8": 1.0, "float": 1.0}}, "macs_per_cycle.w08a8"),
        ({"macs_per_cycle": {"w8a8\n": 1.0, "float": 1.0}}, "macs_per_cycle.w8a8\n"),
        ({"macs_per_cycle": {"w8a8": 1e-300, "float": 1.0}}, "macs_per_cycle.w8a8"),
        ({"macs_per_cycle": {"w8a8": 1.0, "float": 10**400}}, "macs_per_cycle.float"),
        ({"clock": 1e-320}, "clock"),
        ({"clock": 10**5000}, "clock"),
        ({"bandwidth": 1e300}, "bandwidth"),
        ({"run_overhead": 1e300}, "run_overhead"),
    ],
)
def test_nonsense_is_refused_with_its_key(change: dict[str, object], key: str) -> None:
    given = {"clock": 1.0, "macs_per_cycle": dict(RATES), "bandwidth": 1.0} | change
    with pytest.raises(TargetError) as caught:
        CostFacts(**given)  # type: ignore[arg-type]
    assert caught.value.where == key
