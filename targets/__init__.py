"""Target profiles, one TOML file per piece of hardware; installed as ``qcompiler.targets``."""
