from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.analysis.coded import code_meanings, real_numbers
from qcompiler.ir.edit import Edit
from qcompiler.passes.lower import _layout_flatten, _layout_movers, _layout_rules
from qcompiler.passes.lower.channels_last import ChannelsLast
from qcompiler.pipeline.base import Context
from qcompiler.runtime.interpreter import Interpreter
from qcompiler.target.load import load
from tests.passes.lower.layout_graphs import CODES, WIDE_CODES, Builder, turn, turned


def builder(seed: int = 0) -> Builder:
    return Builder(np.random.default_rng(seed))


def behind(part: Callable[[Builder, str], str]) -> list[str]:
    """Operators of ``conv → part → conv``, for 6 channels of 8 × 9, turned and compared."""
    made = builder()
    x = made.conv(made.image(2, 3, 8, 9), 3, 6)
    y = part(made, x)
    model = made.model(y)
    channels = next(int(value.shape[1]) for value in model.graph.outputs if value.shape is not None)
    return turned(made, made.conv(y, channels, 4, kernel=(1, 1), pads=[0] * 4))


def sums(name: str, factors: int = 2) -> Callable[[Builder, str], str]:
    """A pool or mean with digits instead of a multiplier."""

    def part(made: Builder, x: str) -> str:
        window = {"kernel_shape": [2, 2], "strides": [1, 2], "dilations": [1, 1], "pads": [0, 1, 0, 0]}
        scales = made.digits(np.exp2(made.random.uniform(-4, -3, (7, 5) if factors else ())))
        return made.node(name, [x, *scales], x_zero_point=-3, **window, **CODES)

    return part


def rearranged(made: Builder, x: str, inner: list[int], order: list[int], outer: list[int]) -> str:
    opened = made.node("Reshape", [x, made.constant(np.array(inner))])
    moved = made.node("Transpose", [opened], perm=order)
    return str(made.node("Reshape", [moved, made.constant(np.array(outer))]))


STAYS_BETWEEN: dict[str, Callable[[Builder, str], str]] = {
    "QAdd": lambda made, x: made.add(x, made.lookup(x)),
    "QAdd of a constant": lambda made, x: made.add(x, made.constant(made.codes((6, 1, 1)))),
    "QAdd of a constant image": lambda made, x: made.add(x, made.constant(made.codes((1, 6, 8, 9)))),
    "QSub": lambda made, x: made.add(made.constant(made.codes((9,))), x, "QSub"),
    "QMul": lambda made, x: made.mul(x, made.lookup(x)),
    "QConcat": lambda made, x: made.node(
        "QConcat", [x, made.lookup(x), *made.factors(size=-1), *made.factors(size=-1)], axis=1, a_zero_point=1,
        b_zero_point=2, **CODES,
    ),
    "Requantize": lambda made, x: made.rescale(x, (6, 1, 1)),
    "QLookup": lambda made, x: made.lookup(x),
    "QLookupInterpolated": lambda made, x: made.rescale(
        made.node(
            "QLookupInterpolated",
            [made.rescale(x, **WIDE_CODES), made.constant(np.arange(513, dtype=np.int32) * 64 - 16000)],
            curved=0, to=5, low=-32768, high=32767,
        )
    ),
    "QAveragePool": lambda made, x: made.average(x, pads=[1, 0, 0, 1], strides=[2, 1]),
    "QAveragePool with factors by position": lambda made, x: made.average(x, (7, 8)),
    "QAveragePoolShift": sums("QAveragePoolShift"),
    "QAveragePoolShift with one factor": sums("QAveragePoolShift", 0),
    "QGlobalAveragePool": lambda made, x: made.mul(
        x, made.node("QGlobalAveragePool", [x, *made.factors(size=-5)], x_zero_point=1, **CODES)
    ),
    "QGlobalAveragePoolShift": lambda made, x: made.mul(
        x, made.node("QGlobalAveragePoolShift", [x, *made.digits(1 / 72, 1 << 14)], x_zero_point=1, **CODES)
    ),
    "QReduceMean": lambda made, x: made.mul(
        x, made.node("QReduceMean", [x, *made.factors(size=-3)], axes=[2], keepdims=1, x_zero_point=1, **CODES)
    ),
    "QMaxPool": lambda made, x: made.node(
        "QMaxPool", [x], axis=3, kernel=3, stride=2, dilation=1, begin=1, end=0, to=3
    ),
    "QResize": lambda made, x: made.node(
        "QResize",
        [x, made.constant(np.array([[0, 1], [1, 2], [2, 3]])), made.constant(np.full((3, 2, 1), 7, np.int32)),
         *made.factors(size=-4)],
        axis=2, x_zero_point=0, **CODES,
    ),
    "QSoftmax": lambda made, x: made.node(
        "QSoftmax", [x, *made.factors(size=-12), *made.factors(size=-16)], axis=1, **CODES
    ),
    "Relu": lambda made, x: made.node("Relu", [x]),
    "Clip": lambda made, x: made.node("Clip", [x, made.constant(np.int8(-9)), made.constant(np.int8(99))]),
    "Min": lambda made, x: made.node("Min", [x, made.constant(made.codes((1, 6, 1, 1)))]),
    "Max": lambda made, x: made.node("Max", [x, made.lookup(x)]),
    "Identity": lambda made, x: made.node("Identity", [x]),
    "Cast": lambda made, x: made.node("Cast", [made.node("Cast", [x], to=6)], to=3),
    "Where": lambda made, x: made.node(
        "Cast",
        [made.node("Where", [made.constant(made.codes((6, 1, 1)) > 0), *[made.node("Cast", [x], to=6)] * 2])], to=3,
    ),
    "Concat": lambda made, x: made.node("Concat", [x, made.constant(made.codes((2, 1, 8, 9))), made.lookup(x)], axis=1),
    "Concat of rows": lambda made, x: made.node("Concat", [x, x], axis=-2),
    "Split": lambda made, x: made.add(*made.node("Split", [x], results=2, axis=1, num_outputs=2)),
    "Pad": lambda made, x: made.node(
        "Pad", [x, made.constant(np.array([0, 1, 2, 0, 0, 0, 1, 3])), made.constant(np.int8(5))]
    ),
    "Pad of named axes": lambda made, x: made.node(
        "Pad", [x, made.constant(np.array([1, 2, 0, 3])), made.constant(np.int8(5)), made.constant(np.array([-1, 1]))]
    ),
    "Slice": lambda made, x: made.node("Slice", [x, *map(made.constant, (np.array([0, 1]), np.array([2, 5])))]),
    "Slice of named axes": lambda made, x: made.node(
        "Slice", [x, *(made.constant(np.array(item)) for item in ([5, 0], [0, 9], [1, -1], [-2, 2]))]
    ),
    "MaxPool": lambda made, x: made.node("MaxPool", [x], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
    "MaxPool that rounds up": lambda made, x: made.node(
        "MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], dilations=[2, 1], ceil_mode=1
    ),
    "MaxPool that stays the same size": lambda made, x: made.node(
        "MaxPool", [x], kernel_shape=[3, 3], strides=[2, 1], auto_pad="SAME_LOWER"
    ),
    "MaxPool of nothing": lambda made, x: made.node("MaxPool", [x], kernel_shape=[1, 1]),
    "Reshape, Transpose, Reshape": lambda made, x: rearranged(
        made, x, [2, 2, 3, 8, 9], [0, 2, 1, 3, 4], [0, 6, 8, 9]
    ),
    "Reshape from channels to positions": lambda made, x: rearranged(
        made, x, [0, 2, 3, 1, 8, 9], [0, 1, 4, 2, 5, 3], [-1, 2, 24, 9]
    ),
    "Reshape from positions to channels": lambda made, x: rearranged(
        made, x, [0, 0, 4, 2, 3, 3], [0, 3, 5, 1, 2, 4], [2, 36, 4, 3]
    ),
    "ReduceMax": lambda made, x: made.mul(x, made.node("ReduceMax", [x, made.constant(np.array([2, 3]))], keepdims=1)),
    "ReduceMin": lambda made, x: made.mul(x, made.node("ReduceMin", [x, made.constant(np.array([-3]))], keepdims=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS_BETWEEN)
def test_what_lies_between_two_convolutions_follows_them(name: str) -> None:
    found = Counter(behind(STAYS_BETWEEN[name]))
    assert found["QConvChannelsLast"] == 2
    assert found["Transpose"] == 2 + name.startswith("Reshape")  # input and output, and the part itself
    assert "QConv" not in found
    assert "MaxPool" not in found


def test_every_rule_is_tried_above_or_below() -> None:
    tried = {name.split()[0].strip(",").removesuffix("Shift") for name in STAYS_BETWEEN}
    rules = {**_layout_rules.RULES, **_layout_movers.RULES, **_layout_flatten.RULES}
    assert set(rules) - tried == {"QConv", "ArgMax", "ArgMin", "Squeeze", "Flatten"}


CONVOLUTIONS = {
    "plain": {"image": (2, 3, 8, 9)},
    "strides, dilations and uneven pads": {
        "image": (2, 3, 8, 9), "strides": [2, 1], "dilations": [1, 2], "pads": [0, 2, 1, 1],
    },
    "groups": {"image": (1, 6, 5, 5), "group": 3},
    "depthwise": {"image": (1, 6, 5, 5), "group": 6},
    "one output": {"image": (1, 2, 5, 5), "outputs": 1},
    "one axis": {"image": (2, 3, 9), "kernel": (3,)},
    "three axes": {"image": (2, 3, 4, 5, 3), "kernel": (2, 3, 1), "pads": [0, 1, 0, 1, 1, 0]},
    "4 bits": {"image": (2, 3, 8, 9), "bits": 4},
    "3 bits": {"image": (2, 3, 8, 9), "bits": 3},
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("batch", [False, True], ids=["static", "batch"])
def test_a_convolution_is_turned(name: str, batch: bool) -> None:
    given = dict(CONVOLUTIONS[name])
    made, image = builder(), given.pop("image")
    y = made.conv(made.image(*image), image[1], given.pop("outputs", 6), **given)  # type: ignore[arg-type]
    kinds = Counter(turned(made, y, batch=batch))
    assert sum(kinds[kind] for kind in ("QConvChannelsLast", "QConvChannelsLastPacked")) == 1
    assert kinds["Transpose"] + kinds["Reshape"] == 2


def test_one_position_or_one_channel_needs_no_transpose() -> None:
    made = builder()
    y = made.conv(made.image(2, 1, 8, 9), 1, 4, kernel=(8, 9), pads=[0] * 4)
    assert turned(made, y) == ["Reshape", "QConvChannelsLast", "Reshape"]


def tail(*, pooled: bool, rows: str, bits: int = 8) -> list[str]:
    made = builder()
    y = made.conv(made.image(2, 3, 6, 5), 3, 4)
    depth = 4 * 30
    if pooled:
        y = made.node("QGlobalAveragePool", [y, *made.factors(size=-5)], x_zero_point=1, **CODES)
        depth = 4
    if rows == "Flatten":
        y = made.node("Flatten", [y], axis=1)
    elif rows == "Squeeze":
        y = made.node("Squeeze", [y, made.constant(np.array([2, -1]))])
    else:
        sizes = {"Reshape": [-1, depth], "Reshape by copies": [0, -1]}[rows]
        y = made.node("Reshape", [y, made.constant(np.array(sizes))])
    return turned(made, made.gemm(y, depth, 5, bits))[2:]


@pytest.mark.parametrize("rows", ["Flatten", "Reshape", "Reshape by copies", "Squeeze"])
def test_a_classifier_behind_a_global_pool_ends_without_a_transpose(rows: str) -> None:
    assert tail(pooled=True, rows=rows) == ["QReduceMean", rows.split()[0], "QGemm"]


@pytest.mark.parametrize("rows", ["Flatten", "Reshape", "Reshape by copies"])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_behind_a_flattened_image_are_reordered(rows: str, bits: int) -> None:
    assert tail(pooled=False, rows=rows, bits=bits) == [rows.split()[0], "QGemm" if bits == 8 else "QGemmPacked"]


def test_rows_that_something_else_reads_keep_their_order() -> None:
    made = builder()
    rows = made.node("Flatten", [made.conv(made.image(2, 3, 6, 5), 3, 4)], axis=1)
    assert turned(made, made.gemm(rows, 120, 5), made.lookup(rows))[2:4] == ["Transpose", "Flatten"]


@pytest.mark.parametrize(
    ("axes", "keep", "transposes"), [([2, 3], 0, 1), ([1], 0, 1), ([3], 0, 2), ([0], 0, 2), ([1, 2], 1, 2)]
)
def test_means_leave_axes_in_their_order(axes: list[int], keep: int, transposes: int) -> None:
    made = builder()
    y = made.conv(made.image(2, 3, 6, 5), 3, 4)
    mean = made.node("QReduceMean", [y, *made.factors(size=-3)], axes=axes, keepdims=keep, x_zero_point=1, **CODES)
    kinds = Counter(turned(made, mean))
    assert kinds["Transpose"] + kinds["Reshape"] == transposes


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
def test_the_best_channel_of_every_position_needs_no_transpose_behind(kind: str) -> None:
    made = builder()
    y = made.conv(made.image(2, 3, 6, 5), 3, 4)
    assert turned(made, made.node(kind, [y], axis=1, keepdims=0)) == ["Transpose", "QConvChannelsLast", kind]


def test_transposes_of_the_model_itself_vanish() -> None:
    """Layer normalization over channels, as networks with channels first write it."""
    made = builder()
    y = made.node("Transpose", [made.conv(made.image(2, 3, 6, 5), 3, 4)], perm=[0, 2, 3, 1])
    y = made.node("Transpose", [made.gemm(y, 4, 4)], perm=[0, 3, 1, 2])
    kinds = turned(made, made.conv(y, 4, 2))
    assert kinds == ["Transpose", "QConvChannelsLast", "QGemm", "QConvChannelsLast", "Transpose"]


def test_positions_in_a_row_become_tokens_without_a_transpose() -> None:
    """The patch embedding of a vision transformer, and the way back."""
    made = builder()
    y = made.conv(made.image(2, 3, 8, 12), 3, 4, kernel=(4, 4), strides=[4, 4], pads=[0] * 4)
    tokens = made.node("Transpose", [made.node("Reshape", [y, made.constant(np.array([0, 0, -1]))])], perm=[0, 2, 1])
    back = made.node("Transpose", [made.gemm(tokens, 4, 4)], perm=[0, 2, 1])
    image = made.node("Reshape", [back, made.constant(np.array([-1, 4, 2, 3]))])
    kinds = turned(made, made.conv(image, 4, 2))
    assert kinds == ["Transpose", "QConvChannelsLast", "Reshape", "QGemm", "Reshape", "QConvChannelsLast", "Transpose"]


def test_a_reshape_that_takes_channels_apart_stays_behind_a_transpose() -> None:
    made = builder()
    y = made.node("Reshape", [made.conv(made.image(2, 3, 4, 5), 3, 4), made.constant(np.array([2, 2, 2, 4, 5]))])
    assert turned(made, y) == ["Transpose", "QConvChannelsLast", "Transpose", "Reshape"]


def test_what_has_no_such_form_stays_behind_a_transpose_and_is_named() -> None:
    made = builder()
    x = made.conv(made.image(1, 3, 6, 5), 3, 4)
    weight, bias = made.constant(made.codes((2, 4, 2, 2))), made.constant(np.zeros((2, 1, 1), np.int32))
    window = {"strides": [2, 2], "dilations": [1, 1], "pads": [0] * 4, "output_padding": [0, 0], "group": 1}
    y = made.node("QConvTranspose", [x, weight, bias, *made.factors()], x_zero_point=0, **window, **CODES)
    last = made.conv(y, 2, 3)
    assert turned(made, last) == [
        "Transpose", "QConvChannelsLast", "Transpose", "QConvTranspose", "Transpose", "QConvChannelsLast", "Transpose",
    ]  # fmt: skip
    ctx = turn(made.model(last))
    assert [skip.reason for skip in ctx.records[0].skips] == [
        "its channels stay first: there is no such operator with channels last"
    ]


def test_a_pool_behind_a_convolution_runs_in_stock_runtimes() -> None:
    """Transposes of the bodies move through the Pad of QMaxPool, which therefore names no axes."""
    made = builder()
    x = made.conv(made.image(2, 3, 8, 9), 3, 6)
    padded = made.node("Pad", [x, made.constant(np.array([0, 1, 2, 0, 0, 0, 1, 3])), made.constant(np.int8(5))])
    pooled = made.node("QMaxPool", [made.lookup(x)], axis=2, kernel=3, stride=2, dilation=1, begin=1, end=1, to=3)
    turned(
        made, made.node("QMaxPool", [x], axis=3, kernel=3, stride=2, dilation=1, begin=1, end=0, to=3), padded, pooled
    )


def test_a_convolution_whose_rank_is_unknown_is_named() -> None:
    made = builder()
    model = made.model(made.conv(made.image(1, 3, 6, 5), 3, 4))
    model.graph.inputs[0].shape = None
    ctx = turn(model)
    assert [node.op_type for node in model.graph] == ["QConv"]
    assert ctx.records[0].skips[0].reason == "its channels stay first: the rank of its codes is not known"


def test_nothing_happens_where_channels_come_first() -> None:
    made = builder()
    model = made.model(made.conv(made.image(1, 3, 6, 5), 3, 4))
    ctx = Context(edit=Edit(model), target=load("edge-npu"))
    ChannelsLast().run(model, ctx)
    assert ctx.edit.count == 0
    assert [node.op_type for node in model.graph] == ["QConv"]


def test_codes_say_how_they_lie() -> None:
    made = builder()
    inner = made.conv(made.image(2, 3, 6, 5), 3, 4)
    model = made.model(made.conv(inner, 4, 2))
    before = Interpreter(model).run(made.feed(), [inner])[inner]
    meaning = code_meanings(model)[inner]
    turn(model)
    after = Interpreter(model).run(made.feed(), [inner])[inner]
    assert after.shape == (2, 6, 5, 4)
    numbers = real_numbers(after, code_meanings(model)[inner])
    np.testing.assert_array_equal(numbers, real_numbers(before, meaning), strict=True)


def test_a_result_that_is_read_inside_keeps_its_public_name_and_layout() -> None:
    made = builder()
    inner = made.conv(made.image(2, 3, 6, 5), 3, 4)
    lookup = made.lookup(inner)
    kinds = Counter(turned(made, inner, made.conv(lookup, 4, 2), lookup))
    assert kinds["Transpose"] == 4


@pytest.mark.parametrize("seed", range(400 if os.environ.get("QCOMPILER_NIGHTLY") else 20))
def test_random_graphs_keep_their_bits(seed: int) -> None:
    random = np.random.default_rng(seed)
    made = Builder(random)
    parts = [part for name, part in STAYS_BETWEEN.items() if name != "Clip"]  # runtimes fail on an int8 Relu before it
    known = [made.conv(made.image(2, 3, 8, 9), 3, 6)]
    for _ in range(int(random.integers(3, 9))):
        x = str(random.choice(known))
        shape = _shape(made, x)
        if shape != (6, 8, 9):
            known.append(made.conv(x, shape[0], 6))
            continue
        known.append(parts[int(random.integers(len(parts)))](made, x))
    found = turned(made, *dict.fromkeys([known[-1], str(random.choice(known))]), batch=False)
    assert "QConv" not in found


def _shape(made: Builder, name: str) -> tuple[int, ...]:
    model = made.model(name)
    output: ir.Value = model.graph.outputs[0]
    assert output.shape is not None
    return tuple(int(size) for size in output.shape[1:])
