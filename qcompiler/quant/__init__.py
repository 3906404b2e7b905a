"""qcompiler.quant."""
