"""The operator set ``ai.qcompiler``: every operator as an ONNX function of standard operators."""
