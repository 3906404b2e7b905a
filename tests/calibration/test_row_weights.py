"""Which rows are padding, found by shape and only where that leaves no doubt."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from qcompiler.calibration.checks import InputSpec
from qcompiler.calibration.observers import make
from qcompiler.calibration.row_weights import FeedWeights, RowWeights, find
from qcompiler.quant.format import QFormat

TOKENS = FeedWeights(np.array([[1, 1, 0]], np.float32))  # N=1, L=3


def spec(*shape: int | str) -> InputSpec:
    return InputSpec(np.dtype(np.int64), shape)


def test_the_attention_mask_is_preferred() -> None:
    assert find({"ids": spec("N", 8), "mask_tokens": spec("N", 8), "attention_mask": spec("N", 8)}) == RowWeights(
        "attention_mask"
    )
    assert find({"ids": spec("N", 8), "padding_mask": spec("N", 8)}) == RowWeights("padding_mask")
    assert find({"ids": spec("N", 8), "attention_mask": spec("N", 1, 8, 8)}) is None
    assert find({"ids": spec("N", 8)}) is None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 3, 5), (1, 3, 1)),
        ((1, 3, 5, 2), (1, 3, 1, 1)),
        ((3, 5), (3, 1)),
        ((1, 2, 3, 5), (1, 1, 3, 1)),
        ((1, 2, 5, 3), None),  # keys transposed, or the scores of 5 queries: read where they are padded
        ((1, 2, 3, 3), None),  # scores, or the length happens to equal the depth
        ((1, 3, 3, 5), None),  # or the number of heads
        ((1, 3), None),  # pooled features may have any size
        ((1, 5), None),
        ((2, 3, 5), None),
        ((), None),
    ],
)
def test_token_axis(shape: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    weights = TOKENS.of("any", shape)
    assert (None if weights is None else weights.shape) == expected
    if weights is not None:
        assert weights.reshape(-1).tolist() == [1, 1, 0]


@pytest.mark.parametrize("mask", [[[1, 1, 1]], [[0, 0, 0]], [[1, 2, 0]], [[0.0, -1e4, 0.0]]])
def test_what_is_no_padding_mask_gives_no_weights(mask: list[list[float]]) -> None:
    assert RowWeights("m").of_feed({"m": np.array(mask)}) is None


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.bool_, np.float32])
def test_any_element_type_will_do(dtype: type) -> None:
    weights = RowWeights("m").of_feed({"m": np.array([[1, 0]], dtype)})
    assert weights is not None
    assert weights.tokens.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse", "entropy"])
def test_padded_tokens_are_as_if_removed_on_every_layout(method: str) -> None:
    values = np.random.default_rng(0).standard_normal((1, 3, 8)).astype(np.float32)
    values[0, 2] *= 50
    heads = values.reshape(1, 3, 2, 4)
    layouts = [values, values[0], heads.transpose(0, 2, 1, 3)]
    expected = make(method)
    expected.update(values[:, :2])
    form = QFormat.parse("u8")
    for layout in layouts:
        weighted = make(method)
        weighted.update(layout, TOKENS.of("any", layout.shape))
        np.testing.assert_array_equal(weighted.range(form), expected.range(form))


def test_tensors_that_carry_the_mask_keep_every_row(parse: Callable[[str], ir.Model]) -> None:
    model = parse("""<ir_version: 10, opset_import: ["": 21]>
        g (float[N, L, 4] x, float[N, L] attention_mask) => (float[N, L, 4] y)
        <float one = {1.0}, float low = {-10000.0}, int64[1] last = {2}>
        {
            inverse = Sub(one, attention_mask)
            additive = Mul(inverse, low)
            size = Shape(x)
            wide = Unsqueeze(additive, last)
            spread = Expand(wide, size)
            hidden = Relu(x)
            scores = Add(hidden, spread)
            weights = Softmax(scores)
            y = Mul(weights, hidden)
        }""")
    found = find({"x": spec("N", "L", 4), "attention_mask": spec("N", "L")}, model.graph)
    assert found is not None
    assert found.exempt == {"attention_mask", "inverse", "additive", "wide", "spread", "scores"}
    weights = found.of_feed({"attention_mask": np.array([[1, 1, 0]])})
    assert weights is not None
    assert weights.of("spread", (1, 3, 4)) is None
    assert weights.of("hidden", (1, 3, 4)) is not None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 2, 3, 3), (1, 1, 3, 1)), ((1, 3, 3, 3), None), ((1, 2, 3, 5), (1, 1, 3, 1)), ((2, 2, 3, 3), None)],
)
def test_rows_of_attention(shape: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    weights = FeedWeights(TOKENS.tokens, attention=True).of("any", shape)
    assert (None if weights is None else weights.shape) == expected
