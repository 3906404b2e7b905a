"""Helpers for the passes that preserve what a model computes: run them, compare outputs, look at the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.ir.facts import check
from qcompiler.passes.normalize.batch_norm_to_affine import BatchNormToAffine
from qcompiler.passes.normalize.canonicalize_activations import CanonicalizeActivations
from qcompiler.passes.normalize.canonicalize_matmul import CanonicalizeMatmul
from qcompiler.passes.normalize.fold_batch_norm import FoldBatchNorm
from qcompiler.passes.normalize.fold_constants import FoldConstants
from qcompiler.passes.normalize.fold_pad import FoldPad
from qcompiler.passes.normalize.import_model import ImportModel
from qcompiler.passes.normalize.remove_dead_code import RemoveDeadCode
from qcompiler.passes.normalize.sum_to_add import SumToAdd
from qcompiler.passes.normalize.unshare_biases import UnshareBiases
from qcompiler.pipeline.base import Context, Fact, Pass, PassRecord

Arrays = Mapping[str, NDArray[Any]]

FAMILY: tuple[Pass, ...] = (
    ImportModel(),
    FoldConstants(),
    RemoveDeadCode(),
    SumToAdd(),
    FoldPad(),
    CanonicalizeMatmul(),
    FoldBatchNorm(),
    BatchNormToAffine(),
    CanonicalizeActivations(),
    UnshareBiases(),
)


@pytest.fixture(scope="session")
def family() -> tuple[Pass, ...]:
    """The structural passes in pipeline order."""
    return FAMILY


@pytest.fixture(scope="session")
def apply() -> Callable[..., Context]:
    """``apply(model, *passes)`` runs them twice: the second time nothing may change. Returns the first context."""

    def run(model: ir.Model, *passes: Pass) -> Context:
        context = Context(Edit(model))
        for each in passes:
            context.records.append(PassRecord(each.name))
            each.run(model, context)
            for fact in (Fact.TYPED, Fact.SORTED, Fact.CANONICAL):
                assert not isinstance(passes[0], ImportModel) or not check(fact, model), each.name
        again = Context(context.edit)
        for each in passes:
            before = context.edit.count
            again.records.append(PassRecord(each.name))
            each.run(model, again)
            assert context.edit.count == before, f"{each.name} is not idempotent"
        onnx.checker.check_model(ir.to_proto(model)) if _standard(model) else None
        return context

    return run


def _standard(model: ir.Model) -> bool:
    return all(node.domain == "" for node in model.graph)


@pytest.fixture(scope="session")
def skips() -> Callable[[Context], list[str]]:
    """All recorded refusals as ``node: reason``."""
    return lambda context: [f"{skip.node}: {skip.reason}" for record in context.records for skip in record.skips]


@pytest.fixture(scope="session")
def kinds() -> Callable[[ir.Model], dict[str, int]]:
    """How many nodes of each type the graph has."""
    return lambda model: dict(Counter(node.op_type for node in model.graph))


@pytest.fixture(scope="session")
def feed_for() -> Callable[..., dict[str, NDArray[Any]]]:
    """Seeded normal inputs for a model; symbolic dimensions become 2."""

    def make(model: ir.Model, seed: int = 0) -> dict[str, NDArray[Any]]:
        random = np.random.default_rng(seed)
        feed = {}
        for value in model.graph.inputs:
            if value.is_initializer():
                continue
            assert value.shape is not None
            assert value.dtype is not None
            shape = [size if isinstance(size, int) else 2 for size in value.shape]
            dtype = value.dtype.numpy()
            normal = random.standard_normal(shape)
            feed[str(value.name)] = normal.astype(dtype) if dtype.kind == "f" else np.abs(normal * 3).astype(dtype)
        return feed

    return make


@pytest.fixture(scope="session")
def equal(feed_for: Callable[..., dict[str, NDArray[Any]]]) -> Callable[..., float]:
    """``equal(reference, model)``: same outputs within 1e-5 of the largest; the reference runs unoptimized."""

    def check(
        reference: ir.Model | onnx.ModelProto | Path,
        model: ir.Model,
        feed: Arrays | None = None,
        limit: float = 1e-5,
        optimize: bool = True,
    ) -> float:
        if isinstance(reference, onnx.ModelProto):
            reference = ir.from_proto(reference)
        if feed is None:
            assert isinstance(reference, ir.Model)
            feed = feed_for(reference)
        want = Runner(reference, optimize=False).run(feed)
        got = Runner(model, optimize=optimize).run(feed)
        assert list(want) == list(got)
        worst = 0.0
        for name, array in want.items():
            assert got[name].shape == array.shape, name
            assert got[name].dtype == array.dtype, name
            if array.size == 0:
                continue
            distance = float(np.abs(array.astype(np.float64) - got[name].astype(np.float64)).max())
            scale = float(np.abs(array.astype(np.float64)).max())
            assert distance <= limit * scale, f"{name}: {distance} of {scale}"
            worst = max(worst, distance / scale if scale else 0.0)
        return worst

    return check
