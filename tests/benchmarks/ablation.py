"""What each transform, rounding and correction gives alone, and all together: ``ablation.py [MODEL ...] [--write]``.

Every row is the plain pipeline (normalize, decide, calibrate, round to nearest) with one pass more; the last rows are
the recipe, which keeps what measures a gain. Models are those of the zoo beside the repository, compiled by
``qcompile`` and judged on their evaluation data, of which calibration saw nothing. Passes that are not installed have
no row. ``--write`` puts the table into ``passes/README.md``, between its two marks.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from subjects import NAMES, zoo

from qcompiler.pipeline.grammar import parse_items
from qcompiler.pipeline.registry import find

README = Path(__file__).resolve().parents[2] / "passes" / "README.md"
BEGIN, END = "<!-- ablation -->", "<!-- /ablation -->"
SHORT = {**NAMES, "dscnn": "dscnn_kws", "minilm": "minilm_l6_stsb", "stories": "stories260k_lm"}
FORMATS = ("w8a8", "w4a8")


@dataclass(frozen=True)
class Row:
    """One pipeline.

    Attributes:
        label: What the table calls it.
        before: Passes before normalize.
        transform: Passes before formats are chosen.
        fitted: Passes behind the calibration of weights.
        effort: Effort of the default pipeline, which then stands for all of the above.
    """

    label: str
    before: str = ""
    transform: str = ""
    fitted: str = ""
    effort: str = ""

    def texts(self) -> list[str]:
        """The passes that make the row what it is."""
        return [text for text in (self.before, self.transform, self.fitted) if text]

    def pipeline(self) -> str:
        """The pipeline as text."""
        parts = [self.before, "normalize", self.transform, "choose-widths,assign-formats,calibrate,calibrate-weights"]
        return ",".join(part for part in (*parts, self.fitted, "place-qdq,finalize") if part)


def rows(bits: int) -> list[Row]:
    """All rows for weights of so many bits whose passes exist."""
    statistics = f"import-model,reestimate-batch-norm{{bits={bits}}}"
    found = [
        Row("round to nearest"),
        Row("equalize-channels{when=always}", transform="equalize-channels{when=always}"),
        Row("smooth-activations", transform="smooth-activations"),
        Row("reparameterize-norms", transform="reparameterize-norms"),
        Row("absorb-high-bias", transform="absorb-high-bias"),
        Row("absorb-high-bias{by=statistics}", transform="absorb-high-bias{by=statistics}"),
        Row("permute-channels{block=32}", transform="permute-channels{block=32}"),
        Row("split-concat", transform="split-concat"),
        Row("rotate{kind=hadamard}", transform="rotate{kind=hadamard}"),
        Row("rotate{kind=klt}", transform="rotate{kind=klt}"),
        Row("round-gptq", fitted="round-gptq"),
        Row("round-coordinate-descent", fitted="round-coordinate-descent"),
        Row("round-alternating", fitted="round-alternating"),
        Row("reconstruct{unit=layer}", fitted="reconstruct{unit=layer}"),
        Row("reconstruct{unit=block}", fitted="reconstruct{unit=block}"),
        Row("correct-bias", fitted="correct-bias"),
        Row("correct-bias{method=analytic}", fitted="correct-bias{method=analytic}"),
        Row("correct-bias{method=statistics}", fitted="correct-bias{method=statistics}"),
        Row("correct-outputs", fitted="correct-outputs"),
        Row(f"reestimate-batch-norm{{bits={bits}}}", before=statistics),
        Row("round-gptq,correct-bias", fitted="round-gptq,correct-bias"),
        Row("round-gptq,correct-outputs", fitted="round-gptq,correct-outputs"),
        Row("all, as the recipe keeps them (`--effort normal`)", effort="normal"),
        Row("all, as the recipe keeps them (`--effort high`)", effort="high"),
    ]
    return [
        row for row in found if all(find(name) is not None for text in row.texts() for name, _ in parse_items(text))
    ]


def main() -> None:
    """Measure, print, and where asked for write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help=f"of {', '.join(SHORT)}; by default all of them")
    parser.add_argument("--format", action="append", help="by default w8a8 and w4a8")
    parser.add_argument("--target", default="edge-npu")
    parser.add_argument("--samples", type=int, default=128, help="calibration samples")
    parser.add_argument("--limit", type=int, help="evaluation samples, all of them by default")
    parser.add_argument("--rows", default="", help="regular expression that labels of rows must match")
    parser.add_argument("--write", action="store_true", help=f"put the table into {README.name}")
    arguments = parser.parse_args()
    names = arguments.models or list(SHORT)
    if unknown := [name for name in names if name not in SHORT]:
        parser.error(f"no model {', '.join(unknown)}: there are {', '.join(SHORT)}")
    with tempfile.TemporaryDirectory() as folder:
        tables = [table(form, names, arguments, Path(folder)) for form in arguments.format or FORMATS]
    text = "\n\n".join([described(arguments), *tables])
    sys.stdout.write(f"{text}\n")
    if arguments.write:
        README.write_text(replaced(README.read_text("utf-8"), text), "utf-8")


def described(arguments: argparse.Namespace) -> str:
    """What the table shows."""
    part = "all evaluation data" if arguments.limit is None else f"{arguments.limit} evaluation samples"
    only = f" Rows that match `{arguments.rows}`." if arguments.rows else ""
    return (
        f"Target `{arguments.target}`, up to {arguments.samples} calibration samples, {part}.{only} "
        "Classifiers: KL to the float model, agreement in %; minilm: mean and least cosine to the float embedding; "
        "stories: perplexity on Oz, KL. Behind them the seconds of the whole compilation. `=` is what rounding to "
        "nearest gives: nothing was to be done, or samples left out rejected it."
    )


def table(form: str, names: Sequence[str], arguments: argparse.Namespace, folder: Path) -> str:
    """The table of one format, in Markdown."""
    chosen = [
        row for row in rows(int(form[1])) if row.label == "round to nearest" or re.search(arguments.rows, row.label)
    ]
    lines = [f"**{form}**", "", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    plain: dict[str, str] = {}
    for row in chosen:
        cells = []
        for name in names:
            figures, seconds = measured(name, row, form, arguments, folder)
            same = plain.setdefault(name, figures) == figures and row is not chosen[0]
            cells.append(f"{'=' if same else figures}, {seconds:.0f} s" if seconds else figures)
            sys.stderr.write(f"{form} {name} {row.label}: {cells[-1]}\n")
        lines.append(f"| {row.label if row.effort else f'`{row.label}`'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measured(name: str, row: Row, form: str, arguments: argparse.Namespace, folder: Path) -> tuple[str, float]:
    """Figures and seconds of one compilation; the first line of the error and 0 where there is none."""
    case = zoo().load(SHORT[name])
    data, output = folder / f"{name}.npz", folder / "out.onnx"
    if not data.exists():
        case.write_npz(data, arguments.samples)
    output.unlink(missing_ok=True)
    command = [str(Path(sys.executable).with_name("qcompile")), str(case.model), "--target", arguments.target]
    command += ["--calibration", str(data), "--format", form, "-o", str(output), "--lowering", "qdq", "--keep"]
    command += ["--no-latency", "--no-cache", "--quiet", "-j", str(os.cpu_count() or 1)]
    command += ["--effort", row.effort] if row.effort else ["--pipeline", row.pipeline()]
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if not output.exists():
        return f"failed: {next(iter(result.stderr.strip().splitlines()), 'no message')}", 0.0
    return shown(case.evaluate(output, limit=arguments.limit)), seconds


def shown(figures: dict[str, Any]) -> str:
    """The two figures that tell methods apart."""
    if "cosine_mean" in figures:
        return f"{figures['cosine_mean']:.4f}, {figures['cosine_min']:.3f}"
    if "ppl_oz" in figures:
        return f"{figures['ppl_oz']:.2f}, {figures['kl']:.3g}"
    return f"{figures['kl']:.3g}, {figures['agree']:.1f}"


def replaced(page: str, text: str) -> str:
    """A page with the text between its two marks."""
    before, found, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise SystemExit(f"{README} lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


if __name__ == "__main__":
    main()
