"""qcompiler.pipeline."""
