from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from qcompiler.quant.integer.dyadic import Overflow
from qcompiler.quant.integer.norm_parameters import Codes, layer_parameters, rms_parameters
from qcompiler.quant.integer.norms import layer_normalization, rms_normalization
from tests.quant.integer.norm_cases import CONTENTS, Case, cases, make

BYTE = Codes(0.05, 3, -128, 127)
WORD = Codes(2e-4, -7, -32768, 32767)
CLAMP = {"y_zero_point": 0, "to": 5, "low": -32768, "high": 32767}
ROOT = {"left": 4, "right": 0, "epsilon": 20, "root_shift": 30}


@given(cases())
@settings(max_examples=400, deadline=None)
def test_the_result_is_one_code_at_most_from_the_real_one_rounded_once(case: Case) -> None:
    assert case.parameters.error < 1
    assert case.distance() <= 1


@pytest.mark.parametrize("size", [1, 2, 4096])
@pytest.mark.parametrize("content", sorted(CONTENTS))
@pytest.mark.parametrize("rms", [True, False], ids=["rms", "layer"])
def test_16_bit_rows_of_any_kind_are_exact_to_a_code(rms: bool, content: str, size: int) -> None:
    for seed in range(4):
        case = make(
            np.random.default_rng(seed),
            rms=rms,
            size=size,
            types=(np.int16, np.int16),
            content=CONTENTS[content],
            epsilon=1e-5,
            scale=3e-4,
        )
        assert case.distance() <= 1


@pytest.mark.parametrize("rms", [True, False], ids=["rms", "layer"])
def test_epsilon_may_dominate(rms: bool) -> None:
    for seed in range(8):
        case = make(
            np.random.default_rng(seed),
            rms=rms,
            size=64,
            types=(np.int16, np.int16),
            content=CONTENTS["bell"],
            epsilon=1.0,
            scale=1e-9,
        )
        assert case.attributes["right"] > 0
        assert case.distance() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_narrow_multipliers_cost_what_their_bits_say(bits: int) -> None:
    for seed in range(20):
        case = make(
            np.random.default_rng(seed),
            rms=bool(seed % 2),
            size=64,
            types=(np.int16, np.int8),
            content=CONTENTS["bell"],
            epsilon=1e-5,
            scale=1e-3,
            bits=bits,
        )
        assert np.abs(case.parameters.multiplier).max() < 2**bits
        assert case.distance() <= 2


def test_a_constant_row_gives_beta() -> None:
    gamma, beta = np.linspace(-2, 2, 8), np.linspace(-1, 1, 8)
    found = layer_parameters(BYTE, WORD, gamma, beta, size=8, epsilon=1e-5)
    x = np.repeat(np.array([[-128], [0], [127]], np.int8), 8, axis=1)
    attributes = {"left": found.left, "right": found.right, "epsilon": found.epsilon, "root_shift": found.root_shift}
    y = layer_normalization(
        x, found.multiplier, found.bias, found.shift, axes=[-1], size=8, **attributes, **{**CLAMP, "y_zero_point": -7}
    )
    np.testing.assert_array_equal(y, np.repeat([np.clip(np.rint(beta / 2e-4) - 7, -32768, 32767)], 3, axis=0))


def test_several_axes_are_one_row() -> None:
    random = np.random.default_rng(0)
    x = random.integers(-128, 128, (2, 3, 4, 5)).astype(np.int8)
    gamma = random.normal(size=(4, 5))
    found = rms_parameters(BYTE, WORD, gamma, size=20, epsilon=1e-6)
    attributes = {"left": found.left, "right": found.right, "epsilon": found.epsilon, "root_shift": found.root_shift}
    whole = rms_normalization(x, found.multiplier, found.shift, axes=[-2, -1], x_zero_point=3, **attributes, **CLAMP)
    flat = rms_normalization(
        x.reshape(6, 20),
        found.multiplier.reshape(20),
        found.shift.reshape(20),
        axes=[-1],
        x_zero_point=3,
        **attributes,
        **CLAMP,
    )
    np.testing.assert_array_equal(whole.reshape(6, 20), flat)


def test_the_result_does_not_depend_on_the_zero_point_of_a_layer_norm() -> None:
    rows = np.random.default_rng(1).integers(-50, 50, (4, 16))
    arguments = (np.int32(2**20), np.int64(5), np.uint8(30))
    attributes = {"axes": [-1], "size": 16, **ROOT, **CLAMP}
    first = layer_normalization(rows.astype(np.int8), *arguments, **attributes)
    np.testing.assert_array_equal(layer_normalization((rows + 70).astype(np.int8), *arguments, **attributes), first)


def test_no_rows_give_no_rows() -> None:
    y = rms_normalization(
        np.zeros((0, 4), np.int8), np.int32(5), np.uint8(9), axes=[-1], x_zero_point=0, **ROOT, **CLAMP
    )
    assert y.shape == (0, 4)


class TestRefusals:
    X = np.array([[1, 2, 3, 90]], np.int8)

    def layer(self, x: np.ndarray = X, bias: int = 0, multiplier: int = 5, shift: int = 9, **changes: object) -> None:
        attributes = {"axes": [-1], "size": x.shape[-1], **ROOT, **CLAMP, **changes}
        layer_normalization(x, np.int64(multiplier), np.int64(bias), np.uint8(shift), **attributes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"axes": [-2]}, "not the last"),
            ({"axes": [1]}, "not the last"),
            ({"axes": []}, "not the last"),
            ({"axes": [-3, -2, -1]}, "not the last"),
            ({"size": 5}, "not 5"),
            ({"left": -1}, "shifts of the moment"),
            ({"right": 63}, "shifts of the moment"),
            ({"epsilon": 0}, "epsilon lies in"),
            ({"epsilon": 1 << 62}, "epsilon lies in"),
            ({"root_shift": 0}, "behind the root"),
            ({"multiplier": 1 << 31}, "32 bits"),
            ({"bias": (1 << 61) + 1}, "bias leaves"),
            ({"shift": 0}, "shifts lie in"),
        ],
    )
    def test_a_parameter_outside_its_range(self, changes: dict[str, object], message: str) -> None:
        self.layer()
        with pytest.raises(ValueError, match=message):
            self.layer(**changes)  # type: ignore[arg-type]

    def test_a_moment_that_leaves_its_bits(self) -> None:
        with pytest.raises(Overflow, match="shifted left"):
            self.layer(left=60)

    def test_a_row_that_is_too_long(self) -> None:
        with pytest.raises(Overflow, match="sum of its squares"):
            self.layer(np.full((1, 1 << 17), -32768, np.int16))

    def test_a_normalized_number_that_leaves_its_bits(self) -> None:
        with pytest.raises(Overflow, match="leaves 2\\^30"):
            self.layer(root_shift=26, left=0, epsilon=1)

    def test_a_shift_that_is_not_positive(self) -> None:
        with pytest.raises(Overflow, match="not positive"):
            self.layer(np.array([[1, 2]], np.int8), root_shift=20, left=0, epsilon=1)

    def test_parameters_for_rows_that_are_too_long(self) -> None:
        with pytest.raises(ValueError, match="64 bits"):
            layer_parameters(WORD, WORD, np.ones(1), np.zeros(1), size=1 << 17, epsilon=1e-5)
        with pytest.raises(ValueError, match="64 bits"):
            rms_parameters(WORD, WORD, np.ones(1), size=1 << 33, epsilon=1e-5)

    def test_an_output_scale_beyond_the_precision(self) -> None:
        with pytest.raises(ValueError, match="too fine"):
            rms_parameters(WORD, Codes(1e-8, 0, -32768, 32767), np.full(8, 50.0), size=8, epsilon=1e-5)

    @pytest.mark.parametrize("epsilon", [-1.0, np.nan, np.inf])
    def test_an_epsilon_that_is_none(self, epsilon: float) -> None:
        with pytest.raises(ValueError, match="epsilon"):
            rms_parameters(BYTE, BYTE, np.ones(8), size=8, epsilon=epsilon)

    def test_an_epsilon_beside_which_codes_vanish(self) -> None:
        with pytest.raises(ValueError, match="vanish"):
            rms_parameters(Codes(1e-20, 0, -128, 127), BYTE, np.ones(8), size=8, epsilon=1.0)
