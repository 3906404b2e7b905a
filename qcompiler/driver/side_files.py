"""Files that a compile writes beside the model: checked before any work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qcompiler.errors import UsageError
from qcompiler.quant.plan_file import file_of

if TYPE_CHECKING:
    from qcompiler.driver.options import CompileOptions

__all__ = ["check_side_files"]

_SIDE = ("report", "plan_out", "pareto", "depfile")


def check_side_files(options: CompileOptions, model: Path, output: Path) -> None:
    """Refuse files that would replace one another or what is read, and folders that are not there.

    Args:
        options: The request.
        model: The float model.
        output: The compiled model.

    Raises:
        UsageError: A file cannot be written as asked.
    """
    taken = {model.resolve(): "the float model", output.resolve(): "the output"}
    for name in ("plan", "calibration", "evaluation", "cost_table"):
        given = getattr(options, name)
        if not isinstance(given, str | Path):
            continue
        path = file_of(given) if name == "plan" else Path(given)
        if path.is_file():
            taken[path.resolve()] = f"--{name.replace('_', '-')}"
    for name in _SIDE:
        given, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if given is None:
            continue
        path = Path(given)
        if path.resolve() in taken:
            raise UsageError(f"{option} '{path}' would replace {taken[path.resolve()]}", hint="name another file")
        if not path.parent.is_dir():
            raise UsageError(f"the folder of {option} '{path}' does not exist", hint="create it first")
        taken[path.resolve()] = option
