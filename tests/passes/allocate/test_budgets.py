"""Budgets as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.analysis.allocation.problem import InfeasibleError
from qcompiler.errors import UsageError
from qcompiler.passes.allocate.budgets import Budget, in_words, parse_budgets


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("size=0.25x", [Budget("size", 0.25, relative=True)]),
        ("size=500kB", [Budget("size", 500_000.0)]),
        ("size=2MiB", [Budget("size", 2 * 1024.0**2)]),
        ("size=123456", [Budget("size", 123_456.0)]),
        ("latency=2ms, loss=0.05", [Budget("latency", 0.002), Budget("loss", 0.05)]),
        ("latency=0.002", [Budget("latency", 0.002)]),
        ("bops=1.5G,memory=64kb", [Budget("bops", 1.5e9), Budget("memory", 64_000.0)]),
        ("bops=5e8", [Budget("bops", 5e8)]),
        ("LOSS=.5", [Budget("loss", 0.5)]),
    ],
)
def test_amounts_and_units(text: str, wanted: list[Budget]) -> None:
    found = parse_budgets(text)
    assert [item.resource for item in found] == [item.resource for item in wanted]
    assert [item.amount for item in found] == pytest.approx([item.amount for item in wanted])
    assert [item.relative for item in found] == [item.relative for item in wanted]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["names no resource"]),
        ("0.25x", ["names no resource", "size"]),
        ("sise=1", ["sise", "did you mean 'size'"]),
        ("size=", ["no amount of size"]),
        ("size=big", ["no amount of size", "0.25x"]),
        ("size=nan", ["no amount"]),
        ("size=-1", ["no amount"]),
        ("size=0", ["room for nothing"]),
        ("size=0.3", ["less than a byte", "size=0.3x is that share"]),
        ("memory=1e-5kb", ["less than a byte", "write e.g. memory=64kB"]),
        ("size=1e400", ["room for nothing"]),
        ("size=2ms", ["no unit of size", "kb"]),
        ("latency=0.5x", ["no unit of latency"]),
        ("loss=5%", ["no amount of loss"]),
        ("size=1,size=2", ["two budgets"]),
        ("size=1,,", ["names no resource"]),
    ],
)
def test_what_is_no_budget_is_refused(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_budgets(text)
    for word in words:
        assert word in str(caught.value)


def test_shares_are_of_the_whole_and_bytes_are_whole() -> None:
    assert Budget("size", 0.25, relative=True).of(1001) == 250.0
    assert Budget("size", 250.9).of(0) == 250.0
    assert Budget("bops", 0.5, relative=True).of(3) == 1.5


@pytest.mark.parametrize(
    ("text", "asked", "least"),
    [
        ("size=0.25x", "size=0.25x (38905 bytes)", "size=0.2717x (42281 bytes)"),
        ("size=40KB", "size=40KB", "size=42.281KB"),
        ("SIZE = 40000", "size=40000", "size=42281"),
        ("memory=9KiB, latency=2us", "memory=9KiB, latency=2us", "memory=41.2901KiB at 'Conv_1', latency=13.7739us"),
    ],
)
def test_refusals_speak_in_the_units_that_were_asked_in(text: str, asked: str, least: str) -> None:
    budgets = parse_budgets(text)
    amounts = {"size": 42_281.0, "memory": 42_281.0, "latency": 1.377384617e-05}
    bounds = {item.resource: item.of(155_620.0) for item in budgets}
    error = InfeasibleError(bounds, amounts, {"memory": "Conv_1"})
    in_words(error, budgets, {"size": 155_620.0})
    assert str(error) == f"no plan keeps {asked}\n  hint: the smallest feasible: {least}"


@given(
    st.sampled_from(["size=0.3x", "bops=.5x", "size=1kB", "size=1MiB", "size=7", "latency=1us", "latency=1"]),
    st.integers(1, 10**10),
    st.integers(1, 10**10),
)
def test_the_smallest_amount_holds_when_it_is_given_back(text: str, amount: int, whole: int) -> None:
    (budget,) = parse_budgets(text)
    least = amount * 1e-9 if budget.resource == "latency" else float(amount)
    (again,) = parse_budgets(budget.at_least(least, whole).partition(" ")[0])
    assert least <= again.of(whole) <= max(1.011 * least, least + 2)
