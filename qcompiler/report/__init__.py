"""qcompiler.report."""
