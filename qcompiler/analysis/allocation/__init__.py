"""Bit allocation: which option each group takes, as an exact integer program. Knows nothing of ONNX."""
