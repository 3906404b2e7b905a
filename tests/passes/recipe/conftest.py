"""Passes to try are registered as plugins are."""

from __future__ import annotations

import pytest

from qcompiler.pipeline import registry
from tests.passes.recipe.trials import Broken, Double, Idle, Spoil


@pytest.fixture(autouse=True)
def own_passes(monkeypatch):
    plugins = {item.name: item for item in (Spoil, Double, Idle, Broken)}
    monkeypatch.setattr(registry, "_PLUGINS", plugins)
