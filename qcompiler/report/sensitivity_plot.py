"""The loss of every layer under every format as a picture. Needs matplotlib (the extra ``plot``).

Layers stand in graph order from top to bottom, losses on a logarithmic scale; each format is a colour and a marker, and
a line joins what one layer loses. Nothing of matplotlib's global state is used: no display, no current figure.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qcompiler.errors import QCompilerError, UsageError

__all__ = ["PLOT_FORMS", "check_plot", "plot"]

PLOT_FORMS: Final = ("svg", "png")
_MARKERS: Final = "osD^vP*X"
_WIDTH: Final = 8.0
"""Inches; so are the next two."""
_ROW: Final = 0.2
_MARGINS: Final = 1.4
_MOST_ROWS: Final = 1500
"""Rows of full height: a picture may be as high as 2^16 pixels."""


def check_plot(path: Path) -> None:
    """Find out before long work whether ``plot`` will be able to draw to a file of this name.

    Raises:
        UsageError: The name says no form that can be drawn.
        QCompilerError: matplotlib is not installed.
    """
    if path.suffix.lower().lstrip(".") not in PLOT_FORMS:
        raise UsageError(f"a plot is drawn as {' or '.join(PLOT_FORMS)}, not as '{path.name}'", where="--plot")
    _matplotlib()


def plot(losses: Mapping[str, Mapping[str, float]], title: str, form: str) -> bytes:
    """Draw a picture.

    Args:
        losses: By group and option, groups in graph order; losses of 0 have no place on the scale and no mark.
        title: What stands above.
        form: ``svg`` or ``png``.

    Returns:
        The content of a file, equal for equal arguments.

    Raises:
        QCompilerError: matplotlib is not installed.
    """
    matplotlib = _matplotlib()
    figure_module = importlib.import_module("matplotlib.figure")
    height = _MARGINS + _ROW * min(len(losses), _MOST_ROWS)
    with matplotlib.rc_context({"svg.hashsalt": "qcompiler", "svg.fonttype": "none"}):
        figure = figure_module.Figure(figsize=(_WIDTH, height), layout="constrained")
        canvas: Any = importlib.import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
        _draw(figure.add_subplot(), losses, title)
        content = io.BytesIO()
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        canvas.print_figure(content, format=form, dpi=100, metadata=metadata)
    return content.getvalue()


def _draw(axes: Any, losses: Mapping[str, Mapping[str, float]], title: str) -> None:
    options = list(dict.fromkeys(option for own in losses.values() for option in own))
    for row, own in enumerate(losses.values()):
        shown = [loss for loss in own.values() if loss > 0]
        if shown:
            axes.plot([min(shown), max(shown)], [row, row], color="0.85", linewidth=1, zorder=1)
    for number, option in enumerate(options):
        points = [(own[option], row) for row, own in enumerate(losses.values()) if own.get(option, 0) > 0]
        axes.plot(
            [loss for loss, _ in points], [row for _, row in points], _MARKERS[number % len(_MARKERS)],
            color=f"C{number}", markersize=5, label=option, zorder=2,
        )  # fmt: skip
    axes.set_yticks(range(len(losses)), [_shortened(group) for group in losses], fontsize=7)
    axes.set_ylim(len(losses) - 0.5, -0.5)
    if any(loss > 0 for own in losses.values() for loss in own.values()):
        axes.set_xscale("log")
    axes.set_xlabel("predicted loss of the outputs when this layer alone is rounded")
    axes.grid(axis="x", color="0.92")
    axes.set_title(title.replace("$", r"\$"), fontsize=9)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)


def _shortened(name: str, most: int = 48) -> str:
    """A name that fits; a dollar sign would start a formula."""
    text = name if len(name) <= most else f"…{name[1 - most :]}"
    return text.replace("$", r"\$")


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ImportError as error:
        raise QCompilerError(
            "--plot needs matplotlib, which is not installed", hint="pip install 'qcompiler[plot]'"
        ) from error
