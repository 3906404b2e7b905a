"""What operators cost on a machine: measured points with machine and date, as JSON that is data and nothing else.

A table is refused where it is too large, of another version or malformed; that it was measured on another machine is
said, not refused: somebody may compile for a machine that is elsewhere.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from qcompiler.analysis.machine import Machine
from qcompiler.errors import UsageError

__all__ = ["SCHEMA", "CostPoint", "CostTable", "load_table", "table_text"]

SCHEMA: Final = 1
_LARGEST: Final = 8 << 20
_MOST_POINTS: Final = 20_000
_MOST_LETTERS: Final = 2000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CostPoint:
    """One measured node.

    Attributes:
        kind: As ``Workload`` has it.
        format: Likewise.
        shape: Likewise.
        isa: Instruction set of the kernels.
        threads: Threads of the run.
        macs: Multiply-accumulates.
        bytes: Bytes read and written.
        microseconds: Time of the node, from medians.
        minimum: The same from minima.
    """

    kind: str
    format: str
    shape: str
    isa: str
    threads: int
    macs: int
    bytes: int
    microseconds: float
    minimum: float


@dataclass(frozen=True, slots=True)
class CostTable:
    """Measured costs.

    Attributes:
        target: Profile that was measured.
        date: When, UTC, ISO 8601.
        machine: Where.
        run_microseconds: What a run costs besides its nodes, from medians.
        run_minimum: The same from minima.
        points: What was measured, in the order in which it was.
        skipped: What could not be measured, and why.
        between_microseconds: What a node costs more between other nodes than among its like, from medians.
        between_minimum: The same from minima.
    """

    target: str
    date: str
    machine: Machine
    run_microseconds: float
    run_minimum: float
    points: tuple[CostPoint, ...]
    skipped: tuple[str, ...] = ()
    between_microseconds: float = 0.0
    between_minimum: float = 0.0

    def isas(self) -> tuple[str, ...]:
        """Instruction sets that were measured, the first first."""
        return tuple(dict.fromkeys(point.isa for point in self.points))

    def threads(self) -> tuple[int, ...]:
        """Numbers of threads that were measured."""
        return tuple(dict.fromkeys(point.threads for point in self.points))


def table_text(table: CostTable) -> str:
    """The table as JSON: one line per point, so that a difference can be read."""
    head = {"schema": SCHEMA} | {
        item.name: _plain(getattr(table, item.name)) for item in dataclasses.fields(table) if item.name != "points"
    }
    lines = ",\n  ".join(json.dumps(dataclasses.asdict(point), ensure_ascii=False) for point in table.points)
    text = json.dumps(head, indent=1, ensure_ascii=False)
    return f'{text[:-2]},\n "points": [\n  {lines}\n ]\n}}\n'


def load_table(path: str | Path) -> CostTable:
    """Read a table.

    Raises:
        UsageError: There is no such file, it is too large, of another version, or no table.
    """
    where = str(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"the cost table cannot be read: {error.strerror}", where=where) from error
    if len(content) > _LARGEST:
        raise UsageError(f"a cost table has at most {_LARGEST >> 20} MiB", where=where)
    try:
        data = json.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}", where=where, hint=_HINT) from error
    if not isinstance(data, dict) or "points" not in data or "schema" not in data:
        raise UsageError("this is no cost table", where=where, hint=_HINT)
    if data["schema"] != SCHEMA:
        raise UsageError(
            f"the table has version {data['schema']!r}, this compiler reads {SCHEMA}", where=where, hint=_HINT
        )
    return _table(data, where)


_HINT: Final = "'qcompiler profile --target lowbit-cpu -o TABLE.json' measures one"


def _table(data: dict[str, Any], where: str) -> CostTable:
    points = data["points"]
    if not isinstance(points, list) or not 0 < len(points) <= _MOST_POINTS:
        raise UsageError(f"a cost table holds 1 to {_MOST_POINTS} points", where=where, hint=_HINT)
    machine = _record(Machine, data.get("machine"), f"{where}: machine")
    found = tuple(_record(CostPoint, item, f"{where}: point {index}") for index, item in enumerate(points))
    skipped = data.get("skipped", [])
    if not isinstance(skipped, list) or not all(isinstance(item, str) for item in skipped):
        raise UsageError("'skipped' is not a list of sentences", where=where)
    return CostTable(
        target=_value(data.get("target"), str, "target", where),
        date=_value(data.get("date"), str, "date", where),
        machine=machine,
        run_microseconds=_value(data.get("run_microseconds"), float, "run_microseconds", where),
        run_minimum=_value(data.get("run_minimum"), float, "run_minimum", where),
        points=found,
        skipped=tuple(skipped),
        between_microseconds=_value(data.get("between_microseconds", 0.0), float, "between_microseconds", where),
        between_minimum=_value(data.get("between_minimum", 0.0), float, "between_minimum", where),
    )


def _record(kind: type[_T], data: Any, where: str) -> _T:
    """A flat dataclass of words and numbers that are not negative."""
    if not isinstance(data, Mapping):
        raise UsageError("this is not a table of names and values", where=where, hint=_HINT)
    kinds = {"str": str, "int": int, "float": float}
    return kind(
        **{
            item.name: _value(data.get(item.name), kinds[str(item.type)], item.name, where)
            for item in dataclasses.fields(kind)  # type: ignore[arg-type]
        }
    )


def _value(item: Any, kind: type, name: str, where: str) -> Any:
    if kind is str and isinstance(item, str) and len(item) <= _MOST_LETTERS:
        return item
    number = isinstance(item, int | float) and not isinstance(item, bool)
    if (
        kind is not str
        and number
        and math.isfinite(item)
        and 0 <= item < 2**53
        and (kind is float or item == int(item))
    ):
        return kind(item)
    words = {str: f"a text of at most {_MOST_LETTERS} letters", int: "a whole number", float: "a number"}[kind]
    raise UsageError(f"'{name}' is not {words}, not negative", where=where, hint=_HINT)


def _plain(item: Any) -> Any:
    return dataclasses.asdict(item) if dataclasses.is_dataclass(item) and not isinstance(item, type) else item
