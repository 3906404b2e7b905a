"""permute-channels: any legal order leaves what the model computes; sorted blocks cost less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.ir import io
from qcompiler.ir.edit import Edit
from qcompiler.ir.execute import Runner
from qcompiler.passes.equalize._orders import cells, places, renaming
from qcompiler.passes.equalize._permuting import analyse
from qcompiler.passes.equalize._reorder import reorder
from qcompiler.passes.equalize.permute_channels import PermuteChannels
from qcompiler.pipeline import spec
from qcompiler.pipeline.base import Context, PassRecord
from qcompiler.target.load import load

FOUR = PermuteChannels(block=4)


def shuffle(model: ir.Model, seed: int = 0) -> list[int]:
    """Put every cell of a model into a random order; sizes of the cells."""
    random = np.random.default_rng(seed)
    found = analyse(model.graph)
    groups = cells(found)
    orders = [dict(zip(roots, random.permutation(roots).tolist(), strict=True)) for roots in groups]
    names = renaming(found.labels, orders)
    reorder(found, names, Edit(model))
    assert sum(int(name != label) for label, name in enumerate(names)) > 0
    return sorted(len(roots) for roots in groups)


def equal(make: SimpleNamespace, model: ir.Model, change: Any) -> Any:
    feed = make.feed(model)
    wanted = Runner(model, optimize=False).run(feed)
    result = change(model)
    got = Runner(model, optimize=False).run(feed)
    for name, array in wanted.items():
        assert np.abs(got[name] - array).max() <= 1e-5 * np.abs(array).max()
    return result


def weight(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32) / shape[0] ** 0.5


def attention(make: SimpleNamespace) -> ir.Model:
    """A block of 2 heads of 4 with rotary positions and a gated product, on a stream of 8."""
    heads = np.array([0, 0, 2, 4])
    half = {"s0": np.array([0]), "s2": np.array([2]), "e2": np.array([2]), "e4": np.array([4]), "last": np.array([3])}

    def rotated(name: str) -> list[Any]:
        return [
            make.node("Slice", f"{name}h s0 e2 last", f"{name}1"),
            make.node("Slice", f"{name}h s2 e4 last", f"{name}2"),
            make.node("Neg", f"{name}2", f"{name}m"),
            make.node("Concat", f"{name}m {name}1", f"{name}c", axis=-1),
            make.node("Mul", f"{name}c sine", f"{name}s"),
            make.node("Mul", f"{name}h cosine", f"{name}k"),
            make.node("Add", f"{name}k {name}s", f"{name}r"),
        ]

    nodes = [make.node("MatMul", "x we", "e"), make.node("LayerNormalization", "e gamma beta", "n", axis=-1)]
    for name in "qkv":
        nodes.append(make.node("MatMul", f"n w{name}", f"{name}0"))
        nodes.append(make.node("Reshape", f"{name}0 heads", f"{name}t"))
        nodes.append(make.node("Transpose", f"{name}t", f"{name}h", perm=[0, 2, 1, 3]))
    nodes += [*rotated("q"), *rotated("k"), make.node("Transpose", "kr", "ku", perm=[0, 1, 3, 2])]
    nodes += [make.node("MatMul", "qr ku", "a"), make.node("Softmax", "a", "p"), make.node("MatMul", "p vh", "o")]
    nodes += [make.node("Transpose", "o", "ot", perm=[0, 2, 1, 3]), make.node("Reshape", "ot flat", "of")]
    nodes += [make.node("MatMul", "of wo", "b"), make.node("Add", "b e", "f"), make.node("MatMul", "f w1", "g")]
    nodes += [make.node("Sigmoid", "g", "h"), make.node("Mul", "g h", "i"), make.node("MatMul", "f w3", "j")]
    nodes += [make.node("Mul", "i j", "l"), make.node("MatMul", "l w2", "m"), make.node("Add", "m f", "z")]
    nodes += [make.node("MatMul", "z wl")]
    shapes = {"we": (5, 8), "w1": (8, 12), "w3": (8, 12), "w2": (12, 8), "wl": (8, 3)}
    shapes |= {f"w{name}": (8, 8) for name in "qkvo"}
    content = {name: weight(*shape, seed=index) for index, (name, shape) in enumerate(shapes.items())}
    content |= {"gamma": weight(8), "beta": weight(8, seed=1), "heads": heads, "flat": np.array([0, 0, 8]), **half}
    angles = np.outer(np.arange(6), [1.0, 0.1, 1.0, 0.1]).astype(np.float32)
    return make.build(nodes, [2, 6, 5], sine=np.sin(angles), cosine=np.cos(angles), **content)  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(4))
def test_a_transformer_takes_any_order_within_its_heads(make: SimpleNamespace, seed: int) -> None:
    sizes = equal(make, attention(make), lambda model: shuffle(model, seed))
    # Values of two heads, the stream, the gated product. Rotary angles are shared by the heads: queries stay.
    assert sizes == [4, 4, 8, 12]


def convolutions(make: SimpleNamespace) -> ir.Model:
    nodes = [
        make.node("Conv", "x w1 b1", "a", pads=[1, 1, 1, 1]),
        make.node("Clip", "a zero six", "b"),
        make.node("Conv", "b w2 b2", "c", group=8, pads=[1, 1, 1, 1]),
        make.node("PRelu", "c slope", "d"),
        make.node("Conv", "d w3", "e", group=2),
        make.node("Add", "e d", "f"),
        make.node("Slice", "f s e1 axis", "g"),
        make.node("Concat", "g b", "h", axis=1),
        make.node("ConvTranspose", "h w4 b4", "i", group=2),
        make.node("Relu", "i", "j"),
        make.node("MaxPool", "j", "k", kernel_shape=[2, 2]),
        make.node("Flatten", "k", "l"),
        make.node("Gemm", "l w5 b5", "m", transB=1),
        make.node("Tanh", "m", "n"),
        make.node("Gemm", "n w6"),
    ]
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "b2": (8,), "slope": (8, 1, 1), "w3": (8, 4, 1, 1)}
    shapes |= {"w4": (12, 3, 1, 1), "b4": (6,), "w5": (7, 96), "b5": (7,), "w6": (7, 2)}
    content = {name: weight(*shape, seed=index) for index, (name, shape) in enumerate(shapes.items())}
    bounds = {"s": np.array([0]), "e1": np.array([4]), "axis": np.array([1])}
    return make.build(nodes, ["N", 3, 5, 5], **content, **bounds, **make.SIX)  # type: ignore[no-any-return]


@pytest.mark.parametrize("seed", range(4))
def test_convolutions_take_any_order_within_their_groups(make: SimpleNamespace, seed: int) -> None:
    sizes = equal(make, convolutions(make), lambda model: shuffle(model, seed))
    # What is sliced off and what is not; rows of the transposed convolution's groups; the features behind it.
    assert sizes[-1] == 7
    assert sum(sizes) >= 7 + 6


def test_sorted_blocks_hold_like_sizes(make: SimpleNamespace) -> None:
    random = np.random.default_rng(0)
    second = (random.standard_normal((16, 6)) * 2.0 ** random.uniform(-6, 0, (16, 1))).astype(np.float32)
    nodes = [make.node("MatMul", "x w1", "a"), make.node("Relu", "a", "b"), make.node("MatMul", "b w2")]
    model = make.build(nodes, ["N", 4], w1=weight(4, 16), w2=second)
    context = make.run(model, FOUR)
    assert context.records[0].notes[0].text == "sorted 1 groups of channels by size for blocks of weights"
    energy = np.square(make.content(model, "w2")).sum(1)
    assert (np.diff(energy) <= 0).all()
    np.testing.assert_array_equal(np.sort(energy), np.sort(np.square(second).sum(1)))
    assert make.kinds(model) == ["MatMul", "Relu", "MatMul"]
    assert "MatMul_y (MatMul): its result is an output of the model" in make.skipped(context)


def test_channels_alike_and_formats_without_blocks_stay(make: SimpleNamespace) -> None:
    nodes = [make.node("MatMul", "x w1", "a"), make.node("Relu", "a", "b"), make.node("MatMul", "b w2")]
    model = make.build(nodes, ["N", 4], w1=weight(4, 16), w2=np.sign(weight(16, 6)))
    assert make.run(model, FOUR).edit.count == 0
    context = make.run(model, PermuteChannels(), target="edge-npu")
    assert context.records[0].notes[0].text.startswith("nothing to sort")


def test_places_of_repeated_labels() -> None:
    """Behind a Flatten a channel has several features; they keep their order."""
    names = np.array([0, 2, 1, 3])
    assert places(np.array([1, 1, 2, 2, 3, 0]), names).tolist() == [2, 3, 0, 1, 4, 5]


def test_refusals_name_the_reason(make: SimpleNamespace) -> None:
    nodes = [make.node("MatMul", "x w1", "a"), make.node("CumSum", "a axis", "b"), make.node("MatMul", "b w2", "c")]
    nodes += [make.node("MatMul", "c w2")]
    model = make.build(nodes, ["N", 4], w1=weight(4, 6), w2=weight(6, 6), axis=np.array(1))
    text = make.skipped(make.run(model, FOUR))
    assert "MatMul_a (MatMul): CumSum_b (CumSum) behind it does not let channels pass" in text
    assert "MatMul_c (MatMul): its weight is shared with other nodes" in text


@pytest.mark.parametrize("name", ["digits_cnn", "digits_vit"])
def test_samples_take_any_order(sample_models: dict[str, Path], name: str) -> None:
    model = io.load(sample_models[name])
    _keeps(model, lambda: shuffle(model))


def _keeps(model: ir.Model, change: Callable[[], object]) -> None:
    """Normalize, then check that a change keeps the outputs."""
    context = Context(Edit(model), target=load("lowbit-cpu"), records=[PassRecord("normalize")])
    for each in spec.resolve("normalize"):
        each.run(model, context)
    value = model.graph.inputs[0]
    shape = [size if isinstance(size, int) else 2 for size in value.shape or ()]
    feed = {str(value.name): np.random.default_rng(0).random(shape).astype(np.float32)}
    wanted = Runner(model, optimize=False).run(feed)
    change()
    got = Runner(model, optimize=False).run(feed)
    for output, array in wanted.items():
        assert np.abs(got[output] - array).max() <= 1e-5 * np.abs(array).max()
