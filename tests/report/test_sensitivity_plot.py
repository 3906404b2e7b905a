"""The picture of losses: what is in it, what is refused, equal bytes for equal figures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qcompiler.errors import QCompilerError, UsageError
from qcompiler.report.sensitivity_plot import check_plot, plot

LOSSES = {"conv1": {"w8a8": 1e-6, "w4a8": 3e-3}, "$conv2$": {"w8a8": 0.0, "w4a8": 2e-2}, "gemm": {"w8a8": 1e-5}}


@pytest.fixture
def _matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")


def test_another_form_is_refused() -> None:
    with pytest.raises(UsageError, match=r"drawn as svg or png, not as 'losses.pdf'"):
        check_plot(Path("losses.pdf"))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(QCompilerError, match="matplotlib, which is not installed") as caught:
        check_plot(Path("losses.svg"))
    assert caught.value.hint == "pip install 'qcompiler[plot]'"


@pytest.mark.usefixtures("_matplotlib")
def test_a_picture_names_layers_and_formats() -> None:
    text = plot(LOSSES, "cnn on $1 chip", "svg").decode()
    for word in ("conv1", "$conv2$", "gemm", "w8a8", "w4a8", "cnn on $1 chip", "loss of the outputs"):
        assert word in text
    assert "pyplot" not in " ".join(name for name in sys.modules if name.startswith("matplotlib"))


@pytest.mark.usefixtures("_matplotlib")
@pytest.mark.parametrize(("form", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_equal_figures_give_equal_bytes(form: str, magic: bytes) -> None:
    first = plot(LOSSES, "title", form)
    assert first.startswith(magic)
    assert plot(LOSSES, "title", form) == first


@pytest.mark.usefixtures("_matplotlib")
def test_losses_of_zero_alone_can_be_drawn() -> None:
    assert b"<svg" in plot({"conv": {"w8a8": 0.0}}, "title", "svg")
