"""``--pareto FILE`` without ``--budget``: plans for all sizes from one calibration, and no model.

The passes run up to the one that chooses formats, which knows what layers lose and cost by then. Nothing is compiled:
``--plan FILE:3`` compiles the third plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qcompiler.errors import UsageError

if TYPE_CHECKING:
    from qcompiler.analysis.allocation.record import Allocation
    from qcompiler.driver.job import Job
    from qcompiler.driver.options import CompileOptions, Progress

__all__ = ["FrontFound", "check_front_alone", "find_front"]

_ABOUT_A_MODEL = ("output", "report", "plan_out", "depfile", "min_sqnr", "min_agreement", "max_fallback", "bisect",
                  "keep")  # fmt: skip


@dataclass(frozen=True)
class FrontFound:
    """Plans for all sizes.

    Attributes:
        job: What was asked for.
        allocation: The plans (``front``), and what they were chosen by.
        float_bytes: Bytes of the float model's files.
        text: What the file holds.
        warnings: What the user must know.
    """

    job: Job
    allocation: Allocation
    float_bytes: int
    text: str
    warnings: tuple[str, ...]


def check_front_alone(options: CompileOptions) -> None:
    """Refuse options about a model where none is written.

    Raises:
        UsageError: There is one.
    """
    for name in _ABOUT_A_MODEL:
        asked = getattr(options, name)
        if asked is not None and asked is not False:  # by identity: a gate of 0 equals False
            raise UsageError(
                f"--{name.replace('_', '-')} is about a model, and --pareto without --budget writes plans alone",
                hint="give a --budget, or leave it out",
            )  # fmt: skip


def find_front(job: Job, progress: Progress) -> FrontFound:
    """Find the plans and write the file.

    Raises:
        QCompilerError: Something cannot be done; nothing is left behind.
    """
    from qcompiler.driver.data import load_samples
    from qcompiler.driver.files import write_text
    from qcompiler.driver.fronts import front_text
    from qcompiler.driver.running import run_passes
    from qcompiler.ir import io
    from qcompiler.passes.allocate.choose_formats import ChooseFormats
    from qcompiler.passes.allocate.format_marks import ALLOCATION
    from qcompiler.report.build import pass_warnings

    model = io.load(job.source.path)
    size = sum(path.stat().st_size for path in io.files(model))
    samples = load_samples(job, model)
    records = run_passes(job, model, samples.calibration, progress, until=ChooseFormats.name)
    found: Allocation = model.meta[ALLOCATION]
    text = front_text(found, job.target.name)
    write_text(Path(str(job.options.pareto)), text)
    return FrontFound(job, found, size, text, (*samples.warnings, *pass_warnings(records)))
