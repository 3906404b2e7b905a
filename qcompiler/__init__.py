"""A compiler that turns a float ONNX model into a quantized one for a hardware target."""
