"""The opset lift: complete by derivation from the schemas, and equal in ONNX Runtime operator by operator."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, defs, helper

from qcompiler.errors import ModelError
from qcompiler.passes.normalize._opset import CANONICAL_OPSET, LOWEST_ACCEPTED, convert, target_opset
from qcompiler.passes.normalize._opset_adapters import ADAPTERS
from qcompiler.passes.normalize.import_model import ImportModel

FEATURES = {("GroupNormalization", 21)}
"""Incompatible changes that the schemas do not show: the shape of an input."""


def _incompatible(old: defs.OpSchema, new: defs.OpSchema) -> bool:
    """Whether a node written for ``old`` may mean something else, or nothing, under ``new``."""
    if new.deprecated and not old.deprecated:
        return True
    single = defs.OpSchema.FormalParameterOption.Single
    if len(old.inputs) > len(new.inputs) or any(item.option == single for item in new.inputs[len(old.inputs) :]):
        return True
    if len(old.outputs) > len(new.outputs):
        return True
    if any(a.name != b.name and a.option != b.option for a, b in zip(old.inputs, new.inputs, strict=False)):
        return True
    for name, attribute in old.attributes.items():
        other = new.attributes.get(name)
        if other is None or other.default_value != attribute.default_value:
            return True
    return any(attribute.required for name, attribute in new.attributes.items() if name not in old.attributes)


def test_every_incompatible_change_has_an_adapter() -> None:
    history: dict[str, list[defs.OpSchema]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    missing = []
    for name, versions in history.items():
        versions.sort(key=lambda schema: schema.since_version)
        for old, new in itertools.pairwise(versions):
            if LOWEST_ACCEPTED < new.since_version <= CANONICAL_OPSET and _incompatible(old, new):
                handled = [version for version, _ in ADAPTERS.get(name, ())]
                # an operator that was renamed is followed in one step, at the version of the renaming
                if not any(version >= new.since_version for version in handled):
                    missing.append((name, old.since_version, new.since_version))
    # default changed from bilinear to linear: covered; RoiAlign's new attribute changed what its absence means
    assert missing == []
    assert {("RoiAlign", 16), *FEATURES} <= {
        (name, version) for name, rules in ADAPTERS.items() for version, _ in rules
    }


def _model(
    nodes: list[onnx.NodeProto], opset: int, shape: tuple[int, ...], constants: dict[str, np.ndarray]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(8, 4 + opset // 4))


def _node(op: str, *inputs: str, outputs: tuple[str, ...] = ("y",), **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


SHAPE = (2, 4, 6, 6)
OLD = {
    "clip": (7, [_node("Clip", "x", min=-0.5, max=0.5)]),
    "clip-open": (9, [_node("Clip", "x", min=0.0)]),
    "pad": (8, [_node("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 1, 0], value=1.5)]),
    "pad-reflect": (8, [_node("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 1, 0], mode="reflect")]),
    "slice": (9, [_node("Slice", "x", starts=[1, 0], ends=[5, -1], axes=[2, 3])]),
    "squeeze": (11, [_node("Unsqueeze", "x", outputs=("u",), axes=[0, 3]), _node("Squeeze", "u", axes=[0])]),
    "split": (11, [_node("Split", "x", outputs=("y", "z"), axis=1, split=[1, 3])]),
    "split-even": (13, [_node("Split", "x", outputs=("y", "z"), axis=1)]),
    "topk": (9, [_node("TopK", "x", outputs=("y", "i"), k=3, axis=-1)]),
    "softmax": (9, [_node("Softmax", "x")]),
    "softmax-last": (11, [_node("Softmax", "x", axis=3)]),
    "log-softmax": (11, [_node("LogSoftmax", "x", axis=2)]),
    "reduce-sum": (11, [_node("ReduceSum", "x", axes=[1], keepdims=0)]),
    "reduce-mean": (13, [_node("ReduceMean", "x", axes=[-1, -2])]),
    "reduce-max": (11, [_node("ReduceMax", "x")]),
    "reduce-l2": (17, [_node("ReduceL2", "x", axes=[1])]),
    "upsample": (8, [_node("Upsample", "x", scales=[1.0, 1.0, 2.0, 3.0], mode="nearest")]),
    "upsample-9": (9, [_node("Upsample", "x", "scales", mode="linear")]),
    "resize-10": (10, [_node("Resize", "x", "scales", mode="nearest")]),
    "resize-10-down": (10, [_node("Resize", "x", "halves", mode="nearest")]),
    "resize-13": (13, [_node("Resize", "x", "", "scales", mode="linear")]),
    "dropout": (7, [_node("Dropout", "x", ratio=0.3)]),
    "dropout-12": (12, [_node("Dropout", "x", "ratio")]),
    "depth-to-space": (7, [_node("DepthToSpace", "x", blocksize=2)]),
    "average-pool": (7, [_node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1])]),
    "grid-sample": (16, [_node("GridSample", "x", "grid", mode="bilinear")]),
    "batch-norm": (7, [_node("BatchNormalization", "x", "four", "four", "four", "four")]),
    "batch-norm-9": (9, [_node("BatchNormalization", "x", "four", "four", "four", "four")]),
    "gemm": (7, [_node("Flatten", "x", outputs=("f",)), _node("Gemm", "f", "w", "b", alpha=0.5, beta=2.0)]),
}
CONSTANTS = {
    "scales": np.array([1, 1, 2, 2], np.float32),
    "halves": np.array([1, 1, 0.5, 0.5], np.float32),
    "ratio": np.array(0.4, np.float32),
    "four": np.array([0.5, 1, 2, 3], np.float32),
    "w": np.random.default_rng(1).standard_normal((144, 5)).astype(np.float32),
    "b": np.random.default_rng(2).standard_normal((5,)).astype(np.float32),
    "grid": np.random.default_rng(3).uniform(-1, 1, (2, 3, 3, 2)).astype(np.float32),
}


@pytest.mark.parametrize("name", OLD)
def test_old_operators_compute_the_same(name: str, apply: Callable, equal: Callable) -> None:
    opset, nodes = OLD[name]
    used = {item for node in nodes for item in node.input}
    proto = _model(nodes, opset, SHAPE, {key: value for key, value in CONSTANTS.items() if key in used})
    model = ir.from_proto(proto)
    apply(model, ImportModel())
    assert model.opset_imports[""] == 21
    assert model.ir_version == 10
    equal(proto, model)


@pytest.mark.parametrize("opset", range(7, 27))
def test_every_accepted_opset(opset: int, apply: Callable, equal: Callable) -> None:
    nodes = [_node("MatMul", "x", "w", outputs=("m",)), _node("Relu", "m")]
    proto = _model(nodes, opset, (2, 144), {"w": CONSTANTS["w"]})
    model = ir.from_proto(proto)
    apply(model, ImportModel())
    assert (model.opset_imports[""], model.ir_version) == (21, 10)
    equal(proto, model)


def test_newer_opset_is_kept_where_an_operator_needs_it(apply: Callable, equal: Callable) -> None:
    proto = _model(
        [
            _node("RMSNormalization", "x", "six"),
        ],
        24,
        SHAPE,
        {"six": np.ones(6, np.float32)},
    )
    model = ir.from_proto(proto)
    apply(model, ImportModel())
    assert (model.opset_imports[""], model.ir_version) == (23, 11)
    equal(proto, model)


@pytest.mark.parametrize("opset", [6, 27, 40])
def test_opset_outside_the_range_is_refused(opset: int) -> None:
    from qcompiler.ir.edit import Edit

    model = ir.from_proto(_model([_node("Relu", "x")], 21, SHAPE, {}))
    model.graph.opset_imports[""] = opset
    with pytest.raises(ModelError, match=f"opset {opset}"):
        convert(model, Edit(model))


def test_operator_newer_than_25_is_refused() -> None:
    model = ir.from_proto(_model([_node("CumProd", "x", "axis")], 26, SHAPE, {"axis": np.array(1, np.int64)}))
    if defs.get_schema("CumProd", 26).since_version != 26:
        pytest.skip("this onnx knows no operator that came with opset 26")
    with pytest.raises(ModelError, match="CumProd needs opset 26"):
        target_opset(model)


@pytest.mark.parametrize(
    ("node", "opset", "reason"),
    [
        (_node("BatchNormalization", "x", "four", "four", "four", "four", spatial=0), 7, "per activation"),
        (_node("BatchNormalization", "x", "four", "four", "four", "four", outputs=("y", "a", "b", "c", "d")), 9, None),
        (_node("Upsample", "x"), 9, "no scales"),
    ],
)
def test_what_has_no_counterpart_is_refused(
    node: onnx.NodeProto, opset: int, reason: str | None, apply: Callable
) -> None:
    node.name = "culprit"
    model = ir.from_proto(_model([node], opset, SHAPE, {"four": CONSTANTS["four"]}))
    if reason is None:  # further outputs that nothing reads mean nothing
        apply(model, ImportModel())
        return
    with pytest.raises(ModelError, match=reason) as caught:
        apply(model, ImportModel())
    assert caught.value.where == "culprit"
    assert caught.value.hint
