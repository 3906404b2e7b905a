"""``--format w4``: what it means on a target that has such kernels, and how all others refuse it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qcompiler.errors import TargetError, UsageError
from qcompiler.target.formats import (
    FormatRequest,
    WeightChoice,
    activation_format,
    resolve_format,
    table_request,
    weight_format,
    weight_only_format,
)
from qcompiler.target.load import load, names
from qcompiler.target.schema import OperatorRule
from qcompiler.target.words import describe

TARGET = load("lowbit-cpu")


@pytest.mark.parametrize(
    ("text", "form", "granularity", "block"),
    [
        ("w4", "i4", "block", 32),
        ("W8", "i8", "block", 32),
        ("w3/block=16", "i3", "block", 16),
        ("w2/sym", "i2/sym/narrow", "block", 32),
        ("w4/channel/asym", "i4", "channel", None),
        ("w4/sym/block=256", "i4/sym", "block", 256),
    ],
)
def test_accepted(text: str, form: str, granularity: str, block: int | None) -> None:
    request = resolve_format(TARGET, text)
    assert request.weight_only
    assert request.activation_bits is None
    choice = weight_only_format(TARGET.operators["MatMul"], request)
    assert (str(choice.format), str(choice.granularity), choice.block) == (form, granularity, block)
    assert choice.short
    assert choice.reason == ""


@pytest.mark.parametrize("text", ["w4", "w2", "w4/block=256", "w3/asym"])
@pytest.mark.parametrize("choose", [weight_format, weight_only_format])
def test_tables_have_a_scale_per_row_and_eight_bits_unless_they_follow(
    text: str, choose: Callable[[OperatorRule, FormatRequest], WeightChoice]
) -> None:
    rule, request = TARGET.operators["Gather"].of_tables(), resolve_format(TARGET, text)
    alone = choose(rule, table_request(request))
    assert (str(alone.format), str(alone.granularity), alone.block, alone.reason) == (
        "i8/sym/narrow", "channel", None, "",
    )  # fmt: skip
    followed = choose(rule, request)
    assert (str(followed.format), followed.reason) == (f"i{request.weight_bits}/sym", "")


@pytest.mark.parametrize(
    ("target", "text", "message"),
    [
        ("lowbit-cpu", "w5", "lowbit-cpu takes 8/4/3/2-bit weights only"),
        ("lowbit-cpu", "w4/block=48", "MatMul takes blocks of 256/128/64/32/16 only"),
        ("lowbit-cpu", "w4/tensor", "MatMul takes weight scales per block, channel only"),
        ("lowbit-cpu", "w4a", "'w4a' is not a format"),
        ("edge-npu", "w4", "edge-npu computes on codes: it has no kernel for real activations"),
        ("cpu-x86", "w8", "cpu-x86 computes on codes"),
    ],
)
def test_refused_with_the_reason_and_what_there_is(target: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        resolve_format(load(target), text)
    assert error.value.hint


def test_a_profile_that_does_not_list_a_width_does_not_offer_it(tmp_path: Path) -> None:
    text = 'schema = 1\nname = "mine"\ntitle = "mine"\nextends = "lowbit-cpu"\nformats = ["w8a8", "w4"]\n'
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    target = load(str(tmp_path / "mine.toml"))
    assert resolve_format(target, "w4").weight_bits == 4
    with pytest.raises(UsageError, match="mine does not offer w3"):
        resolve_format(target, "w3")


def test_activations_have_no_format_then() -> None:
    with pytest.raises(UsageError, match="leaves activations real numbers"):
        activation_format(TARGET.operators["MatMul"], resolve_format(TARGET, "w4"))


@pytest.mark.parametrize(
    ("operator", "table", "message"),
    [
        ("MatMul", 'weight_only = ["u4"]', "'u4' is no such format"),
        ("MatMul", 'weight_only = ["i5"]', "'i5' is no such format"),
        ("MatMul", "weight_only = []", "block sizes go with formats"),
        ("MatMul", "weight_only_blocks = [20]", "blocks are multiples of 8, at least 16"),
        ("Softmax", 'weight_only = ["i4"]', "there is no input in weight role"),
    ],
)
def test_profiles_that_make_no_sense_are_refused(tmp_path: Path, operator: str, table: str, message: str) -> None:
    text = 'schema = 1\nname = "mine"\ntitle = "mine"\nextends = "lowbit-cpu"\n'
    (tmp_path / "mine.toml").write_text(f"{text}[operators.{operator}]\n{table}\n", encoding="utf-8")
    with pytest.raises(TargetError, match=message):
        load(str(tmp_path / "mine.toml"))


def test_words_say_what_such_formats_are() -> None:
    words = describe(TARGET)
    assert dict(words.facts)["formats without activations"].startswith("w8, w4, w3, w2: only weights")
    rules = {row.operator: "; ".join(row.rules) for row in words.operators}
    assert "one scale per block (32, 16, 64, 128, 256) or channel, and activations stay real numbers" in rules["Gemm"]
    formats = "i8/sym/narrow or i4/sym or i3/sym or i2/sym"
    assert f"a constant table of 4096 numbers and more is {formats}, one scale per row" in rules["Gather"]
    for name in set(names()) - {"lowbit-cpu"}:
        assert "formats without activations" not in dict(describe(load(name)).facts)
