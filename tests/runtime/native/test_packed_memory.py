"""What packed weights take, counted in bytes: at most 1.15 times the packed weight of the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qcompiler.quant.packing import pack
from qcompiler.runtime.library import library_path
from qcompiler.runtime.native_operator import NativeOperator, instruction_sets

pytestmark = pytest.mark.skipif(library_path() is None, reason="the installation has no native kernels")

BOUND = 1.15
CLAMP: dict[str, Any] = {"y_zero_point": 0, "to": 3, "low": -128, "high": 127}
WIDTHS = [4, 3, 2]


def rows(outputs: int, depth: int, bits: int) -> NDArray[np.uint8]:
    half = 1 << (bits - 1)
    return pack(np.random.default_rng(depth).integers(-half, half, (outputs, depth)).astype(np.int8), bits)


def share(name: str, attributes: dict[str, Any], constants: dict[int, NDArray[Any]], isa: str = "auto") -> float:
    """Bytes that the operator holds over those of its constants."""
    operator = NativeOperator(name, attributes, constants, isa=isa)
    return operator.packed_bytes / sum(array.nbytes for array in constants.values())


@pytest.mark.parametrize("isa", instruction_sets() if library_path() is not None else ())
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize(("outputs", "depth"), [(4096, 4096), (768, 3072), (1000, 512), (192, 768)])
def test_matrix_products(outputs: int, depth: int, bits: int, isa: str) -> None:
    attributes = CLAMP | {"bits": bits, "weight_shape": [outputs, depth]}
    for name in ("QGemmPacked", "QGemmWidePackedShift"):
        assert 1 <= share(name, attributes, {1: rows(outputs, depth, bits)}, isa) <= BOUND


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("block", [32, 64, 128, 4096])
@pytest.mark.parametrize("zeros", [False, True])
def test_weight_only_products(bits: int, block: int, zeros: bool) -> None:
    """Multipliers and zero points count on both sides."""
    outputs, depth = 1024, 4096
    blocks = depth // block
    constants: dict[int, NDArray[Any]] = {
        1: rows(outputs, depth, bits),
        2: np.ones((outputs, blocks), np.uint16),
        4: np.zeros((outputs, blocks) if zeros else (1, 1), np.int8),
    }
    attributes = {"bits": bits, "block": block, "weight_shape": [outputs, depth]}
    assert share("QMatMulWeightOnly", attributes, constants) <= BOUND


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", ["QConvPacked", "QConvChannelsLastWidePackedShift", "QConvTransposePacked"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("outputs", "channels"), [(64, 64), (128, 256), (512, 512)])
def test_convolutions(name: str, outputs: int, channels: int, kernel: int, bits: int) -> None:
    attributes = convolution(name, outputs, channels, kernel, bits)
    allowed = BOUND + sums(outputs, channels * kernel**2, bits)
    assert share(name, attributes, {1: rows(outputs, channels * kernel**2, bits)}) <= allowed


def sums(outputs: int, depth: int, bits: int) -> float:
    """Four bytes per output: of weight in shallow convolutions, 256 codes of 2 bits and fewer."""
    part = 4 * outputs / rows(outputs, depth, bits).nbytes
    return part if depth * bits < 32 / (BOUND - 1) else 0.0


def convolution(name: str, outputs: int, channels: int, kernel: int, bits: int, group: int = 1) -> dict[str, Any]:
    attributes = CLAMP | {
        "strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "group": group, "x_zero_point": 0,
        "bits": bits, "weight_shape": [outputs, channels, kernel, kernel],
    }  # fmt: skip
    return attributes | ({"output_padding": [0, 0]} if "Transpose" in name else {})


@pytest.mark.parametrize(("isa", "most"), [("reference", 28), ("avx2", 28), ("avx512vnni", 16)])
def test_depthwise_weights_become_bytes(isa: str, most: int) -> None:
    """What native/README.md says of them: bytes per channel of a kernel of 3 by 3, whatever their width."""
    if isa not in instruction_sets():
        pytest.skip(f"this processor has no {isa}")
    channels = 256
    attributes = convolution("QConvPacked", channels, 1, 3, 4, channels)
    operator = NativeOperator("QConvPacked", attributes, {1: rows(channels, 9, 4)}, isa=isa)
    assert operator.packed_bytes <= most * channels


@pytest.mark.parametrize(("bits", "block", "most"), [(3, 16, 2.0), (3, 40, 1.6), (2, 24, 4 / 3), (4, 24, 1.0)])
def test_blocks_are_filled_up_to_whole_steps(bits: int, block: int, most: float) -> None:
    """32 depths of 3 bits, 16 of 2, 8 of 4."""
    outputs, blocks = 512, 96
    codes = {1: rows(outputs, block * blocks, bits)}
    attributes = {"bits": bits, "block": block, "weight_shape": [outputs, block * blocks]}
    assert share("QMatMulWeightOnly", attributes, codes) == pytest.approx(most)


def test_nothing_is_held_unpacked() -> None:
    attributes = CLAMP | {"bits": 4, "weight_shape": [64, 64]}
    assert NativeOperator("QGemmPacked", attributes, {1: rows(64, 64, 4)}, pack=False).packed_bytes == 0
