"""Quantized groups as other compilers write them: random ones, and ones that must be left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["LEFT_ALONE", "Group", "random_group"]

OPSET: Final = 21
_TYPES: Final[dict[Any, int]] = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}


@dataclass
class Group:
    """A model that is one quantized group, and something to feed it.

    Attributes:
        x: Codes to feed.
        y_type: Element type of the result's codes.
        nodes: Nodes of the model.
        constants: Initializers by name.
        outputs: Further outputs of the model.
    """

    x: NDArray[Any]
    y_type: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    def node(self, kind: str) -> onnx.NodeProto:
        """The node of that operator type."""
        return next(item for item in self.nodes if item.op_type == kind)

    def model(self) -> onnx.ModelProto:
        """The model."""
        shape = ["N", *self.x.shape[1:]]
        x = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(self.x.dtype), shape)
        outputs = [helper.make_tensor_value_info("y", self.y_type, None)]
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs]
        held = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "group", [x], outputs, held)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def random_group(random: np.random.Generator) -> Group:
    """Conv, Gemm or MatMul with random shapes, types, scales, bias and bounds."""
    product = str(random.choice(["Conv", "Conv", "Gemm", "MatMul"]))
    x, weight_shape, outputs_axis, attributes = _shapes(product, random)
    x_type, y_type = random.choice([np.uint8, np.int8], 2)
    codes = random.integers(*_limits(x_type), x, endpoint=True).astype(x_type)
    group = Group(codes, _TYPES[y_type])
    outputs = weight_shape[outputs_axis]
    group.constants |= {"x_scale": np.float32(random.uniform(0.001, 0.1)), "x_zero": _zero(x_type, random)}
    w_scale = _add_weight(group, weight_shape, outputs_axis, random)
    spread = float(np.sqrt(np.prod(weight_shape) / outputs)) * 60 * 40
    y_scale = float(group.constants["x_scale"]) * float(np.max(w_scale)) * spread / random.uniform(20, 200)
    group.constants |= {"y_scale": np.float32(y_scale), "y_zero": _zero(y_type, random)}
    operands = ["x_real", "w_real", *_add_bias(group, product, outputs, w_scale, y_scale, random)]
    added = operands.pop() if product == "MatMul" and len(operands) == 3 else ""
    group.nodes.insert(0, helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["x_real"]))
    group.nodes.append(helper.make_node(product, operands, ["sum"], name="product", **attributes))
    if added:
        group.node("MatMul").output[0] = "product"
        group.nodes.append(helper.make_node("Add", ["product", added][:: random.choice([1, -1])], ["sum"]))
    last = _add_bounds(group, y_scale, random)
    group.nodes.append(helper.make_node("QuantizeLinear", [last, "y_scale", "y_zero"], ["y"]))
    return group


def _limits(dtype: Any) -> tuple[int, int]:
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _zero(dtype: Any, random: np.random.Generator) -> NDArray[Any]:
    return np.asarray(random.integers(*_limits(dtype), endpoint=True), dtype)


def _shapes(product: str, random: np.random.Generator) -> tuple[list[int], list[int], int, dict[str, Any]]:
    """Shapes of activation and weight, the weight's axis of outputs, attributes."""
    if product != "Conv":
        rows, depth, outputs = (int(value) for value in random.integers(1, [9, 70, 40]))
        turned = product == "Gemm" and bool(random.integers(2))
        lead = [2] if product == "MatMul" and random.integers(2) else []
        weight = [outputs, depth] if turned else [depth, outputs]
        return [*lead, rows, depth], weight, 0 if turned else 1, {"transB": 1} if turned else {}
    rank, group = int(random.integers(1, 3)), int(random.choice([1, 1, 2, 4]))
    channels, outputs = group * int(random.integers(1, 6)), group * int(random.integers(1, 6))
    kernel, sizes = random.integers(1, 4, rank), random.integers(5, 11, rank)
    attributes = {"strides": random.integers(1, 3, rank), "group": group}
    if random.integers(2):
        attributes["pads"] = random.integers(0, 3, 2 * rank)
    elif random.integers(2):
        attributes["auto_pad"] = "VALID"
    lists = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in attributes.items()}
    return [2, channels, *sizes.tolist()], [outputs, channels // group, *kernel.tolist()], 0, lists


def _add_weight(group: Group, shape: list[int], axis: int, random: np.random.Generator) -> NDArray[Any]:
    kind = str(random.choice(["int8", "uint8", "int4", "uint4"]))
    low, high, zero = {"int8": (-128, 127, 0), "uint8": (0, 255, 128), "int4": (-8, 7, 0), "uint4": (0, 15, 7)}[kind]
    dtype = np.dtype(getattr(ml_dtypes, kind) if kind.endswith("4") else kind)
    many = (shape[axis],) if random.integers(2) else ()
    scale = random.uniform(0.001, 0.01, many).astype(np.float32)
    group.constants["w"] = random.integers(low, high, shape, endpoint=True).astype(dtype)
    group.constants |= {"w_scale": np.asarray(scale), "w_zero": np.full(many, zero).astype(dtype)}
    names = ["w", "w_scale", "w_zero"] if zero or random.integers(2) else ["w", "w_scale"]
    if len(names) == 2:
        del group.constants["w_zero"]
    group.nodes.append(helper.make_node("DequantizeLinear", names, ["w_real"], axis=axis))
    return np.asarray(scale)


def _add_bias(
    group: Group, product: str, outputs: int, w_scale: NDArray[Any], y_scale: float, random: np.random.Generator
) -> list[str]:
    kind = int(random.integers(2 if product == "MatMul" else 3))
    if kind == 0:
        return []
    real = random.normal(0, 20 * y_scale, outputs)
    if kind == 1:
        group.constants["bias"] = real.astype(np.float32)
        return ["bias"]
    scale = (group.constants["x_scale"] * np.broadcast_to(w_scale, outputs)).astype(np.float32)
    group.constants |= {"bias": np.rint(real / scale).astype(np.int32), "bias_scale": scale}
    group.nodes.append(helper.make_node("DequantizeLinear", ["bias", "bias_scale"], ["bias_real"], axis=0))
    return ["bias_real"]


def _add_bounds(group: Group, y_scale: float, random: np.random.Generator) -> str:
    kind = int(random.integers(3))
    if kind == 0:
        return "sum"
    if kind == 1:
        group.nodes.append(helper.make_node("Relu", ["sum"], ["bounded"]))
        return "bounded"
    group.constants |= {"least": np.float32(-y_scale * random.uniform(0, 100)), "greatest": np.float32(y_scale * 50)}
    names = ["sum", "least", "greatest"][: int(random.integers(2, 4))]
    group.nodes.append(helper.make_node("Clip", names, ["bounded"]))
    return "bounded"


def _plain(seed: int = 0) -> Group:
    """A small convolution, always the same."""
    random = np.random.default_rng(seed)
    group = Group(random.integers(0, 256, (2, 4, 8, 8)).astype(np.uint8), TensorProto.UINT8)
    group.constants |= {"x_scale": np.float32(0.02), "x_zero": np.uint8(120)}
    group.constants |= {"w_scale": np.float32(0.01), "w_zero": np.int8(0)}
    group.constants |= {"y_scale": np.float32(0.3), "y_zero": np.uint8(99)}
    group.constants["w"] = random.integers(-128, 128, (5, 4, 3, 3)).astype(np.int8)
    group.nodes += [
        helper.make_node("DequantizeLinear", ["x", "x_scale", "x_zero"], ["x_real"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_real"]),
        helper.make_node("Conv", ["x_real", "w_real"], ["sum"], name="product"),
        helper.make_node("QuantizeLinear", ["sum", "y_scale", "y_zero"], ["y"]),
    ]
    return group


def _inner_output(group: Group) -> None:
    group.outputs.append("sum")


def _second_reader(group: Group) -> None:
    group.nodes.append(helper.make_node("Abs", ["sum"], ["magnitude"]))
    group.outputs.append("magnitude")


def _read_in_a_branch(group: Group) -> None:
    """A subgraph reads the sum of the graph around it."""
    result = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    branches = {
        name: helper.make_graph([helper.make_node(kind, ["sum"], ["chosen"])], name, [], [result])
        for name, kind in (("then_branch", "Abs"), ("else_branch", "Neg"))
    }
    group.nodes.append(helper.make_node("If", ["computed"], ["magnitude"], **branches))
    group.nodes.insert(0, helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0))
    group.nodes.insert(1, helper.make_node("Cast", ["top"], ["computed"], to=TensorProto.BOOL))
    group.outputs.append("magnitude")


def _same_padding(group: Group) -> None:
    group.node("Conv").attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))


def _asymmetric(group: Group) -> None:
    group.constants["w_zero"] = np.int8(-100)


def _scale_of_infinity(group: Group) -> None:
    group.constants["x_scale"] = np.float32(np.inf)


def _numbers_that_no_float_holds(group: Group) -> None:
    """Codes would be exact here, and real numbers are infinite."""
    group.constants |= {"w_scale": np.float32(3e38), "y_scale": np.float32(3e38)}


def _tiny_result_scale(group: Group) -> None:
    group.constants["y_scale"] = np.float32(1e-30)


def _long_sum(group: Group) -> None:
    group.constants["w"] = np.full((2, 150000), 127, np.int8).T.copy()
    group.x = np.zeros((1, 150000), np.uint8)
    group.node("Conv").op_type = "MatMul"


def _other_axis(group: Group) -> None:
    group.constants |= {"w_scale": np.full(4, 0.01, np.float32), "w_zero": np.zeros(4, np.int8)}
    group.nodes[1].attribute.append(helper.make_attribute("axis", 1))


def _blocks(group: Group) -> None:
    group.constants |= {"w": np.ones((4, 6), np.int8), "w_scale": np.ones((2, 6), np.float32)}
    group.constants["w_zero"] = np.zeros((2, 6), np.int8)
    group.x = np.zeros((3, 4), np.uint8)
    group.node("Conv").op_type = "MatMul"
    group.nodes[1].attribute.extend([helper.make_attribute("axis", 0), helper.make_attribute("block_size", 2)])


def _computed_scale(group: Group) -> None:
    group.nodes.insert(0, helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0))
    group.nodes.insert(1, helper.make_node("Cast", ["top"], ["top_real"], to=TensorProto.FLOAT))
    group.node("QuantizeLinear").input[1] = "top_real"


def _wide_result(group: Group) -> None:
    group.constants["y_zero"] = np.uint16(99)
    group.y_type = TensorProto.UINT16


def _changed(change: Callable[[Group], None]) -> Callable[[], Group]:
    def made() -> Group:
        group = _plain()
        change(group)
        return group

    return made


LEFT_ALONE: Final[dict[str, Callable[[], Group]]] = {
    change.__name__.removeprefix("_"): _changed(change)
    for change in (
        _inner_output,
        _second_reader,
        _read_in_a_branch,
        _same_padding,
        _asymmetric,
        _scale_of_infinity,
        _numbers_that_no_float_holds,
        _tiny_result_scale,
        _long_sum,
        _other_axis,
        _blocks,
        _computed_scale,
        _wide_result,
    )
}
"""Makers of groups that stay with ONNX Runtime, by reason."""
