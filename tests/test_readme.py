"""What the README says is true: commands, options, targets, snippets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_first_two_commands_do_everything() -> None:
    first, second = _blocks("sh")[0].strip().splitlines()
    assert first == "pip install . && qcompile digits_cnn --target edge-npu"
    assert second == "pip install -e '.[test]' && python -m pytest"


def test_continuous_integration_runs_the_second_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    install, test = _blocks("sh")[0].strip().splitlines()[1].split(" && ")
    assert install.removeprefix("pip install ") in script
    assert test in script


def test_every_option_named_exists() -> None:
    from qcompiler.cli import toolbox
    from qcompiler.cli.compile import main

    verbs = [toolbox.main.get_command(None, verb) for verb in toolbox.main.list_commands(None)]  # type: ignore[attr-defined, arg-type]
    known = {word for command in (main, *verbs) for parameter in command.params for word in parameter.opts}
    known |= {word for parameter in main.params for word in parameter.secondary_opts} | {"--help"}
    text = README.replace("pip install", "")
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_every_target_is_in_the_table() -> None:
    from qcompiler.target.load import names

    assert re.findall(r"^\| `([a-z0-9-]+)` \| [ui]\d", README, re.MULTILINE) == names()


def test_the_profile_loads(tmp_path: Path) -> None:
    from qcompiler.target.load import load

    (tmp_path / "my-npu.toml").write_text(_blocks("toml")[0], encoding="utf-8")
    assert "Softmax" not in load(tmp_path / "my-npu.toml").operators


def test_the_python_snippet_runs(
    tmp_path: Path, small_cnn_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small_cnn_path.rename(tmp_path / "model.onnx")
    np.savez("samples.npz", x=np.random.default_rng(1).standard_normal((64, 3, 8, 8)).astype(np.float32))
    snippet = next(block for block in _blocks("python") if "qcompiler.compile(" in block)
    names: dict[str, object] = {}
    exec(snippet.replace("min_agreement=98", "min_agreement=50, latency=False"), names)  # noqa: S102
    assert names["result"].path == Path("model.cpu-x86.onnx")  # type: ignore[attr-defined]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_recipe_for_plain_onnxruntime_works(tmp_path: Path) -> None:
    from qcompiler.runtime import library_path

    if library_path() is None:
        pytest.skip("the installation has no native library")
    recipe = next(block for block in _blocks("python") if "register_execution_provider_library" in block)
    program = (
        f"import onnxruntime, qcompiler.runtime\noptions = onnxruntime.SessionOptions()\n{recipe}"
        "import qcompiler.models.loaders as loaders\n"
        "session = onnxruntime.InferenceSession(str(loaders.load('digits_cnn').path), options)\n"
        "assert session.get_providers()[0] == 'QCompilerExecutionProvider', session.get_providers()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
