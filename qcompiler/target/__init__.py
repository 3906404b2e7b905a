"""qcompiler.target."""
