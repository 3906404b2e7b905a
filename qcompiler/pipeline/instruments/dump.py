"""Keep the model after every pass that changed it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from qcompiler.errors import QCompilerError
from qcompiler.ir.io import save
from qcompiler.ir.render import render
from qcompiler.pipeline.base import Context, Pass, PassRecord
from qcompiler.pipeline.instruments.base import Observer

__all__ = ["Dump"]


class Dump(Observer):
    """Writes ``000_input.txt``, ``001_fold-batch-norm.txt``…: canonical text, numbered by position in the pipeline.

    A pass that changed nothing, neither the graph nor a decision, leaves a gap in the numbers. What fails leaves
    ``NNN_name.failed.txt`` with the model as it was left.

    Args:
        folder: Where to write; made if missing.
        models: Whether to write ``.onnx`` files too (decisions are not part of them).
    """

    def __init__(self, folder: str | Path, *, models: bool = False) -> None:
        self.folder = Path(folder)
        self.models = models
        self._number = 0
        self._last = ""

    def before(self, pass_: Pass, model: ir.Model, ctx: Context) -> None:
        """Write the input of the pipeline."""
        if self._number == 0:
            self._write("input", model)
        self._number += 1

    def after(self, pass_: Pass, model: ir.Model, ctx: Context, record: PassRecord) -> None:
        """Write the model if the pass changed it."""
        self._write(pass_.name, model)

    def failed(self, pass_: Pass, model: ir.Model, ctx: Context, error: BaseException) -> None:
        """Write the model as the failing pass left it; nothing on Ctrl-C."""
        if isinstance(error, Exception):
            self._write(f"{pass_.name}.failed", model, models=False)

    def _write(self, name: str, model: ir.Model, *, models: bool = True) -> None:
        text = render(model)
        if text == self._last:
            return
        self._last = text
        base = f"{self._number:03d}_{name}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{base}.txt").write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise QCompilerError(f"the dump cannot be written: {error.strerror}", where=str(self.folder)) from error
        if self.models and models:
            save(model, self.folder / f"{base}.onnx")
