"""Help is instant: nothing heavy is imported, and what is imported stays little."""

import subprocess
import sys
import time

import pytest

HEAVY = ("numpy", "onnx", "onnx_graphsurgeon", "onnx_ir", "onnxruntime", "networkx", "pulp", "rich", "jinja2")


def _run(module: str, *arguments: str) -> list[str]:
    code = f"import sys; sys.argv[1:] = {list(arguments)!r}\nfrom {module} import main\n"
    code += "try:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "print('\\n'.join(sys.modules), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Usage:" in result.stdout
    return result.stderr.split()


@pytest.mark.parametrize("module", ["qcompiler.cli.compile", "qcompiler.cli.toolbox"])
def test_help_imports_nothing_heavy(module: str) -> None:
    assert not set(HEAVY) & set(_run(module, "--help"))


def test_help_is_fast() -> None:
    best = 1e9
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "qcompiler.cli", "--help"], check=True, capture_output=True)
        best = min(best, time.perf_counter() - start)
    assert best < 0.4


def test_the_package_itself_is_light() -> None:
    code = "import sys, qcompiler; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not set(HEAVY) & set(result.stdout.split())
