from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcompiler.quant.packing import BITS, least_bits, pack, packed_width, unpack


@given(st.data(), st.sampled_from([*BITS, 8]))
def test_unpacking_gives_back_what_was_packed(data: st.DataObject, bits: int) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=11))
    limit = 1 << (bits - 1)
    codes = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(-limit, limit - 1)))
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (shape[0], packed_width(codes[0].size, bits))
    np.testing.assert_array_equal(unpack(packed, bits, shape), codes)


def test_the_layout_of_three_bits() -> None:
    # codes 1 2 3 -4 -1 0 1 -2 as two's complement of 3 bits: 001 010 011 100 111 000 001 110
    word = int("110001000111100011010001", 2)
    packed = pack(np.array([[1, 2, 3, -4, -1, 0, 1, -2]], np.int8), 3)
    assert packed.tolist() == [list(word.to_bytes(3, "little"))]


def test_rows_end_in_zeros_up_to_a_whole_group() -> None:
    assert pack(np.full((2, 9), -1, np.int8), 2).tolist() == [[0xFF, 0xFF, 0x03, 0x00]] * 2


def test_bytes_are_packed_as_they_are_in_whole_groups() -> None:
    codes = np.array([[-128, 127, -1, 0, 1, 2, 3, 4, 5]], np.int8)
    assert pack(codes, 8).tolist() == [[128, 127, 255, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0]]


def test_whole_groups_of_four_bits_are_the_int4_of_onnx() -> None:
    codes = np.random.default_rng(3).integers(-8, 8, (3, 16)).astype(np.int8)
    assert pack(codes, 4).tobytes() == ir.Tensor(codes.astype(ml_dtypes.int4)).tobytes()


@pytest.mark.parametrize(("codes", "bits"), [([-2, 1], 2), ([2], 3), ([-3], 3), ([7, -8], 4), ([8], None), ([], 2)])
def test_the_narrowest_width_holds_all_codes(codes: list[int], bits: int | None) -> None:
    assert least_bits(np.array(codes, np.int8)) == bits


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit 3 bits"):
        pack(np.array([[4]], np.int8), 3)


@pytest.mark.parametrize("bits", [1, 5, 7, 9])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="no packed form"):
        pack(np.zeros((1, 8), np.int8), bits)


def test_bytes_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="not the packed form"):
        unpack(np.zeros((2, 3), np.uint8), 4, (2, 8))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_nothing_packs_to_nothing(bits: int, shape: tuple[int, int]) -> None:
    packed = pack(np.zeros(shape, np.int8), bits)
    assert packed.shape == (shape[0], packed_width(shape[1], bits))
    assert unpack(packed, bits, shape).shape == shape
