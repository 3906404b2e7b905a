"""When a pass fails, leave behind what it takes to fail again."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from qcompiler.errors import QCompilerError
from qcompiler.ir.edit import Edit
from qcompiler.ir.io import SOURCE, load, save
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, Fact, Pass, PassRecord
from qcompiler.pipeline.instruments.base import Observer
from qcompiler.version import version

__all__ = ["DATA", "MANIFEST", "MODEL", "Reproducer"]

MANIFEST: Final = "reproduce.json"
MODEL: Final = "model.onnx"
DATA: Final = "calibration.npz"
_MOST_DATA: Final = 64 << 20
_SERIALISED: Final = ("qcompiler.statistics",)
"""Keys of ``meta`` that files keep as well."""


class Reproducer(Observer):
    """Writes a folder with the model before the failing pass, the rest of the pipeline and the options.

    Keeping a copy of the model before every pass would cost as much as the passes. So the input is remembered by its
    path and, when something fails, the passes before it run again on it; they are deterministic. ``qcompiler replay``
    and ``qcompiler.pipeline.replay`` run the folder.

    Args:
        folder: Where to write; nothing is written unless a pass fails.
        passes: The whole pipeline.
        options: More to remember, JSON-ready: calibration source, command line…
    """

    def __init__(self, folder: str | Path, passes: Sequence[Pass], options: dict[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.passes = tuple(passes)
        self.options = dict(options or {})
        self.written = False
        self._done = 0

    def after(self, pass_: Pass, model: ir.Model, ctx: Context, record: PassRecord) -> None:
        """Count the passes that went well."""
        self._done += 1

    def failed(self, pass_: Pass, model: ir.Model, ctx: Context, error: BaseException) -> None:
        """Write the folder; nothing on Ctrl-C. An error while writing it is reported as a note, the cause stays."""
        if not isinstance(error, Exception) or self._done >= len(self.passes):
            return
        try:
            self._write(model, ctx, error)
        except (QCompilerError, OSError) as problem:
            ctx.warn(f"the reproducer could not be written: {problem}")

    def _write(self, model: ir.Model, ctx: Context, error: Exception) -> None:
        """Write model, manifest and data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        source = model.meta.get(SOURCE) or ctx.baseline_path
        start, replayed = self._done, None
        if source is not None:
            start, replayed = self._before(Path(source), ctx)
        exact = replayed is not None
        save(replayed or model, self.folder / MODEL)
        manifest = {
            "schema": 1,
            "version": version(),
            "pipeline": spec.to_text(self.passes[start:]),
            "failed": spec.to_text((self.passes[self._done],)),
            "error": f"{type(error).__name__}: {error}",
            "exact": exact,
            "given": sorted(_facts(self.passes[:start])),
            "target": _target(ctx),
            "format": ctx.format,
            "exclude": list(ctx.exclude),
            "calibration": _save_calibration(ctx, self.folder),
            "options": self.options,
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str) + "\n"
        (self.folder / MANIFEST).write_text(text, encoding="utf-8")
        self.written = True

    def _before(self, source: Path, ctx: Context) -> tuple[int, ir.Model | None]:
        """The model as a file can hold it, as close before the failing pass as possible, and the next pass's number.

        Decisions and analyses live in memory only. So where the failing pass builds on some, the model is the one
        before the first of them, and the pipeline begins there.
        """
        last_plain = 0
        try:
            for stop, note in ((self._done, True), (None, False)):
                model = load(source)
                fresh = dataclasses.replace(ctx, edit=Edit(model), records=[])
                for position, pass_ in enumerate(self.passes[: last_plain if stop is None else stop], start=1):
                    fresh.records.append(PassRecord(pass_.name))
                    pass_.run(model, fresh)
                    if note and not _in_memory_state(model):
                        last_plain = position
                if stop == last_plain:
                    break
        except Exception:  # noqa: BLE001 -- a second failure must not hide the first; the manifest says "exact": false
            return self._done, None
        return last_plain, model


def _in_memory_state(model: ir.Model) -> bool:
    """Whether something hangs on the graph that a file would lose."""
    graph = model.graph
    metas = itertools.chain(
        (node.meta for node in graph),
        (value.meta for value in (*graph.inputs, *graph.initializers.values())),
        (value.meta for node in graph for value in node.outputs),
    )
    return any(key.startswith("qcompiler.") and key not in _SERIALISED for meta in metas for key in meta)


def _target(ctx: Context) -> str | None:
    """What loads the profile again: the path of a user's file, the name of a shipped one."""
    if ctx.target is None:
        return None
    return ctx.target.source if Path(ctx.target.source).is_absolute() else ctx.target.name


def _facts(passes: Sequence[Pass]) -> set[Fact]:
    """Facts that hold after ``passes``."""
    holds: set[Fact] = set()
    for pass_ in passes:
        holds = (holds - pass_.invalidates) | pass_.provides
    return holds


def _save_calibration(ctx: Context, folder: Path) -> dict[str, Any] | None:
    """Write the first calibration samples, up to 64 MB; returns what the manifest says about them."""
    if ctx.calibration is None:
        return None
    from qcompiler.calibration.given_weights import WEIGHTS

    feeds: list[dict[str, Any]] = []
    size = 0
    for feed in ctx.calibration:
        size += sum(array.nbytes for array in feed.values())
        if feeds and (size > _MOST_DATA or any(feed[name].shape != feeds[0][name].shape for name in feed)):
            break
        feeds.append(dict(feed))
    if feeds:
        columns: Any = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        weights = [own for number in range(len(feeds)) if (own := ctx.calibration.weights_of(number)) is not None]
        columns |= {WEIGHTS: np.concatenate(weights)} if weights else {}
        np.savez(folder / DATA, **columns)
    return {"source": ctx.calibration.source, "samples": len(ctx.calibration), "kept": len(feeds)}
