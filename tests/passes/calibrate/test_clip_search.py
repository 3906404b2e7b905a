"""The search for scales: against every scale and zero point there is, for all affine formats, with importances."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from qcompiler.passes.calibrate.calibrate_weights import in_groups
from qcompiler.passes.calibrate.clip_search import least_squares, squared_error
from qcompiler.quant import arithmetic
from qcompiler.quant.format import QFormat
from qcompiler.quant.params import QParams, params_from_range

WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)
KINDS = ("i{}", "i{}/sym", "u{}", "u{}/sym", "i{}/sym/narrow", "i{}/pot", "i{}/sym/pot")
PLACES = ("", "/axis=0", "/axis=1/block=16")


def found(weight: np.ndarray, form: QFormat, costs: np.ndarray | None) -> tuple[QParams, QParams, np.ndarray]:
    """Parameters of the full range and of the search, and importances as groups."""
    groups, _ = in_groups(weight, form)
    weights = None if costs is None else in_groups(np.broadcast_to(costs, weight.shape), form)[0]
    low, high = np.minimum(groups.min(axis=1), 0.0), np.maximum(groups.max(axis=1), 0.0)
    whole = form.along(None)
    full = params_from_range(low, high, whole)
    return full, least_squares(groups, low, high, full, partial(params_from_range, form=whole), whole, weights), weights


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_affine_format_is_never_worse_and_stays_in_form(bits: int, kind: str, place: str) -> None:
    form = QFormat.parse(kind.format(bits) + place)
    random = np.random.default_rng(bits)
    weight = (random.laplace(size=(6, 48)) + 0.3).astype(np.float32)
    costs = random.uniform(0.01, 4.0, 48).astype(np.float32)
    for importance in (None, costs):
        full, best, weights = found(weight, form, importance)
        groups, _ = in_groups(weight, form)
        whole = form.along(None)
        before, after = (squared_error(groups, params, whole, weights) for params in (full, best))
        assert (after <= before).all()
        assert ((best.zero_point >= form.minimum) & (best.zero_point <= form.maximum)).all()
        if form.symmetric:
            assert (best.zero_point == full.zero_point).all()
        if form.power_of_two:
            assert (np.frexp(best.scale)[0] == 0.5).all()
        elif bits <= 4:
            assert after.sum() < before.sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("bits", "slack"), [(2, 1.02), (3, 1.02), (4, 1.03)])
def test_near_the_best_of_all_scales_and_zero_points(bits: int, slack: float, weighted: bool) -> None:
    random = np.random.default_rng(7)
    weight = (random.standard_normal((60, 32)) * 0.1 + random.normal(0, 0.05, (60, 1))).astype(np.float32)
    costs = random.lognormal(0, 1, (60, 32)).astype(np.float32) if weighted else None
    form = QFormat(bits)
    low, high = np.minimum(weight.min(axis=1), 0.0), np.maximum(weight.max(axis=1), 0.0)
    make = partial(params_from_range, form=form)
    best = least_squares(weight, low, high, make(low, high), make, form, costs)
    exhaustive = np.full(60, np.inf)
    for zero in range(form.minimum, form.maximum + 1):
        for factor in np.linspace(0.05, 1.3, 120):
            params = QParams(
                ((high - low) * factor / (2**bits - 1)).astype(np.float32), np.full(60, zero, np.int32)
            )
            exhaustive = np.minimum(exhaustive, squared_error(weight, params, form, costs))
    assert squared_error(weight, best, form, costs).sum() <= slack * exhaustive.sum()


def test_weighted_error_in_pieces_is_that_of_the_reference_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.passes.calibrate.clip_search._PIECE", 7)
    random = np.random.default_rng(0)
    weight, costs = random.standard_normal((3, 25)).astype(np.float32), random.uniform(0, 2, (3, 25)).astype(np.float32)
    form = QFormat.parse("i4")
    params = params_from_range(weight.min(axis=1), weight.max(axis=1), form)
    back = arithmetic.dequantize(arithmetic.quantize(weight, params, form.along(0)), params, form.along(0))
    expected = (costs * np.square(back.astype(np.float64) - weight)).sum(axis=1)
    np.testing.assert_allclose(squared_error(weight, params, form, costs), expected, rtol=1e-5)


def test_what_costs_nothing_is_given_up() -> None:
    weight = np.array([[4.0, 1.0, 0.67, -0.33]], np.float32)
    low, high = weight.min(axis=1), weight.max(axis=1)
    form = QFormat.parse("i3/sym")
    make = partial(params_from_range, form=form)
    cheap = np.array([[1e-4, 1.0, 1.0, 1.0]], np.float32)
    plain = least_squares(weight, low, high, make(low, high), make, form)
    clipped = least_squares(weight, low, high, make(low, high), make, form, cheap)
    assert clipped.scale[0] < 0.5 < plain.scale[0]
