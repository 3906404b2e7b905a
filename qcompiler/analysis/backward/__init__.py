"""A small reverse-mode differentiator in NumPy over parts of an ONNX graph."""
