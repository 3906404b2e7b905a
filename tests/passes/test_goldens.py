"""Passes on models that can be checked by hand: text in, text out, and both run in ONNX Runtime.

A file of ``tests/goldens/passes`` has a head of ``key: value`` lines, then the model before, as ONNX text, the model
after, as ``render`` writes it, and what the pass said. The head:

* ``run``: the passes; ``target`` and ``format``: as on the command line;
* ``prepare``: passes that run first and are not shown;
* ``sample``: a calibration sample as JSON, one line each;
* ``check``: ``equal`` (outputs stay, a second run changes nothing) or ``closer`` (with the decisions made, outputs are
  closer to the float model's than without the passes; ``behind`` are passes that decide first).

Numbers are compared with a tolerance, digests not at all, all else exactly. ``QCOMPILER_WRITE_GOLDENS=1`` writes what
comes after and what is said.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qcompiler.calibration import data
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.render import render
from qcompiler.passes.place.simulate import materialized
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.target.load import load

FOLDER = Path(__file__).parent.parent / "goldens" / "passes"
DIGEST = re.compile(r"#[0-9a-f]{8}\b")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.])")
Feed = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Golden:
    head: dict[str, list[str]]
    before: str
    after: str
    said: str

    def first(self, key: str) -> str:
        return self.head[key][0] if key in self.head else ""


def read(path: Path) -> Golden:
    head, before, after, said = re.split(r"^== (?:before|after|said)\n", path.read_text(), flags=re.MULTILINE)
    found: dict[str, list[str]] = defaultdict(list)
    for line in head.splitlines():
        key, _, value = line.partition(": ")
        found[key].append(value)
    return Golden(found, before, after, said)


def model_of(text: str) -> ir.Model:
    proto = onnx.parser.parse_model(text)
    onnx.checker.check_model(proto)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def run(model: ir.Model, passes: str, golden: Golden, feeds: list[Feed]) -> Context:
    context = Context(Edit(model), target=load(golden.first("target")), format=golden.first("format") or None, jobs=1)
    context.calibration = data.load(feeds, data.inputs_of(model)) if feeds else None
    for each in spec.resolve(passes) if passes else ():
        context.records.append(PassRecord(each.name))
        each.run(model, context)
    return context


def spoken(context: Context) -> str:
    lines = []
    for record in context.records:
        lines += [f"{record.text}: {note.text}" for note in record.notes]
        lines += [f"{record.text}: {skip.node} left: {skip.reason}" for skip in record.skips]
    return "".join(f"{line}\n" for line in lines)


def results(model: ir.Model, feeds: list[Feed]) -> NDArray[np.float64]:
    runs = [Runner(model, optimize=False, threads=1).run(feed) for feed in feeds]
    return np.concatenate([array.ravel() for found in runs for array in found.values()]).astype(np.float64)


def assert_same_text(found: str, wanted: str) -> None:
    found, wanted = DIGEST.sub("#digest", found), DIGEST.sub("#digest", wanted)
    assert NUMBER.sub("#", found) == NUMBER.sub("#", wanted)
    pairs = zip(NUMBER.finditer(found), NUMBER.finditer(wanted), strict=True)
    for one, other in pairs:
        assert float(one[0]) == pytest.approx(float(other[0]), rel=1e-4, abs=1e-6), found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    golden = read(path)
    feeds = [{name: np.array(item, np.float32) for name, item in json.loads(text).items()}
             for text in golden.head["sample"]]  # fmt: skip
    model, start = model_of(golden.before), model_of(golden.before)
    for each in (model, start):
        run(each, golden.first("prepare"), golden, feeds)
    context = run(model, golden.first("run"), golden, feeds)
    after, said = render(model), spoken(context)
    onnx.checker.check_model(ir.to_proto(model))
    if golden.first("check") == "equal":
        wanted = results(model_of(golden.before), feeds)
        assert np.abs(results(model, feeds) - wanted).max() <= 1e-5 * np.abs(wanted).max()
        assert run(model, golden.first("run"), golden, feeds).edit.count == 0
    else:
        assert error(model, golden, feeds) < error(start, golden, feeds)
    if os.environ.get("QCOMPILER_WRITE_GOLDENS"):
        head = path.read_text().split("== before\n")[0]
        path.write_text(f"{head}== before\n{golden.before}== after\n{after}== said\n{said}")
    assert_same_text(after, read(path).after)
    assert_same_text(said, read(path).said)


def error(model: ir.Model, golden: Golden, feeds: list[Feed]) -> Any:
    """Squared error of the simulation of a copy, behind passes that decide, against the float model."""
    copy = ir.from_proto(ir.to_proto(model)) if golden.first("behind") else model
    run(copy, golden.first("behind"), golden, feeds)
    return np.square(results(materialized(copy), feeds) - results(model_of(golden.before), feeds)).sum()
