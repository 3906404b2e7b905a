"""``python -m qcompiler.cli`` is ``qcompile``."""

from qcompiler.cli.compile import main

if __name__ == "__main__":
    main(prog_name="qcompile")
