"""Which models are quantized already, and are therefore refused."""

from __future__ import annotations

import onnx_ir as ir

from qcompiler.errors import ModelError

__all__ = ["refuse_quantized"]

_QUANTIZED_OPS = frozenset(
    [
        "ConvInteger",
        "DequantizeBFP",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulBnb4",
        "MatMulFpQ4",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QMoE",
        "QOrderedMatMul",
        "QuantizeBFP",
        "QuantizeLinear",
    ]
)
_QUANTIZED_DOMAINS = frozenset({"ai.qcompiler", "qonnx.custom_op.general", "finn.custom_op.general"})


def refuse_quantized(model: ir.Model) -> None:
    """Stop at a model that holds integer arithmetic already.

    Quantizing it a second time would calibrate on rounded values and could neither move nor improve the scales that
    are there; the person who deploys it is served better by being told.

    Raises:
        ModelError: naming the first such node and how many there are.
    """
    found = [
        node
        for graph in (*model.graphs(), *model.functions.values())
        for node in graph
        if node.op_type in _QUANTIZED_OPS or node.domain in _QUANTIZED_DOMAINS
    ]
    if found:
        kinds = ", ".join(sorted({node.op_type for node in found}))
        raise ModelError(
            f"the model is already quantized: {len(found)} node(s) of type {kinds}",
            where=found[0].name or found[0].op_type,
            hint="give the float model this one was made from",
        )
