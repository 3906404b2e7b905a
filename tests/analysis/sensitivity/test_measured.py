"""The measured loss against one computed by hand, and what a run of it guarantees."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcompiler.analysis import metrics
from qcompiler.analysis.sensitivity import Alternative, Choice, Measured, Study, around, pair_choices, sensitivity
from qcompiler.analysis.sensitivity.differences import GaussNewton
from qcompiler.analysis.sensitivity.losses import Reference, plain_loss, relative_distance
from qcompiler.analysis.sensitivity.measured import Score
from qcompiler.analysis.sensitivity.metric import Metric
from qcompiler.calibration import data
from qcompiler.errors import DataError, PassError, UsageError
from qcompiler.ir.execute import Runner

_SIZES = {"w1": (6, 12), "w2": (12, 12), "w3": (12, 4)}


def model(tail: str = "y = MatMul(s, w3)") -> ir.Model:
    """Three matrix products, the second around a residual."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]> g (float[N, 6] x) => (float[N, 4] y) {{
        a = MatMul(x, w1)
        r = Relu(a)
        m = MatMul(r, w2)
        s = Add(m, r)
        {tail} }}"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(1)
    for name, shape in _SIZES.items():
        array = rng.normal(size=shape).astype(np.float32) / 3
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def weights(of: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in of.graph.initializers.items()}


def rounded(array: np.ndarray, bits: int) -> np.ndarray:
    step = np.abs(array).max() / (2 ** (bits - 1) - 1)
    return (np.rint(array / step) * step).astype(np.float32)


def study(of: ir.Model | None = None, samples: int = 10, broken: str = "") -> Study:
    of = of or model()
    rng = np.random.default_rng(2)
    dataset = data.load({"x": rng.normal(size=(samples, 6)).astype(np.float32)}, data.inputs_of(of))
    nodes = {"a": ("a", "r"), "m": ("m",), "y": ("y",)}
    own = {"a": "w1", "m": "w2", "y": "w3"}

    def alternative(choice: Choice) -> Alternative:
        found = {}
        for group, option in choice:
            found[group, 1] = rounded(weights(of)[own[group]], int(option))
            if group == broken and option == "2":
                found[group, 1] = np.full_like(found[group, 1], np.nan)
        return Alternative(found)

    return Study(of, dataset, dict.fromkeys(nodes, ("8", "3", "2")), nodes, dict.fromkeys(nodes, 1), alternative, 1)


ALONE = {"a": ("a",), "m": ("m",), "y": ("y",)}
"""Nodes of the groups without the Relu."""
BLOCKS = Measured(score=relative_distance, own=True)


def by_hand(asked: Study, choice: Choice) -> float:
    """Put the rounded weights into a model of its own and run both, sample by sample."""
    changed = model()
    for (name, _), array in asked.alternative(choice).weights.items():
        own = next(node for node in changed.graph if node.name == name).inputs[1]
        assert own is not None
        own.const_value = ir.Tensor(array)
    ours, theirs = Runner(asked.model, threads=1), Runner(changed, threads=1)
    pairs = [(ours.run(feed)["y"], theirs.run(feed)["y"]) for feed in asked.dataset]
    return float(np.mean([(metrics.kl(one, two) + 4 * metrics.kl(one / 2, two / 2)) / 2 for one, two in pairs]))


def test_equals_a_model_with_this_layer_rounded() -> None:
    asked = study()
    found = sensitivity(asked)
    assert found.samples == 10
    for choice in asked.choices():
        group, option = choice[0]
        assert found.losses[group][option] == pytest.approx(by_hand(asked, choice), rel=1e-3, abs=1e-9)


def test_pairs_are_what_two_layers_lose_more_than_each() -> None:
    asked = study()
    pair: Choice = (("a", "2"), ("m", "2"))
    found = sensitivity(asked, pairs=[pair])
    alone = found.losses["a"]["2"] + found.losses["m"]["2"]
    assert found.pairs[pair] == pytest.approx(by_hand(asked, pair) - alone, rel=1e-3)
    assert abs(found.pairs[pair]) > 1e-3


def test_a_graph_that_takes_one_sample_only() -> None:
    one = model("f = Reshape(s, shape) \n y = MatMul(f, w3)")
    one.graph.initializers["shape"] = ir.Value(name="shape", const_value=ir.tensor([1, 12], name="shape"))
    node = next(node for node in one.graph if node.name == "f")
    node.replace_input_with(1, one.graph.initializers["shape"])
    found, plain = sensitivity(study(one)), sensitivity(study())
    for group, losses in plain.losses.items():
        assert found.losses[group] == pytest.approx(losses, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(("said", "each"), [(0, 1), (2, 2)])
def test_work_that_is_shared_out_runs_on_one_thread_unless_said_otherwise(said: int, each: int) -> None:
    threads: set[int] = set()

    class Watched(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            threads.add(args[0].threads)
            return super().submit(fn, *args, **kwargs)

    with Watched(1) as executor:
        sensitivity(replace(study(), threads=said), executor=executor)
    assert threads == {each}


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_the_same_figures_with_any_executor(pool: Callable[[int], Executor]) -> None:
    alone = sensitivity(study())
    with pool(2) as executor:
        assert sensitivity(study(), executor=executor).losses == alone.losses


class Stops(Measured):
    """Breaks off behind some results."""

    def __init__(self, behind: int) -> None:
        super().__init__()
        self.behind, self.measured = behind, 0

    def losses(self, *args, **kwargs):
        for item in super().losses(*args, **kwargs):
            if self.measured == self.behind:
                raise KeyboardInterrupt
            self.measured += 1
            yield item


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        sensitivity(study(), Stops(4), cache_dir=tmp_path)
    file = next((tmp_path / "sensitivity").glob("*.jsonl"))
    file.write_text(file.read_text() + '{"key": "torn')
    rest = Stops(9)
    found = sensitivity(study(), rest, cache_dir=tmp_path)
    assert rest.measured == 5, "four of nine were known"
    assert found.losses == sensitivity(study()).losses
    other = Stops(9)
    sensitivity(study(samples=9), other, cache_dir=tmp_path)
    assert other.measured == 9, "other samples give other figures"


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ((study(), GaussNewton(probes=2)), (study(), GaussNewton(probes=3))),
        ((study(), Measured()), (study(), Measured(score=plain_loss))),
        ((study(), Measured(score=relative_distance)), (study(), BLOCKS)),
        ((study(), BLOCKS), (replace(study(), nodes=ALONE), BLOCKS)),
    ],
    ids=["probes", "score", "own outputs", "nodes of a group"],
)
def test_what_was_measured_is_kept_by_all_that_it_depends_on(
    tmp_path: Path, first: tuple[Study, Metric], other: tuple[Study, Metric]
) -> None:
    """Figures with a cache that another question has filled are those without; the same question reads them."""
    kept = sensitivity(*first, cache_dir=tmp_path)
    found = sensitivity(*other, cache_dir=tmp_path)
    assert found.losses == sensitivity(*other).losses != kept.losses
    asked: list[str] = []
    again = sensitivity(*first, cache_dir=tmp_path, progress=lambda stage, _done, _total: asked.append(stage))
    assert again.losses == kept.losses
    assert asked == []


def scaled(factor: float) -> Score:
    def score(reference: Reference, found: Sequence[np.ndarray]) -> float:
        return factor * plain_loss(reference, found)

    return score


class Weighted:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def score(self, reference: Reference, found: Sequence[np.ndarray]) -> float:
        return self.factor * plain_loss(reference, found)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (lambda *pair: plain_loss(*pair), lambda *pair: 2 * plain_loss(*pair)),
        (scaled(1.0), scaled(2.0)),
        (partial(Weighted.score, Weighted(1.0)), partial(Weighted.score, Weighted(2.0))),
        (Weighted(1.0).score, Weighted(2.0).score),
    ],
    ids=["lambdas", "closures", "partial", "methods of objects"],
)
def test_what_has_no_name_of_its_own_is_measured_again(tmp_path: Path, first: Score, other: Score) -> None:
    once = sensitivity(study(), Measured(score=first), cache_dir=tmp_path)
    twice = sensitivity(study(), Measured(score=other), cache_dir=tmp_path)
    for group, losses in once.losses.items():
        assert twice.losses[group] == {option: pytest.approx(2 * loss) for option, loss in losses.items()}
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_a_model_with_other_names_of_nodes_is_another(tmp_path: Path) -> None:
    sensitivity(study(), cache_dir=tmp_path)
    renamed = model()
    renamed.graph.node("r").name = "relu"
    nodes = {"a": ("a", "relu"), "m": ("m",), "y": ("y",)}
    rest = Stops(9)
    sensitivity(replace(study(renamed), nodes=nodes), rest, cache_dir=tmp_path)
    assert rest.measured == 9


def test_options_that_are_not_finite_are_dropped_with_a_reason() -> None:
    found = sensitivity(study(broken="m"))
    assert set(found.losses["m"]) == {"8", "3"}
    assert "finite" in found.dropped["m", "2"]
    assert found.to_json()["dropped"][0]["group"] == "m"


def test_a_group_without_any_finite_option_is_refused() -> None:
    asked = study(broken="m")
    only = Study(asked.model, asked.dataset, {"m": ("2",)}, {"m": ("m",)}, {"m": 1}, asked.alternative)
    with pytest.raises(PassError, match="'m'"):
        sensitivity(only)


def test_refusals() -> None:
    asked = study()
    with pytest.raises(UsageError, match="masured"):
        sensitivity(asked, "masured")
    with pytest.raises(UsageError, match="0 samples"):
        sensitivity(asked, samples=0)
    empty = Study(asked.model, asked.dataset.subset([]), asked.options, asked.nodes, asked.weights, asked.alternative)
    with pytest.raises(DataError, match="no samples"):
        sensitivity(empty)


def test_result_as_data() -> None:
    found = sensitivity(study(), samples=4)
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["metric"] == "measured"
    assert plain["samples"] == 4
    assert plain["groups"][0]["name"] == "a"
    assert plain["groups"][0]["nodes"] == ["a", "r"]
    assert set(plain["groups"][0]["options"]) == {"8", "3", "2"}
    assert all(math.isfinite(loss) and loss >= 0 for own in found.losses.values() for loss in own.values())
    assert set(found.ranking("2")) == {"a", "m", "y"}


def test_around_a_plan_changes_are_measured_beside_what_the_plan_rounds() -> None:
    asked = study()
    plan = {"a": "3", "m": "2", "y": "8"}
    found = sensitivity(around(asked, plan))
    for group, option in ((group, option) for group, own in asked.options.items() for option in own):
        whole: Choice = tuple((name, option if name == group else own) for name, own in plan.items())
        assert found.losses[group][option] == pytest.approx(by_hand(asked, whole), rel=1e-3)
    relative = found.relative_to(plan)
    assert all(relative.losses[group][option] == 0 for group, option in plan.items())
    assert relative.losses["m"]["8"] < 0, "more bits take loss away"
    with pytest.raises(UsageError, match="'y'"):
        around(asked, {"a": "3", "m": "2"})


def test_pairs_worth_measuring() -> None:
    asked = study()
    losses = {"a": {"8": 0.0, "3": 0.5, "2": 1.0}, "m": {"8": 0.001, "3": 0.2}, "y": {"8": 0.0, "2": 0.02}}
    assert pair_choices(asked, losses, every=False) == [
        (("a", "3"), ("m", "3")), (("a", "2"), ("m", "3")), (("m", "3"), ("y", "2")),
    ]  # fmt: skip
    assert (("a", "2"), ("y", "2")) in pair_choices(asked, losses), "all pairs of few groups"
