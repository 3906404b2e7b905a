"""qcompiler.ir."""
