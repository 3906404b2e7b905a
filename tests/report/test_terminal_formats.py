"""The chart of formats: readable, short, and honest on what was predicted and what was measured."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from qcompiler.report.formats import CandidatePart, FormatsPart, GroupPart, ResourcePart
from qcompiler.report.model import Report
from qcompiler.report.terminal import terminal
from qcompiler.report.terminal_formats import formats_section


def shown(part: FormatsPart, width: int = 110, *, colour: bool = False) -> str:
    stream = io.StringIO()
    system = "standard" if colour else None
    formats_section(part, Console(file=stream, width=width, force_terminal=colour, color_system=system))
    return stream.getvalue()


def flat(part: FormatsPart, width: int = 400) -> str:
    return re.sub(" +", " ", shown(part, width))


@pytest.fixture
def formats(mixed_report: Report) -> FormatsPart:
    assert mixed_report.formats is not None
    return mixed_report.formats


def test_the_report_has_the_section(mixed_report: Report, full_report: Report) -> None:
    stream = io.StringIO()
    terminal(mixed_report, Console(file=stream, width=110))
    assert "Formats  w8a8, w4a8, w2a8 for 3 groups; 4.31 bits per weight" in stream.getvalue()
    stream = io.StringIO()
    terminal(full_report, Console(file=stream, width=110))
    assert "Formats" not in stream.getvalue()


def test_every_group_has_a_bar_of_its_bits(formats: FormatsPart) -> None:
    lines = shown(formats).splitlines()
    rows = {name: next(line for line in lines if name in line) for name in ("stem", "conv2", "fc")}
    assert [rows[name].count("█") for name in rows] == [8, 4, 8]
    assert len({line.index("█") for line in rows.values()}) == 1
    assert re.search(r"w4a8 +9,216 +5 kB +75\b", rows["conv2"])
    assert rows["stem"].rstrip().endswith("–")  # nothing was measured


def test_bars_start_in_one_column_whatever_the_format_is_called(formats: FormatsPart) -> None:
    wide = CandidatePart("w8a16", 8, 16, 2, 784, 1100.0)
    groups = tuple(
        replace(group, choice="w8a16" if group.choice == "w8a8" else group.choice) for group in formats.groups
    )
    mixed = replace(formats, candidates=(wide, *formats.candidates[1:]), groups=groups)
    lines = [line for line in shown(mixed).splitlines() if "█" in line]
    assert len({line.index("█") for line in lines}) == 1
    bare = replace(formats, groups=(replace(formats.groups[0], weights=0),))  # bits of activations alone were chosen
    row = next(line for line in shown(bare).splitlines() if "/stem" in line)
    assert "█" not in row
    assert "w8a8" in row


def test_budgets_losses_and_exemptions_are_told(formats: FormatsPart) -> None:
    text = flat(formats)
    for words in (
        "w8a8: 2 groups, 784 weights, 1.1 kB", "w4a8: 1 group, 9,216 weights, 5 kB",
        "size: 51.0 kB of 52.0 kB after packing; 51.0 kB were predicted",
        "predicted loss: 0.02 (metric measured on 112 samples", "; 0.0234 measured of the file (softened KL",
        "held-out loss: kl at most 0.031 of 0.05 on samples left out; 0.00312 of the file on evaluation samples",
        "; 3 of at most 4 plans measured",
        "exempt: /stem/Conv keeps w8a8: first-last: it is the first layer with weights; 72 bytes more",
    ):  # fmt: skip
        assert words in text, words
    assert "not exempt" not in text
    free = "not exempt: predicted loss 0.015 instead of 0.02, were they all free to choose"
    assert free in flat(replace(formats, unexempted=0.015))
    assert f"{free} (by sums" not in flat(replace(formats, unexempted=0.015))
    assert f"{free} (by sums of costs, which are estimates)" in flat(replace(formats, unexempted=0.015, estimated=True))
    assert "w2a8: 0" not in text
    assert "bops" not in text  # no budget
    size = ResourcePart("size", 52_000.0, 51_020.0, 51_000.0, "0.25x")
    assert "size: 51.0 kB of 52.0 kB (0.25x) after packing" in flat(replace(formats, resources=(size,)))
    assert "size: 51 KB of 52 KB after" in flat(replace(formats, resources=(replace(size, asked="52KB"),)))
    bops = replace(formats, resources=(ResourcePart("bops", 3e9, 2e9, None),))
    assert "bops: 2 G bit operations of 3 G bit operations, predicted" in flat(bops)
    assert "another unit than sqnr's" in flat(replace(formats, metric="sqnr", comparable=False))
    assert "; not measured" in flat(replace(formats, measured=None))


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        ("enumeration", "no plan within the budgets is predicted to lose less: all that might were looked through"),
        ("bound", "no plan within the budgets is predicted to lose less: a lower bound on all of them is as high"),
        ("solver", "the solver's word; a lower bound on all of them is 0.018"),
        ("none", "a plan within the budgets may be predicted to lose less, but no less than 0.018"),
    ],
)
def test_the_proof_is_in_words(formats: FormatsPart, proof: str, words: str) -> None:
    assert words in flat(replace(formats, proof=proof, loss_bound=None))
    assert words.replace("within the budgets", "of this size") in flat(replace(formats, proof=proof))


def _many(count: int) -> FormatsPart:
    """Layers of 100 bytes without loss, but two: one with all the loss, one with many bytes."""
    groups = [GroupPart(f"/layer{i}/Conv", (f"/layer{i}/Conv",), 100, "w8a8", 0.0, {"w8a8": 0.0}, 100.0,
                        "tiny: next to no weights; 50 bytes more" if i < 9 else "") for i in range(count)]  # fmt: skip
    groups[count - 7] = replace(groups[-7], loss=0.5, losses={"w8a8": 0.5})
    groups[count - 3] = replace(groups[-3], bytes=9e6)
    item = CandidatePart("w8a8", 8, 8, count, 100 * count, 100.0 * count)
    return FormatsPart("w8a8", (item,), "measured", 8, tuple(groups), (), 0.5, 0.5, 0.0, "bound", 0.5, True)


def test_of_many_groups_the_ones_that_matter_are_shown_in_order() -> None:
    text = shown(_many(300))
    rows = [int(place) for place in re.findall(r"/layer(\d+)/Conv +█", text)]
    assert len(rows) == 20
    assert rows == sorted(rows)
    assert {293, 297} < set(rows)
    assert "… and 280 more groups (--report has all)" in text
    assert text.count("exempt: ") == 4
    assert "… and 5 more exempt groups" in text
    assert len(text.splitlines()) <= 35


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_the_end_of_a_name_and_all_figures_fit(formats: FormatsPart, width: int) -> None:
    lines = shown(formats, width).splitlines()
    row = next(line for line in lines if "████ " in line and "w4a8" in line and "9,216" in line)
    assert "conv2/Conv" in row  # the end of a name tells layers apart
    assert "75" in row


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(formats: FormatsPart, width: int) -> None:
    assert max(map(len, shown(formats, width).splitlines())) <= width


def test_names_are_never_taken_for_markup(formats: FormatsPart) -> None:
    odd = replace(formats, groups=(replace(formats.groups[0], name="[red]a[/]", exempt="[bold]b[/]"),))
    assert "[red]a[/]" in shown(odd)
    assert "[bold]b[/]" in shown(odd)


def test_colours_follow_the_bits(formats: FormatsPart) -> None:
    text = shown(formats, colour=True)
    assert "\x1b[32m████████" in text
    assert "\x1b[36m████" in text
    over = replace(formats, resources=(ResourcePart("size", 10.0, 9.0, 11.0),))
    assert "\x1b[31m  size: " in shown(over, colour=True)
    assert formats.loss_bound is not None
    assert "\x1b[32m  held-out loss: " in text
    missed = replace(formats, loss_bound=replace(formats.loss_bound, measured=0.06))
    assert "\x1b[31m  held-out loss: " in shown(missed, colour=True)


def test_bytes_that_belong_to_no_group_are_told(formats: FormatsPart) -> None:
    size = next(item for item in formats.resources if item.resource == "size")
    own = sum(group.bytes for group in formats.groups)
    more = replace(formats, resources=(replace(size, predicted=own + 12_340.0),))
    assert "rest of the file: 12.3 kB: nodes, constants that are no weights" in flat(more)
    assert "rest of the file" not in flat(replace(formats, resources=(replace(size, predicted=own),)))
