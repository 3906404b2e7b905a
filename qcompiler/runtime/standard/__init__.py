"""Standard ONNX operators in NumPy, as far as integer graphs use them: exact, and checked for overflow."""
