"""A profile with 16-bit accumulators, from the command's own interface to the written file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import qcompiler
from qcompiler.analysis.accumulators import accumulators
from qcompiler.errors import QCompilerError
from qcompiler.ir import io
from qcompiler.runtime.interpreter import Interpreter
from qcompiler.target.load import load

PROFILE = """
schema = 1
name = "narrow"
title = "Narrow: accumulators of 16 bits"
description = "A profile whose adders are half as wide as usual, for the test of the accumulator proof."
extends = "edge-npu"
[integer]
accumulator_bits = 16
"""


def write_model(path: Path, channels: int) -> None:
    """A depthwise convolution, Relu, and one that adds up ``channels`` channels."""
    random = np.random.default_rng(3)
    weights = {"w": random.normal(size=(channels, 1, 3, 3)), "v": random.normal(size=(2, channels, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "deep", group=channels, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "v"], ["y"], "point"),
    ]
    held = [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    x, y = (helper.make_tensor_value_info(name, 1, ["N", size, 6, 6]) for name, size in (("x", channels), ("y", 2)))
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "narrow.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


def samples(channels: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(5)
    return [{"x": random.normal(size=(1, channels, 6, 6)).astype(np.float32)} for _ in range(24)]


def test_layers_are_narrowed_until_no_sum_leaves_16_bits(tmp_path: Path, profile: Path) -> None:
    source, output = tmp_path / "model.onnx", tmp_path / "out.onnx"
    write_model(source, 6)
    feeds = samples(6)
    found = qcompiler.compile(source, str(profile), calibration=feeds, output=output, latency=False, cache=False)
    sums = accumulators(io.load(output), load(str(profile)).integer)
    products = [item for item in sums if item.op_type == "QConv"]
    assert len(products) == 2
    assert all(item.safe and item.available == 16 for item in products)
    (record,) = (part for part in found.report.passes if part.text.startswith("check-accumulators"))
    assert any("bits less, because its sums could leave 16 bits" in note.text for note in record.notes)
    interpreter = Interpreter(output)
    for feed in feeds[:4]:
        interpreter.run(feed)  # every integer is checked


def test_a_layer_that_cannot_be_narrowed_enough_is_refused_by_name(tmp_path: Path, profile: Path) -> None:
    source, output = tmp_path / "model.onnx", tmp_path / "out.onnx"
    write_model(source, 400)
    with pytest.raises(QCompilerError) as caught:
        qcompiler.compile(source, str(profile), calibration=samples(400), output=output, latency=False, cache=False)
    text = str(caught.value)
    assert "point" in text
    assert "accumulators of narrow have 16" in text
    assert "--exclude" in text
    assert not output.exists()
    qcompiler.compile(
        source, str(profile), calibration=samples(400), output=output, latency=False, cache=False, exclude=("point",)
    )
    assert output.exists()
