"""What a reader sees: complete, short, and no wider than the terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from qcompiler.report.codec import from_json
from qcompiler.report.measured import IntervalPart, OperatorPart
from qcompiler.report.model import Report
from qcompiler.report.parts import NotePart, PassPart, TrialPart
from qcompiler.report.terminal import terminal
from qcompiler.report.words import bytes_text, count_text, figure_text, milliseconds, percent, speed_text


def shown(report: Report, width: int = 100, *, colour: bool = False) -> str:
    stream = io.StringIO()
    system = "standard" if colour else None
    terminal(report, Console(file=stream, width=width, force_terminal=colour, color_system=system))
    return stream.getvalue()


def test_everything_that_matters_is_there(full_report: Report) -> None:
    text = shown(full_report)
    for words in (
        "sqnr 27.5 dB", "3.06 × smaller", "2.50 × faster", "16 samples held out from digits_calibration.npz",
        "logits", "features", "98.40 (98.80)", "/b7/conv", "worst of 8 layers, on 8 samples",
        "30 of 32 nodes", "99.5 % of the multiply-accumulates", "2 × Softmax: it makes a graph output",
        "156 kB → 51 kB", "1.25 ms → 0.5 ms", "2.25 to 2.75", "warning: ranges were fitted", "top1: no labels",
    ):  # fmt: skip
        assert words in text, words


def test_what_is_float_between_integers_is_named(full_report: Report) -> None:
    text = shown(full_report)
    for words in (
        "accumulators: none of 2 can overflow: at least 7 of 32 bits stay free (conv1)",
        "not integer-only: 3 float tensors inside", "float inside: sine (Sin): Sin has no integer form",
        "float before: embedding (Gather)", "float after: softmax (Softmax)", "divides inside: split",
    ):  # fmt: skip
        assert re.sub(" +", " ", words) in re.sub(" +", " ", text), words
    assert full_report.integer is not None
    crowded = replace(full_report.integer, islands=full_report.integer.islands * 9, after=full_report.integer.after * 9)
    text = shown(replace(full_report, integer=crowded))
    assert "6 more islands" in text
    assert "3 more" in text


def test_what_was_tried_has_a_table(full_report: Report) -> None:
    assert "Recipe" not in shown(full_report)
    trials = (
        TrialPart("smooth-activations", 0.5, 0.25, True),
        TrialPart("equalize-channels{when=always}", 0.25, None, False, "adds 4 nodes: --effort high keeps it"),
        TrialPart("rotate{kind=hadamard}", 0.25, None, False, "nothing to do: no stream"),
        TrialPart("round-gptq", 0.25, 0.26, False, "no gain on samples left out"),
    )
    tried = replace(
        full_report, passes=(PassPart("choose-transforms", 3, trials=trials),),
        timing=replace(full_report.timing, trials=(1.5, 0.1, 0.2, 2.5)),
    )  # fmt: skip
    text = re.sub(" +", " ", shown(tried))
    assert "on samples left out; 1 had nothing to do; 1 would add nodes" in text
    assert "smooth-activations 0.5 0.25 1.5 kept" in text
    assert "round-gptq 0.25 0.26 2.5 rejected" in text
    assert "rotate" not in text
    assert from_json(tried.to_json()).passes[0].trials[1].reason == "adds 4 nodes: --effort high keeps it"


def test_what_became_of_the_calibration_data_is_told(full_report: Report) -> None:
    assert full_report.calibration is not None
    assert "Data " not in shown(full_report)
    notes = ("left out 16 of 128 samples as outliers: number 7 (range) and 15 more",)
    told = shown(replace(full_report, calibration=replace(full_report.calibration, notes=notes)))
    assert f"\nData     fitted on 112 samples: digits_calibration.npz\n  {notes[0]}\n" in told


def test_mixed_formats_are_told_first(full_report: Report) -> None:
    assert full_report.coverage is not None
    mixed = replace(full_report, coverage=replace(full_report.coverage, formats={"w8a8": 3, "w4a8": 12}))
    assert shown(mixed).splitlines()[1].rstrip() == "  mixed: w8a8 3, w4a8 12 layers"
    uniform = replace(full_report, coverage=replace(full_report.coverage, formats={"w8a8": 15}))
    assert "mixed" not in shown(uniform)


def test_it_fits_a_screen(full_report: Report) -> None:
    operators = tuple(OperatorPart(f"Op{i}", 3, 0, 0, 0) for i in range(30))
    assert full_report.coverage is not None
    crowded = replace(full_report, coverage=replace(full_report.coverage, by_operator=operators))
    assert len(shown(crowded).splitlines()) <= 45
    assert "22 more operators" in shown(crowded)


def test_operators_with_work_are_never_cut(full_report: Report) -> None:
    assert full_report.coverage is not None
    operators = (*(OperatorPart(f"Op{i}", 0, 3, 0, 0) for i in range(30)), OperatorPart("MatMul", 3, 0, 1000, 0))
    crowded = replace(full_report, coverage=replace(full_report.coverage, by_operator=operators))
    assert "MatMul" in shown(crowded)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(full_report: Report, width: int) -> None:
    assert max(map(len, shown(full_report, width).splitlines())) <= width


def test_colours_only_on_a_terminal(full_report: Report) -> None:
    assert "\x1b[" not in shown(full_report)
    assert "\x1b[" in shown(full_report, colour=True)


def test_markup_in_names_is_not_interpreted(full_report: Report) -> None:
    assert full_report.quality is not None
    output = replace(full_report.quality.outputs[0], name="[red]evil[/red]")
    named = replace(full_report, quality=replace(full_report.quality, outputs=(output,)))
    assert "[red]evil[/red]" in shown(named)


def test_a_slower_model_is_said_aloud(full_report: Report) -> None:
    assert full_report.timing.latency is not None
    slow = replace(
        full_report.timing.latency, speedup=IntervalPart(0.5, 0.45, 0.55), slower=True, warning="slower here; node x"
    )
    text = shown(replace(full_report, timing=replace(full_report.timing, latency=slow)))
    assert "2.00 × slower" in text
    assert "warning: slower here; node x" in text


def test_a_missed_gate_is_said_aloud(full_report: Report) -> None:
    missed = replace(full_report, kept=False, gates=replace(full_report.gates, misses=("output y: SQNR 1.00 dB",)))
    text = shown(missed)
    assert text.startswith("✗")
    assert "gate missed: output y: SQNR 1.00 dB" in text
    assert "nothing was written" in text


def test_a_bare_report_prints(bare_report: Report) -> None:
    text = shown(bare_report)
    assert not re.search(r"None|nan", text)
    assert "10 B → 10 B" in text


def test_words() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 999_600, 25_600_000, 2 * 10**12)] == [
        "0 B", "999 B", "1 kB", "1 MB", "25.6 MB", "2e+03 GB",
    ]  # fmt: skip
    assert [percent(x) for x in (100.0, 99.99, 50.0, 12.34, 0.01, 0.0)] == [
        "100 %", "> 99.9 %", "50 %", "12.3 %", "< 0.1 %", "0 %",
    ]  # fmt: skip
    assert [figure_text(x, "sqnr") for x in (200.0, 31.26, -200.0, None)] == ["equal", "31.3", "useless", "–"]
    assert figure_text(0.999999, "cosine") == "> 0.9999"
    assert figure_text(1.0, "cosine") == "1.0000"
    assert [speed_text(x) for x in (3.2, 1.0, 0.5)] == ["3.20 × faster", "as fast", "2.00 × slower"]
    assert [milliseconds(x) for x in (0.05, 12.345)] == ["50 µs", "12.3 ms"]
    assert [count_text(n, "sample") for n in (1, 2)] == ["1 sample", "2 samples"]


def test_weights_of_few_bits_are_not_called_integer_work(full_report: Report) -> None:
    assert full_report.coverage is not None
    coverage = replace(full_report.coverage, weights_only=True)
    text = shown(replace(full_report, coverage=coverage, integer=None))
    assert "Weights  99.5 % of the multiply-accumulates, 30 of 32 nodes; activations stay real" in text
    assert "few bits" in text
    assert "Integer" not in text


def test_why_nothing_was_tried_is_said(full_report: Report) -> None:
    note = NotePart("info", "nothing was tried: that takes 8 calibration samples")
    passes = (*full_report.passes, PassPart("choose-rounding", 0, notes=(note,)))
    assert "Recipe nothing was tried: that takes 8" in re.sub(" +", " ", shown(replace(full_report, passes=passes)))
