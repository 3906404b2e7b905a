"""How well sensitivity metrics rank layers: ``sensitivity.py [MODEL ...] [--truth 500] [--samples 128] [--jobs 1]``.

The truth is the loss of one layer's rounding on evaluation samples that nothing was fitted on: a row per metric gives
Spearman's rank correlation with it at 2, 3 and 4 bits, and what the metric took. The last row compares the default on
two disjoint sets of calibration samples.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))
from subjects import zoo

from qcompiler.analysis.sensitivity import METRICS, Sensitivity, Study, sensitivity
from qcompiler.calibration import data
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.passes.allocate.alternatives import study_of
from qcompiler.passes.allocate.groups import tie_groups
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.pipeline.spec import parse
from qcompiler.target.load import load

MODELS = ("resnet20_cifar10", "mobilenetv1_025_imagenet", "vit_mnist", "minilm_l6_stsb")
FORMATS = {4: "w4a8", 3: "w3a8", 2: "w2a8"}


def normalized(path: Path, ctx_target: str) -> ir.Model:
    """The float model as formats are decided on it."""
    model = io.load(path)
    ctx = Context(Edit(model), target=load(ctx_target))
    for item in parse("normalize"):
        ctx.records.append(PassRecord(item.name))
        item.run(model, ctx)
    return model


def held_out(case: Any, count: int) -> Iterator[dict[str, Any]]:
    """Evaluation feeds of one sample."""
    if case.kind == "sts":
        arrays = np.load(case._data / "data.npz")
        for index in range(min(count, len(arrays["a_ids"]))):
            rows = slice(index, index + 1)
            yield {"input_ids": arrays["a_ids"][rows], "attention_mask": arrays["a_mask"][rows]}
    elif case.kind == "lm":
        rows = itertools.chain.from_iterable(case._chunks("eval_oz", count))
        yield from ({"input_ids": row[None]} for row in itertools.islice(rows, count))
    else:
        yield from itertools.islice(case._feeds("eval", count, batch=1), count)


def agreement(one: Sensitivity, other: Sensitivity, option: str) -> float:
    """Spearman's rank correlation of two rankings of layers."""
    groups = [name for name in one.losses if option in one.losses[name] and option in other.losses[name]]
    first, second = ([found.losses[name][option] for name in groups] for found in (one, other))
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def ranks(figures: list[float]) -> NDArray[np.float64]:
    """Ranks from 0; equal figures share the mean of theirs."""
    _, inverse, counts = np.unique(figures, return_inverse=True, return_counts=True)
    shared: NDArray[np.float64] = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return shared


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def row(label: str, found: Sensitivity, truth: Sensitivity) -> str:
    """One line of the table."""
    figures = "  ".join(f"{agreement(found, truth, option):5.2f}" for option in FORMATS.values())
    return f"  {label:24s} {figures}   {found.samples:4d} samples  {found.seconds:6.1f} s"


def study_model(name: str, arguments: argparse.Namespace) -> Study:
    """The model with a choice of bits for every layer."""
    case = zoo().load(name)
    model = normalized(case.model, "lowbit-cpu")
    dataset = data.load(case.calibration(arguments.samples), data.inputs_of(model))
    ctx = Context(Edit(model), target=load("lowbit-cpu"), calibration=dataset, jobs=arguments.jobs)
    return study_of(model, ctx, tie_groups(model, load("lowbit-cpu"), list(FORMATS.values())).groups)


def report(name: str, arguments: argparse.Namespace) -> None:
    """Print the table of one model."""
    study = study_model(name, arguments)
    case = zoo().load(name)
    evaluation = data.load(list(held_out(case, arguments.truth)), data.inputs_of(study.model))
    start = time.perf_counter()
    truth = sensitivity(replace(study, dataset=evaluation), "divergence", samples=len(evaluation))
    seconds = time.perf_counter() - start
    say(f"{name}: truth on {len(evaluation)} samples in {seconds:.0f} s; Spearman at 4, 3, 2 bits")
    first, second = (study.dataset.subset(range(i, len(study.dataset), 2)) for i in (0, 1))
    for metric in METRICS:
        say(row(metric.name, sensitivity(study, metric, samples=arguments.samples), truth))
    halves = [sensitivity(replace(study, dataset=half), samples=arguments.samples) for half in (first, second)]
    say(row("measured on one half", halves[0], truth))
    say(row("measured on the other", halves[1], truth))
    say(row("one half with the other", halves[0], halves[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--truth", type=int, default=500)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    for name in arguments.models:
        report(name, arguments)


if __name__ == "__main__":
    main()
