from __future__ import annotations

import json
from pathlib import Path

from qcompiler.quant import functions
from qcompiler.quant.functions import reference
from qcompiler.quant.functions.definition import VERSION

README = Path(functions.__path__[0]) / "README.md"
KNOWN = Path(__file__).parents[2] / "goldens" / f"ai.qcompiler-{VERSION}.json"


def test_the_readme_holds_the_table_of_what_is_defined() -> None:
    assert reference.table() in README.read_text(encoding="utf-8"), "paste reference.table() into the README"


def test_no_function_changes_within_a_version() -> None:
    """Adding an operator is compatible; a change of an existing one is a new version of the set."""
    assert reference.digests() == json.loads(KNOWN.read_text(encoding="utf-8"))
