"""pareto.json: plans for other budgets, of which ``--plan pareto.json:2`` takes the second.

::

    {"schema": 1, "target": "lowbit-cpu", "metric": "measured",
     "points": [{"point": 1, "loss": 0.41, "costs": {"size": 98304},
                 "plan": {"schema": 1, "format": "w8a8", "formats": {…}}}, …]}

Points are counted from 1; they ascend in size and descend in predicted loss.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qcompiler.quant import plan as plans

if TYPE_CHECKING:
    from qcompiler.analysis.allocation.record import Allocation, FrontPoint

__all__ = ["front_text"]


def front_text(allocation: Allocation, target: str) -> str:
    """The front of an allocation as JSON."""
    points = [
        {"point": number, **_point(allocation, point, target)} for number, point in enumerate(allocation.front, 1)
    ]
    found = {"schema": plans.SCHEMA, "target": target, "metric": allocation.metric, "points": points}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _point(allocation: Allocation, point: FrontPoint, target: str) -> dict[str, Any]:
    formats = allocation.formats(point.choice)
    plan = {"schema": plans.SCHEMA, "target": target, "format": allocation.base, "formats": formats}
    return {"loss": point.loss, "costs": dict(point.costs), "plan": plan}
