"""Run what a reproducer folder holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from qcompiler.errors import UsageError
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, Fact, PassRecord
from qcompiler.pipeline.instruments.reproducer import DATA, MANIFEST, MODEL
from qcompiler.pipeline.manager import Instrument, Pipeline

__all__ = ["read_manifest", "replay"]


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What the folder says about itself: pipeline, failed pass, error, target, format, options.

    Raises:
        UsageError: The folder is no reproducer, or of another version.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"the reproducer cannot be read: {error}", where=str(path)) from error
    if not isinstance(manifest, dict) or manifest.get("schema") != 1:
        raise UsageError("not a reproducer of schema 1", where=str(path))
    return manifest


def replay(folder: str | Path, instruments: Sequence[Instrument] = ()) -> tuple[ir.Model, list[PassRecord]]:
    """Run the remaining pipeline on the model of the folder: the failure should show again.

    Returns:
        The model and the records, if it did not.

    Raises:
        UsageError: The folder is no reproducer.
        QCompilerError: Whatever the pipeline raises.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    passes = spec.parse(manifest["pipeline"])
    pipeline = Pipeline(passes, frozenset(Fact(name) for name in manifest.get("given", ())))
    model = io.load(folder / MODEL)
    return model, pipeline.run(model, _context(manifest, folder, model), instruments)


def _context(manifest: dict[str, Any], folder: Path, model: ir.Model) -> Context:
    ctx = Context(Edit(model), format=manifest.get("format"), exclude=tuple(manifest.get("exclude", ())))
    ctx.baseline_path = folder / MODEL
    if manifest.get("target"):
        from qcompiler.target.load import load

        ctx.target = load(manifest["target"])
    if (folder / DATA).is_file():
        from qcompiler.calibration import data

        ctx.calibration = data.load(folder / DATA, data.inputs_of(model))
    return ctx
