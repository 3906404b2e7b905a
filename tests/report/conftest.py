"""A report with everything in it, and one with as little as possible."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcompiler.report.accumulators import AccumulatorPart, AccumulatorsPart
from qcompiler.report.formats import (
    CandidatePart,
    FormatsPart,
    FrontPointPart,
    GroupPart,
    LossBoundPart,
    ResourcePart,
)
from qcompiler.report.measured import (
    BisectPart,
    CoveragePart,
    FallbackPart,
    FloatNodePart,
    IntegerPart,
    IntervalPart,
    IslandPart,
    LatencyPart,
    LayerPart,
    OperatorPart,
    OutputPart,
    QualityPart,
    SizePart,
    TimesPart,
    TimingPart,
    UnmeasuredPart,
)
from qcompiler.report.model import Report
from qcompiler.report.parts import DataPart, FilePart, GatesPart, ModelPart, NotePart, PassPart, SkipPart, TargetPart


def _output(name: str, sqnr: float, **changes: object) -> OutputPart:
    values: dict[str, object] = {
        "name": name, "kind": "classes", "samples": 16, "rows": 16, "decided": 16, "sqnr": sqnr, "cosine": 0.9991,
        "cosine_min": 0.9971, "kl": 0.00312, "agreement": 100.0, "top1": 98.4, "top1_float": 98.8,
        "max_abs_error": 0.21, "exact": None, "custom": None,
    }  # fmt: skip
    return OutputPart(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def full_report() -> Report:
    layers = tuple(LayerPart(f"/b{i}/conv_output_0", f"/b{i}/conv", "Conv", 40.0 - i, 0.01 * i) for i in range(8))
    files = (FilePart("digits_cnn.onnx", 156_000, "ab" * 32),), (FilePart("out.onnx", 51_000, "cd" * 32),)
    return Report(
        compiler="0.1.0",
        model=ModelPart("digits_cnn", files[0], 156_000, 17, 8, 52),
        compiled=ModelPart("digits_cnn.cpu-x86.onnx", files[1], 51_000, 21, 10, 121),
        target=TargetPart("cpu-x86", "x86-64 with VNNI, through ONNX Runtime", True),
        configuration={"format": "w8a8 (default of the profile)", "metric": "sqnr"},
        calibration=DataPart("digits_calibration.npz", 112, "0" * 32),
        evaluation=DataPart("digits_calibration.npz", 16, None, True, False, ("the last 16 of 128 were held out",)),
        passes=(
            PassPart("fold-batch-norm", 14, (SkipPart("bn3", "its weight is shared"),), (NotePart("info", "fine"),)),
            PassPart("place-qdq", 80),
        ),
        coverage=CoveragePart(
            30, 2, 93.75, 99.5, 0.5, (OperatorPart("Conv", 14, 0, 10_000_000, 0), OperatorPart("Softmax", 0, 2, 0, 0)),
            (FallbackPart("softmax", "Softmax", "it makes a graph output: 8-bit probabilities would tie", 0),
             FallbackPart("softmax2", "Softmax", "it makes a graph output: 8-bit probabilities would tie", 0)),
        ),
        accumulators=AccumulatorsPart(
            "conv1", 7, 59, (AccumulatorPart("conv1", "QConv", -9_000_000, 8_000_000, 25, 32, 7, 59),
                              AccumulatorPart("scores", "QMatMul", -65_025, 65_025, 18, 32, 14, 52, 33_025)),
        ),
        integer=IntegerPart(
            False, 3, (IslandPart((FloatNodePart("sine", "Sin"),), 3, ("Sin has no integer form",)),),
            (FloatNodePart("embedding", "Gather"),), (FloatNodePart("softmax", "Softmax"),), ("split",),
        ),
        quality=QualityPart(
            "sqnr", "dB", True, 27.5, 16,
            (_output("logits", 31.25), _output("features", 27.5, kind="vector", top1=None, top1_float=None)),
            layers, tuple(layer.value for layer in layers[:2:-1]), 8,
        ),
        size=SizePart(156_000, 51_000, 3.058824),
        gates=GatesPart({"min-sqnr": 20.0}, True, ()),
        bisect=(BisectPart("input", 200.0), BisectPart("place-qdq", 27.5)),
        warnings=("ranges were fitted on random noise",),
        unmeasured=(UnmeasuredPart("top1", "no labels"),),
        timing=TimingPart(
            2.5, (0.5, 0.25),
            LatencyPart(TimesPart(1.25, 1.0, 99), TimesPart(0.5, 0.4375, 99), IntervalPart(2.5, 2.25, 2.75), 1, False),
        ),
    )  # fmt: skip


@pytest.fixture
def mixed_report(full_report: Report) -> Report:
    """Formats chosen among three, one layer exempt, with a bound on the loss."""
    groups = (
        GroupPart("/stem/Conv", ("/stem/Conv", "/stem/Relu"), 144, "w8a8", 0.0, {}, 400.0,
                  "first-last: it is the first layer with weights; 72 bytes more"),
        GroupPart("/features/stage1/block2/branch/conv2/Conv", ("/features/stage1/block2/branch/conv2/Conv",), 9216,
                  "w4a8", 0.015, {"w8a8": 0.001, "w4a8": 0.015, "w2a8": 0.7}, 5000.0),
        GroupPart("/fc/Gemm", ("/fc/Gemm",), 640, "w8a8", 0.005, {"w8a8": 0.005, "w4a8": 0.25}, 700.0),
    )  # fmt: skip
    formats = FormatsPart(
        base="w8a8",
        candidates=(CandidatePart("w8a8", 8, 8, 2, 784, 1100.0), CandidatePart("w4a8", 4, 8, 1, 9216, 5000.0),
                    CandidatePart("w2a8", 2, 8, 0, 0, 0.0)),
        metric="measured", samples=112, groups=groups,
        resources=(ResourcePart("size", 52_000.0, 51_020.0, 51_000.0), ResourcePart("bops", None, 2e9, None)),
        loss=0.02, bound=0.018, gap=0.002, proof="enumeration", measured=0.0234, comparable=True,
        loss_bound=LossBoundPart("kl", 0.05, 0.031, 0.00312, 3, 4),
        front=(FrontPointPart(0.7, {"size": 40_000.0}), FrontPointPart(0.02, {"size": 51_020.0})),
        dropped={"/fc/Gemm: w2a8": "the outputs are not finite"},
    )  # fmt: skip
    assert full_report.quality is not None
    outputs = (replace(full_report.quality.outputs[0], softened_kl=0.0234), full_report.quality.outputs[1])
    return replace(full_report, formats=formats, quality=replace(full_report.quality, outputs=outputs))


@pytest.fixture
def bare_report() -> Report:
    part = ModelPart("m.onnx", (FilePart("m.onnx", 10, "00"),), 10, 21, 10, 1)
    target, size = TargetPart("edge-npu", "", False), SizePart(10, 10, 1.0)
    return Report("0.1.0", part, part, target, size, GatesPart({}, True, ()))
