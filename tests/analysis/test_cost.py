"""Predictions: measured shapes exactly, others by a fit; tables are data, and bad ones are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from qcompiler.analysis.cost import CostModel, cross_check, in_width
from qcompiler.analysis.cost_table import CostPoint, CostTable, load_table, table_text
from qcompiler.analysis.machine import Machine, this_machine
from qcompiler.analysis.predicted import predict_latency
from qcompiler.analysis.workload import Workload, workload
from qcompiler.errors import UsageError

MACHINE = Machine("some processor", "Linux x86_64", 2, "1.31.1", "0.1.0 abc")


def _point(macs: int, size: int, microseconds: float, kind: str = "QGemm", form: str = "w8a8") -> CostPoint:
    return CostPoint(kind, form, f"{macs}/{size}", "avx2", 1, macs, size, microseconds, microseconds / 2)


def _roofline(macs: int, size: int) -> float:
    return 2.0 + macs / 50_000 + size / 10_000


def _table(*points: CostPoint) -> CostTable:
    return CostTable("lowbit-cpu", "2026-01-01T00:00:00+00:00", MACHINE, 10.0, 8.0, points)


SHAPES = [(10_000, 2_000), (100_000, 9_000), (1_000_000, 30_000), (5_000_000, 900_000), (200_000, 150_000)]
TABLE = _table(*(_point(*shape, _roofline(*shape)) for shape in SHAPES))


def test_what_was_measured_is_exact() -> None:
    model = CostModel(TABLE)
    assert model.cost(Workload("QGemm", "w8a8", "10000/2000", 10_000, 2_000)) == (_roofline(10_000, 2_000), "measured")


@pytest.mark.parametrize(("macs", "size"), [(50_000, 5_000), (2_000_000, 100_000), (700_000, 700_000)])
def test_what_follows_the_roofline_is_found(macs: int, size: int) -> None:
    cost, source = CostModel(TABLE).cost(Workload("QGemm", "w8a8", "new", macs, size))
    assert source == "fitted"
    assert cost == pytest.approx(_roofline(macs, size), rel=0.01)


def test_kinds_and_formats_without_points_are_unknown() -> None:
    model = CostModel(TABLE)
    assert model.cost(Workload("QGemm", "w4a8", "10000/2000", 1, 1)) == (0.0, "unknown")
    assert model.cost(Workload("Gelu", "float", "", 0, 1)) == (0.0, "unknown")


def test_minima_are_a_statistic_of_their_own() -> None:
    model = CostModel(TABLE, statistic="minimum")
    assert model.cost(Workload("QGemm", "w8a8", "10000/2000", 1, 1))[0] == _roofline(10_000, 2_000) / 2


def test_an_instruction_set_that_was_not_measured() -> None:
    with pytest.raises(UsageError, match="nothing on neon at 1 threads"):
        CostModel(TABLE, isa="neon")
    with pytest.raises(UsageError, match="at 2 threads"):
        CostModel(TABLE, threads=2)


def test_no_fit_is_ever_negative() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        macs, sizes = random.integers(1, 10**8, 6), random.integers(1, 10**7, 6)
        points = [_point(int(m), int(s), float(random.uniform(0, 900))) for m, s in zip(macs, sizes, strict=True)]
        model = CostModel(_table(*points))
        for m, s in random.integers(0, 10**9, (20, 2)):
            cost, _ = model.cost(Workload("QGemm", "w8a8", "new", int(m), int(s)))
            assert np.isfinite(cost)
            assert cost >= 0


def test_one_point_scales_by_nothing() -> None:
    model = CostModel(_table(_point(1000, 1000, 5.0)))
    assert model.cost(Workload("QGemm", "w8a8", "new", 1000, 1000))[0] == pytest.approx(5.0)


def test_cross_check_says_how_far_off_the_others_are() -> None:
    count, median, greatest = cross_check(TABLE, "avx2", 1)["QGemm", "w8a8"]
    assert count == len(SHAPES)
    assert median <= greatest < 0.25
    odd = _table(*TABLE.points, _point(300_000, 20_000, 1000.0))
    assert cross_check(odd, "avx2", 1)["QGemm", "w8a8"][2] > 0.5


def _gemm() -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    array = onnx.numpy_helper.from_array
    weights = {"w": np.ones((24, 10), np.int8), "b": np.zeros(10, np.int32), "m": np.ones(10, np.int32),
               "c": np.ones(10, np.uint8)}  # fmt: skip
    node = helper.make_node("QGemm", ["x", *weights], ["y"], "gemm", domain="ai.qcompiler")
    graph = helper.make_graph([node], "g", [info("x", 3, ["N", 24])], [info("y", 3, ["N", 10])],
                              [array(value, name) for name, value in weights.items()])  # fmt: skip
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("ai.qcompiler", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def test_another_width_moves_fewer_bytes() -> None:
    proto = _gemm()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    node = ir.from_proto(proto).graph[0]
    plain = workload(node)
    assert plain is not None
    narrow = in_width(node, plain, 2)
    assert (narrow.format, plain.bytes - narrow.bytes) == ("w2a8", 240 - 60)
    assert in_width(node, plain, 8) == plain


def test_a_model_is_predicted_and_the_widths_compared(tmp_path: Path) -> None:
    path = tmp_path / "gemm.onnx"
    onnx.save(_gemm(), path)
    points = [dataclasses.replace(_point(240, 400, 6.0), format=form, microseconds=cost)
              for form, cost in (("w8a8", 6.0), ("w4a8", 4.0))]  # fmt: skip
    found = predict_latency(path, _table(*points), (8, 4, 2))
    assert found.milliseconds == pytest.approx(0.016)
    assert found.widths == pytest.approx({8: 0.016, 4: 0.014}, rel=1e-2)  # nothing is known of 2 bits
    assert any("measured elsewhere" in text for text in found.warnings)
    assert [node.source for node in found.prediction.nodes] == ["fitted"]


def test_a_node_between_others_costs_more(tmp_path: Path) -> None:
    path = tmp_path / "gemm.onnx"
    onnx.save(_gemm(), path)
    table = dataclasses.replace(_table(_point(240, 400, 6.0)), between_microseconds=2.5)
    assert predict_latency(path, table, (8,)).milliseconds == pytest.approx(0.0185)


def test_what_is_unknown_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gemm.onnx"
    onnx.save(_gemm(), path)
    here = dataclasses.replace(_table(_point(1, 1, 1.0, "QConv/spatial")), machine=this_machine())
    found = predict_latency(path, here, (8,))
    assert [text for text in found.warnings if "QGemm w8a8" in text]
    assert not any("elsewhere" in text for text in found.warnings)


# -- the file --------------------------------------------------------------------------------------------------


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    table = dataclasses.replace(TABLE, skipped=("QSoftmax: no",), between_minimum=0.5)
    path.write_text(table_text(table), encoding="utf-8")
    assert load_table(path) == table
    assert len(path.read_text(encoding="utf-8").splitlines()) < 30 + len(SHAPES)


def _data(**changes: Any) -> dict[str, Any]:
    return json.loads(table_text(TABLE)) | changes


def _with_point(name: str, value: Any) -> str:
    data = _data()
    data["points"][0][name] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "no cost table"),
        ("{", "not JSON"),
        ("\udcff", "not JSON"),
        (json.dumps({"schema": 9, "points": []}), "has version 9"),
        (json.dumps(_data(points=[])), "1 to 20000 points"),
        (json.dumps(_data(points=[3])), "point 0"),
        (json.dumps(_data(machine=None)), "machine"),
        (json.dumps(_data(run_microseconds=-1)), "'run_microseconds' is not a number"),
        (json.dumps(_data(target=7)), "'target' is not a text"),
        (json.dumps(_data(skipped="x")), "'skipped' is not a list"),
        (_with_point("microseconds", float("nan")), "microseconds"),
        (_with_point("macs", 1.5), "'macs' is not a whole"),
        (_with_point("kind", "x" * 9000), "'kind' is not a text"),
        ("[" * 100_000, "not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=words):
        load_table(path)


def test_a_table_that_is_too_large_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_table(tmp_path / "nowhere.json")
    path = tmp_path / "table.json"
    path.write_text(table_text(TABLE), encoding="utf-8")
    monkeypatch.setattr("qcompiler.analysis.cost_table._LARGEST", 100)
    with pytest.raises(UsageError, match="at most"):
        load_table(path)


def test_machines_are_compared() -> None:
    assert this_machine().differences(this_machine()) == ()
    other = dataclasses.replace(MACHINE, cpu="another")
    assert MACHINE.differences(other) == ("cpu: some processor, not another",)
