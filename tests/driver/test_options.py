"""Options are refused where they are said, with the nearest word."""

import pytest

from qcompiler.driver.formats_asked import requested
from qcompiler.driver.options import CompileOptions
from qcompiler.errors import UsageError
from qcompiler.passes.allocate.budgets import parse_budgets
from qcompiler.target.load import load


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
        ("candidates", "w8a8,,w4a8", "--candidates 'w8a8,,w4a8' has an empty item"),
        ("candidates", "", "has an empty item"),
        ("candidates", ("w8a8", " "), "has an empty item"),
        ("exempt", "tiny,", "--exempt 'tiny,' has an empty item"),
        ("budget", 5, "a budget is text or a mapping, not int"),
        ("budget", ["size=1x"], "not list"),
    ],
)
def test_a_wrong_value_is_refused(option: str, value: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CompileOptions(model="m.onnx", target="edge-npu", **{option: value})  # type: ignore[arg-type]


def test_one_selector_is_not_a_list_of_letters() -> None:
    options = CompileOptions(model="m.onnx", target="edge-npu", exclude="conv1", plugins="p.py")  # type: ignore[arg-type]
    assert options.exclude == ("conv1",)
    assert options.plugins == ("p.py",)


def test_budgets_may_be_a_mapping() -> None:
    options = CompileOptions(model="m.onnx", target="edge-npu", budget={"size": "0.25x", "loss": 0.05, "bops": 1e-7})
    assert options.budget == "size=0.25x,loss=0.05,bops=1e-07"
    assert [item.amount for item in parse_budgets(str(options.budget))] == [0.25, 0.05, 1e-7]


@pytest.mark.parametrize("wrong", [{}, {"size": ""}, {"sise": 1}, {"size": True}, {"loss": float("inf")}])
def test_mappings_are_checked_like_texts(wrong: dict[str, str | float]) -> None:
    options = CompileOptions("m.onnx", "edge-npu", candidates=("w8a8", "w4a8"), budget=wrong)
    with pytest.raises(UsageError, match="--budget"):
        requested(options, load("edge-npu"))
