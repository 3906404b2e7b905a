"""The compiler's passes, one per file, grouped in families; installed as ``qcompiler.passes``."""
