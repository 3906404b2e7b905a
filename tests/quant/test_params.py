"""Scales that are powers of two: what a range becomes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qcompiler.quant.format import QFormat
from qcompiler.quant.params import params_from_range

ENDS = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-20)
FORMS = st.sampled_from(["i8/pot", "u8/pot", "i8/sym/pot", "i8/sym/narrow/pot", "i4/sym/pot", "i2/sym/pot"])


@example(4.0, -2.220446049250313e-16, QFormat.parse("i8/pot"))
@given(ENDS, ENDS, FORMS.map(QFormat.parse))
def test_the_least_power_of_two_that_covers(first: float, second: float, form: QFormat) -> None:
    low, high = min(first, second, 0.0), max(first, second, 0.0)
    params = params_from_range(low, high, form)
    scale, zero = float(params.scale), int(params.zero_point)
    assert np.frexp(scale)[0] == 0.5
    free = params_from_range(low, high, QFormat(form.bits, form.signed, form.symmetric, form.narrow))
    if low < high:
        assert free.scale <= scale < 2 * free.scale * (1 + 1e-6)
    # A step is missing only where the range has no room for a whole zero point.
    room = 0.0 if (form.maximum - form.minimum) * scale > (high - low) + scale else scale
    room += 1e-9 * scale  # an end so near to zero vanishes beside the code that it is counted from
    assert (form.minimum - zero) * scale <= low * (1 - 1e-6) + room
    assert (form.maximum - zero) * scale >= high * (1 - 1e-6) - room


@pytest.mark.parametrize(("low", "high", "scale", "zero"), [(0, 255 / 256, 2**-8, -128), (0, 1.0, 2**-7, -128),
                                                            (-1, 1, 2**-6, -64), (0, 0, 1.0, -128)])  # fmt: skip
def test_examples(low: float, high: float, scale: float, zero: int) -> None:
    params = params_from_range(low, high, QFormat.parse("i8/pot"))
    assert (float(params.scale), int(params.zero_point)) == (scale, zero)


def test_the_floor_is_a_power_of_two_too() -> None:
    assert params_from_range(0, 1e-9, QFormat.parse("i8/pot"), scale_floor=0.01).scale == 2.0**-6
