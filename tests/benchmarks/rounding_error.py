"""Output error of layers for each way to round weights: ``rounding_error.py [MODEL ...] [--bits 4 3] [--samples 64]``.

Measured, never asserted. Every layer of a zoo model is taken for itself, with float inputs; the mean squared error of
its outputs on the last quarter of the samples, which nothing was fitted on, is printed in units of that of the nearest
codes on scales with the least squared error of the weights (``calibrate-weights``): the median over the layers.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

from qcompiler.calibration import data
from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.passes.round._constraints import ScaleMap
from qcompiler.passes.round._layers import RoundLayer, own_weight, roundable_layers
from qcompiler.passes.round._search import Solution, alternated, refined, solution, successive
from qcompiler.passes.round._statistics import Rows, Statistics, take
from qcompiler.passes.round._walk import Walk
from qcompiler.passes.round.round_alternating import RoundAlternating
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.pipeline.spec import parse
from qcompiler.target.load import load

MODELS = {"resnet20_cifar10": "w{}a8", "minilm_l6_stsb": "w{}a8", "stories260k_lm": "w{}"}
METHODS = ("gptq", "descent", "gptq+descent", "alternating")
ROWS = 4096


def zoo_module() -> ModuleType:
    """The zoo's module, beside the repository."""
    path = Path(__file__).resolve().parents[2].parent / "shared" / "zoo" / "zoo.py"
    spec = importlib.util.spec_from_file_location("qcompiler_zoo", path)
    if spec is None or spec.loader is None or not path.is_file():
        sys.exit(f"needs the model zoo at {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def prepared(path: Path, samples: Path, form: str) -> tuple[list[RoundLayer], Context]:
    """The layers of a model with formats and scales."""
    model = io.load(path)
    ctx = Context(Edit(model), target=load("lowbit-cpu"), format=form, jobs=1, records=[PassRecord("benchmark")])
    for step in parse("normalize"):
        step.run(model, ctx)
    ctx.calibration = data.load(str(samples), data.inputs_of(model))
    for step in parse(
        "assign-formats,calibrate,calibrate-weights{method=mse}"
        if "a" in form
        else "assign-formats,calibrate-weights{method=mse}"
    ):
        step.run(model, ctx)
    layers = [layer for _, layer in roundable_layers(model.graph) if not isinstance(layer, str)]
    for layer in layers:
        own_weight(layer, ctx)
    return layers, ctx


def statistics_of(layers: list[RoundLayer], ctx: Context) -> dict[str, Statistics]:
    """Moments of every layer's float inputs, and rows left out; the same for all widths."""
    dataset = ctx.calibration
    assert dataset is not None
    fitted = len(dataset) - max(1, len(dataset) // 4)
    found = {}
    for visit in Walk(ctx.edit.model, layers, dataset, ctx, quantized=False):
        for layer in visit.layers:
            rows = Rows(-(-max(ROWS, 4 * layer.columns) // fitted), ROWS)
            found[str(layer.node.name)] = take(visit, layer, fitted, rows)
    return found


def ratios(layer: RoundLayer, statistics: Statistics, ctx: Context, damping: float, draws: int) -> list[float]:
    """Output errors of one layer by each of ``METHODS``, in units of the nearest codes'."""
    scales, problem = ScaleMap.of(layer, ctx.target), statistics.problem(damping, layer.quant.format.bits)
    parts, held = scales.parts, statistics.held
    assert held is not None
    nearest = layer.grid().nearest(layer.weights()).transpose(0, 2, 1)
    start = solution(problem, parts, nearest, *scales.read())
    gptq = successive(problem, parts, start)
    found = (gptq, refined(problem, parts, start, 20), refined(problem, parts, gptq, 20))
    found = (*found, alternated(problem, parts, start, 5, 4, draws))

    def error(item: Solution) -> float:
        return held.error(statistics.weights, parts.grid(item.scale, item.zero).real(item.codes))

    return [error(item) / error(start) if error(start) > 0 else 1.0 for item in found]


def write(line: str) -> None:
    """A line of the table, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Print a line per model and width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3, 2])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--damping", type=float, default=0.01)
    parser.add_argument("--draws", type=int, default=RoundAlternating.draws, help="draws of round-alternating")
    parser.add_argument("--every", type=int, default=1, help="look at every so manieth layer only")
    options = parser.parse_args()
    zoo = zoo_module()
    write(f"{'model':18} bits layers  " + "  ".join(f"{name:>12}" for name in METHODS) + "  best/gptq")
    for name in options.models:
        case = zoo.load(name)
        with tempfile.TemporaryDirectory() as folder:
            samples = Path(case.write_npz(Path(folder) / "samples.npz", options.samples))
            statistics: dict[str, Statistics] = {}
            for bits in options.bits:
                layers, ctx = prepared(case.model, samples, MODELS.get(name, "w{}a8").format(bits))
                statistics = statistics or statistics_of(layers, ctx)
                table = np.array(
                    [
                        ratios(layer, statistics[layer.node.name], ctx, options.damping, options.draws)
                        for layer in layers[:: options.every]
                    ]
                )
                cells = "  ".join(f"{value:12.3f}" for value in np.median(table, axis=0))
                best = np.median(table[:, -1] / table[:, 0])
                write(f"{name:18} {bits:4} {len(table):6}  {cells}  {best:9.3f}")


if __name__ == "__main__":
    main()
