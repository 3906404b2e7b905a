"""Shape inference for the passes of this family, tolerant of what it cannot infer."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["infer"]


def infer(model: ir.Model) -> None:
    """Complete types and shapes of the main graph's values."""
    import onnx

    from qcompiler.ir.execute import to_light_proto

    proto, _ = to_light_proto(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return
    known = {item.name: item for item in (*inferred.graph.value_info, *inferred.graph.output)}
    for node in model.graph:
        for value in node.outputs:
            item = known.get(str(value.name))
            if item is None or not item.type.HasField("tensor_type"):
                continue
            tensor = item.type.tensor_type
            if value.type is None and tensor.elem_type:
                value.type = ir.TensorType(ir.DataType(tensor.elem_type))
            if tensor.HasField("shape"):
                sizes = [size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in tensor.shape.dim]
                if value.shape is None or len(value.shape) != len(sizes):
                    value.shape = ir.Shape(sizes)
                else:
                    merged = [new if not isinstance(old, int) and isinstance(new, int) else old for old, new in zip(value.shape, sizes, strict=True)]
                    value.shape = ir.Shape(merged)
