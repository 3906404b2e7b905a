"""Small trained sample models with their data; installed as ``qcompiler.models``."""
