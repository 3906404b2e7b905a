"""What watches the pipeline of a compile: checks, dumps, and a reproducer should a pass fail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qcompiler.errors import QCompilerError
from qcompiler.pipeline.instruments.dump import Dump
from qcompiler.pipeline.instruments.reproducer import Reproducer
from qcompiler.pipeline.instruments.verify import Verify

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcompiler.driver.job import Job
    from qcompiler.pipeline.base import Context, Pass
    from qcompiler.pipeline.manager import Instrument

__all__ = ["BugReproducer", "watchers"]


class BugReproducer(Reproducer):
    """Reproduces bugs, not refusals: what a pass refuses on purpose says by itself what to do."""

    def failed(self, pass_: Pass, model: ir.Model, ctx: Context, error: BaseException) -> None:
        """Write the folder for an error that no pass raises on purpose."""
        if not isinstance(error, QCompilerError):
            super().failed(pass_, model, ctx, error)


def watchers(job: Job) -> tuple[list[Instrument], Reproducer]:
    """The instruments that the request asks for, and the reproducer among them.

    Without ``--repro-dir`` a bug leaves ``OUTPUT.repro``; with it every failure of a pass leaves that folder.
    """
    options = job.options
    chosen: list[Instrument] = [Verify(options.verify)]  # type: ignore[arg-type]
    if options.dump_dir is not None:
        chosen.append(Dump(options.dump_dir))
    kind = BugReproducer if options.repro_dir is None else Reproducer
    folder = Path(options.repro_dir) if options.repro_dir is not None else Path(f"{job.output}.repro")
    reproducer = kind(folder, job.pipeline.passes, dict(job.effective()))
    return [*chosen, reproducer], reproducer
