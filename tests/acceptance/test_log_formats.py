"""Attention weights in codes of few bits, from the command line to the files: ``--format w8a8/log4``."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from qcompiler.analysis.integer_only import integer_only
from qcompiler.ir import io
from qcompiler.quant.functions.definition import DOMAIN
from qcompiler.target.legality import check_model
from qcompiler.target.load import load
from tests.acceptance.conftest import session

FORMAT = "w8a8/log4"
TARGET = "lowbit-cpu"


def types(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_no_float_stands_between_codes_and_their_product(compiled):
    made = compiled("digits_vit", TARGET, "--format", FORMAT)
    assert types(made.path)["QLogQuantize"] == types(made.path)["QLogDequantize"] == 6  # 3 Softmax, 3 Gelu
    found = integer_only(io.load(made.path))
    assert found.tensors == ()
    assert found.holds, found
    assert check_model(io.load(made.path), load(TARGET)) == []
    graph = onnx.load(made.path).graph
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "QLogDequantize":
            readers = [reader.op_type for reader in graph.node if node.output[0] in reader.input]
            assert readers
            assert all(reader.startswith(("QMatMulWide", "QGemmWide")) for reader in readers)
        if node.op_type == "QLogQuantize":
            assert makers[node.input[0]].domain == DOMAIN


def test_three_executions_give_the_same_integers(compiled, bitwise):
    made = compiled("digits_vit", TARGET, "--format", FORMAT)
    run, count = bitwise(made)
    agreement = made.subject.evaluate(run, limit=100)["agree"]
    assert count.integers > 0
    assert count.different == 0
    assert agreement >= 99


def test_a_plan_gives_the_same_file(compiled, tmp_path):
    made = compiled("digits_vit", TARGET, "--format", FORMAT)
    grids = {name: entry for name, entry in made.plan["values"].items() if entry["format"] == "log4"}
    assert len(grids) == 6
    assert all(set(entry) == {"format", "grid"} for entry in grids.values())
    written = Path(f"{made.path}".removesuffix("onnx") + "plan.json")
    command = [str(Path(sys.executable).with_name("qcompile")), str(made.subject.model), "--target", TARGET]
    command += ["--calibration", str(made.subject.calibration), "--format", FORMAT, "--plan", str(written)]
    command += ["-o", str(tmp_path / "again.onnx"), "--quiet", "--no-cache", "--no-latency", "--effort", "quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert types(tmp_path / "again.onnx") == types(made.path)
    feed = {}
    with np.load(made.subject.calibration) as arrays:
        feed = {item.name: arrays[item.name][:20] for item in session(made.path).get_inputs()}
    first, second = (session(path).run(None, feed)[0] for path in (made.path, tmp_path / "again.onnx"))
    np.testing.assert_array_equal(first, second)


def test_the_form_of_q_and_dq(compiled):
    made = compiled("digits_vit", TARGET, "--format", FORMAT, "--lowering", "qdq")
    found = types(made.path)
    assert found["QLogQuantize"] == found["QLogDequantize"] == 6
    assert found["MatMul"] > 0
    assert check_model(io.load(made.path), load(TARGET)) == []
    run = session(made.path)
    assert made.subject.evaluate(lambda feed: run.run(None, feed), limit=100)["agree"] >= 99
    assert made.plan == compiled("digits_vit", TARGET, "--format", FORMAT).plan


def test_what_a_target_does_not_offer_is_refused(tmp_path):
    command = [str(Path(sys.executable).with_name("qcompile")), "digits_vit", "--target", "cpu-x86"]
    command += ["--format", FORMAT, "-o", str(tmp_path / "no.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cpu-x86 keeps no tensor in codes along a grid" in done.stderr
    assert "leave /log4 out" in done.stderr
    assert list(tmp_path.iterdir()) == []
