"""qcompiler.analysis."""
