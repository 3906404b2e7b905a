"""Files that plans are read from: a ``plan.json``, or one point of a ``pareto.json``, as ``plans.json:3``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from qcompiler.errors import UsageError

__all__ = ["file_of", "load"]


def file_of(path: str | Path) -> Path:
    """The file of a plan: ``plans.json`` of ``plans.json:3``, unless there is a file of that whole name."""
    return _parted(str(path))[0]


def load(path: str | Path) -> dict[str, Any]:
    """The content of a plan file, or of the point of a front that ``:NUMBER`` behind its name says (its ``point``).

    Raises:
        UsageError: It cannot be read, is not a JSON object, or it holds many plans and no number says which.
    """
    file, number = _parted(str(path))
    content = _content(file)
    if "points" in content:
        return _point(content["points"], file, number)
    if number is not None:
        raise UsageError(f"this is one plan: it has no point {number}", where=str(file), hint=f"--plan {file}")
    return content


def _parted(path: str) -> tuple[Path, int | None]:
    found = re.fullmatch(r"(.+):([0-9]{1,6})", path)
    if found is None or Path(path).exists():
        return Path(path), None
    return Path(found[1]), int(found[2])


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the plan: {error.strerror}", where=str(file)) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise UsageError(f"the plan is not JSON: {error}", where=str(file)) from error
    if not isinstance(content, dict):
        raise UsageError("the plan is not a JSON object", where=str(file))
    return content


def _point(points: Any, file: Path, number: int | None) -> dict[str, Any]:
    if not isinstance(points, list) or not all(isinstance(each, dict) for each in points) or not points:
        raise UsageError("'points' is not a list of plans", where=str(file), hint="write it again with --pareto")
    known = [each.get("point") for each in points]
    named = ", ".join(str(each) for each in known)
    if number is None:
        hint = f"say which of {named} (they ascend in size): --plan {file}:{known[0]}"
        raise UsageError("this holds many plans (--pareto)", where=str(file), hint=hint)
    if number not in known:
        raise UsageError(f"there is no point {number}", where=str(file), hint=f"there are {named}")
    plan = points[known.index(number)].get("plan")
    if not isinstance(plan, dict):
        raise UsageError(f"point {number} has no 'plan'", where=str(file), hint="write it again with --pareto")
    return plan
