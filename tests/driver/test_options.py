"""Options are refused where they are said, with the nearest word."""

import pytest

from qcompiler.driver.options import CompileOptions
from qcompiler.errors import UsageError


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("verify", "fact", "did you mean 'facts'"),
        ("verify", "banana", "one of off, facts, numerics"),
        ("calibration_method", "minimax", "did you mean 'minmax'"),
        ("jobs", -1, "--jobs -1 is less than 0"),
        ("limit", 0, "--limit 0"),
        ("seed", -1, "--seed -1"),
        ("min_agreement", 101.0, "percentage"),
        ("max_fallback", -1.0, "percentage"),
        ("min_sqnr", float("nan"), "not a number"),
    ],
)
def test_a_wrong_value_is_refused(option: str, value: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CompileOptions(model="m.onnx", target="edge-npu", **{option: value})  # type: ignore[arg-type]


def test_one_selector_is_not_a_list_of_letters() -> None:
    options = CompileOptions(model="m.onnx", target="edge-npu", exclude="conv1", plugins="p.py")  # type: ignore[arg-type]
    assert options.exclude == ("conv1",)
    assert options.plugins == ("p.py",)
