"""Parts of data: few samples of many, and those that judge."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration import data


def _numbered(count: int) -> data.Dataset:
    feeds = [{"x": np.full((1, 2), index, np.float32)} for index in range(count)]
    return data.load(feeds, {"x": data.InputSpec(np.dtype(np.float32), ("N", 2))})


def _numbers(dataset: data.Dataset) -> list[int]:
    return [int(feed["x"][0, 0]) for feed in dataset]


def test_few_samples_are_spread_over_all() -> None:
    assert _numbers(_numbered(10).evenly(4)) == [0, 2, 5, 7]
    assert _numbers(_numbered(3).evenly(8)) == [0, 1, 2]
    assert _numbers(_numbered(3).evenly(0)) == [0]


@pytest.mark.parametrize(("count", "left"), [(1, 0), (2, 1), (9, 1), (64, 8), (400, 16)])
def test_the_last_eighth_judges(count: int, left: int) -> None:
    whole = _numbered(count)
    fitted, judging = whole.divided()
    assert whole.left_out() == left
    assert _numbers(fitted) == list(range(count - left))
    assert (judging is None) == (left == 0)
    if judging is not None:
        assert _numbers(judging) == list(range(count - left, count))
