"""qcompiler.calibration."""
