"""bitwise(): counts differences down to the last bit, and knows which ones count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis import bitwise as module
from qcompiler.analysis.bitwise import bitwise
from qcompiler.calibration.data import Dataset, load
from qcompiler.errors import DataError, UsageError, VerificationError
from qcompiler.quant.functions.catalogue import attach
from qcompiler.runtime.library import library_path

Parse = Callable[[str], ir.Model]
HEAD = '<ir_version: 10, opset_import: ["" : 21, "ai.qcompiler" : 1]>\n'
SCALES = "<float s = {0.05}, int8 z = {3}, int32 b = {1518500250}, uint8 c = {31}, float[4] w = {1,2,3,4}>"


def text(tail: str = "y = DequantizeLinear(r, s, z)", zero: int = -5) -> str:
    return f"""{HEAD}m (float[N,4] x) => (float[N,4] y) {SCALES} {{
  q = QuantizeLinear(x, s, z)
  r = ai.qcompiler.Requantize<x_zero_point=3, y_zero_point={zero}, to=3, low=-100, high=127>(q, b, c)
  {tail}
}}"""


@pytest.fixture
def write(parse: Parse, tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, source: str) -> Path:
        model = parse(source)
        attach(model)
        path = tmp_path / f"{name}.onnx"
        onnx.save(ir.to_proto(model), path)
        return path

    return make


@pytest.fixture
def data() -> Dataset:
    samples = np.random.default_rng(0).normal(0, 2, size=(20, 4)).astype(np.float32)
    return load({"x": samples}, {"x": (np.float32, (None, 4))})


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_interpreter_and_the_runtime_agree(write: Callable[..., Path], data: Dataset, batch: int) -> None:
    result = bitwise(write("m", text()), None, data, interpreter=True, codes=True, batch=batch)
    assert [(row.name, row.kind, row.dtype, row.elements, row.judged) for row in result.rows] == [
        ("y", "output", "float32", 80, True), ("r", "codes", "int8", 80, True),
    ]  # fmt: skip
    assert result.equal
    assert result.samples == 20


@pytest.mark.parametrize("batch", [1, 6])
def test_the_first_difference_is_found(write: Callable[..., Path], data: Dataset, batch: int) -> None:
    """The second model has other codes wherever the first does not saturate."""
    first, second = write("a", text()), write("b", text(zero=-4))
    result = bitwise(first, second, data, codes=True, batch=batch)
    output, codes = result.rows
    assert output.mismatches == codes.mismatches > 60
    assert not result.equal
    assert result.mismatches == 2 * codes.mismatches
    assert codes.largest == 1
    assert output.first == codes.first == (0, 0)
    assert codes.values is not None
    assert int(codes.values[1]) - int(codes.values[0]) == 1


def test_float_nodes_behind_the_codes_are_shown_but_not_judged(write: Callable[..., Path], data: Dataset) -> None:
    source = text("d = DequantizeLinear(r, s, z)\n y = Mul(d, w)")
    first, second = write("a", source), write("b", source.replace("Mul(d, w)", "Div(d, w)"))
    result = bitwise(first, second, data, codes=True)
    assert [(row.judged, row.mismatches > 0) for row in result.rows] == [(False, True), (True, False)]
    assert result.equal
    assert not bitwise(first, second, data).equal


def test_one_bit_is_a_difference() -> None:
    one = np.array([0.0, np.nan, 1.0], np.float32)
    other = np.array([-0.0, np.nan, np.nextafter(np.float32(1), np.float32(2))], np.float32)
    column = module._Column("y", "output", True)
    column.update(4, one, other)
    row = column.row()
    assert (row.mismatches, row.first, row.values) == (2, (4,), ("0.0", "-0.0"))
    assert row.largest == pytest.approx(2.0**-23)


def test_another_type_or_shape_differs_everywhere() -> None:
    column = module._Column("y", "output", True)
    column.update(0, np.zeros((2, 3), np.int8), np.zeros((2, 3), np.int16))
    assert (column.row().mismatches, column.row().values) == (6, ("int8 [2, 3]", "int16 [2, 3]"))


def test_renamed_outputs_are_matched_by_position(write: Callable[..., Path], data: Dataset) -> None:
    renamed = text().replace("=> (float[N,4] y)", "=> (float[N,4] out)").replace("y = Deq", "out = Deq")
    assert bitwise(write("a", text()), write("b", renamed), data).equal


def test_what_cannot_be_compared_is_refused(write: Callable[..., Path], data: Dataset) -> None:
    path = write("a", text())
    with pytest.raises(UsageError, match="nothing to be compared with"):
        bitwise(path, None, data)
    with pytest.raises(DataError, match="no samples"):
        bitwise(path, path, data.subset([]))
    other = write("b", f"{HEAD}m (float[N,4] x) => (float[N,4] y) {{ y = Neg(x) }}")
    with pytest.raises(VerificationError, match="has no codes r"):
        bitwise(path, other, data, codes=True)


@pytest.mark.skipif(library_path() is None, reason="the installation has no native library")
@pytest.mark.parametrize("interpreter", [False, True])
@pytest.mark.parametrize("isa", ["reference", None])
def test_native_kernels_take_part(
    write: Callable[..., Path], data: Dataset, interpreter: bool, isa: str | None
) -> None:
    path = write("m", text())
    result = bitwise(path, None, data, provider="qcompiler", isa=isa, interpreter=interpreter, codes=True)
    assert result.first == f"{path} with native kernels"
    assert [(row.name, row.elements) for row in result.rows] == [("y", 80), ("r", 80)]
    assert result.equal


@pytest.mark.skipif(library_path() is None, reason="the installation has no native library")
def test_a_difference_from_native_kernels_is_found(write: Callable[..., Path], data: Dataset) -> None:
    one, other = write("one", text()), write("other", text(zero=-4))
    result = bitwise(one, other, data, provider="qcompiler", codes=True)
    assert result.mismatches > 0
