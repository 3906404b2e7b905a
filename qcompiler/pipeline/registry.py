"""Which passes there are, found without a list to maintain and without importing what is not asked for.

In-tree passes follow one rule: pass ``fold-batch-norm`` is a class in ``qcompiler/passes/<family>/fold_batch_norm.py``.
Looking one up therefore imports one module. Packages offer passes through the entry point group
``qcompiler.passes`` (``name = "package.module:ClassName"``); a user's own file joins through ``load_plugin``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import sys
import warnings
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from qcompiler.errors import PipelineError, UsageError
from qcompiler.pipeline.base import Pass

if TYPE_CHECKING:
    from qcompiler.analysis.metrics import Metric

__all__ = ["family", "find", "known", "load_plugin", "metrics"]

_GROUP = "qcompiler.passes"
_METRICS = "qcompiler.metrics"
_PLUGIN_MODULE = "qcompiler_plugin_"
_PLUGINS: dict[str, type[Pass]] = {}
"""Passes from files that the user named; asking for a file is a process-wide act."""
_PLUGIN_METRICS: dict[str, Metric] = {}
"""Metrics from the same files."""


def known() -> dict[str, type[Pass]]:
    """All passes by name, sorted: in-tree, installed packages, loaded plugins. Imports all of them."""
    found = dict(_in_tree())
    for entry in metadata.entry_points(group=_GROUP):
        if entry.name in found:
            continue
        try:
            found[entry.name] = _entry_class(entry)
        except PipelineError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return dict(sorted((found | _PLUGINS).items()))


def find(name: str) -> type[Pass] | None:
    """The pass of that name, importing as little as possible; ``None`` when there is none.

    Raises:
        PipelineError: An installed package offers the name but cannot be loaded.
    """
    if name in _PLUGINS:
        return _PLUGINS[name]
    for module in _modules():
        if module.rpartition(".")[2].replace("_", "-") == name:
            return _classes(importlib.import_module(module)).get(name)
    for entry in metadata.entry_points(group=_GROUP, name=name):
        return _entry_class(entry)
    return None


def metrics() -> dict[str, Metric]:
    """All metrics by name: built in, from installed packages, from loaded plugins; the first keeps a name.

    Raises:
        UsageError: An installed package offers a metric that cannot be used.
    """
    from qcompiler.analysis.metrics import BUILTIN, Metric

    found: dict[str, Metric] = {}
    for entry in metadata.entry_points(group=_METRICS):
        where = f"entry point {entry.name} = {entry.value}"
        try:
            item = entry.load()
        except Exception as error:  # code of somebody else's package
            raise UsageError(f"it cannot be loaded: {type(error).__name__}: {error}", where=where) from error
        if not isinstance(item, Metric):
            raise UsageError("it is not a Metric", where=where, hint="decorate the function with @metric")
        found[entry.name] = item
    return _PLUGIN_METRICS | found | {item.name: item for item in BUILTIN}


def family(cls: type[Pass]) -> str:
    """The folder an in-tree pass lies in (``normalize``, ``place``…), ``plugin``, or the module it comes from."""
    if cls.__module__.startswith(_PLUGIN_MODULE):
        return "plugin"
    parts = cls.__module__.split(".")
    return parts[2] if parts[:2] == ["qcompiler", "passes"] and len(parts) > 3 else cls.__module__


def load_plugin(path: str | Path) -> tuple[type[Pass], ...]:
    """Run a Python file and make the passes and metrics (``@metric``) it defines known.

    Args:
        path: The file. Its code runs: only for files the user named.

    Returns:
        The passes found.

    Raises:
        UsageError: The file is missing, fails, or defines a pass that cannot be used or whose name is taken.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise UsageError("there is no such plugin file", where=str(path))
    module = _execute(path)
    classes = _classes(module)
    for name, cls in classes.items():
        other = find(name)
        if other is not None and _source(other) != str(path):
            raise UsageError(f"pass '{name}' exists already in {other.__module__}", where=str(path), hint="rename it")
        _PLUGINS[name] = cls
    from qcompiler.analysis.metrics import Metric

    _PLUGIN_METRICS.update({item.name: item for item in vars(module).values() if isinstance(item, Metric)})
    return tuple(classes.values())


def _execute(path: Path) -> ModuleType:
    """Import the file under a name of its own; annotations of its dataclasses need it in ``sys.modules``."""
    name = f"{_PLUGIN_MODULE}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("not a Python file", where=str(path), hint="a plugin ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file does
        del sys.modules[name]
        line = _line_in(error, path)
        raise UsageError(f"the plugin fails: {type(error).__name__}: {error}", where=f"{path}{line}") from error
    return module


def _classes(module: ModuleType) -> dict[str, type[Pass]]:
    """Concrete passes that ``module`` itself defines, checked.

    Raises:
        PipelineError: One of them is not usable as a pass.
    """
    found: dict[str, type[Pass]] = {}
    for cls in vars(module).values():
        if not (isinstance(cls, type) and issubclass(cls, Pass)) or cls.__module__ != module.__name__:
            continue
        if inspect.isabstract(cls) or cls.__name__.startswith("_"):
            continue
        _check(cls)
        found[cls.name] = cls
    return found


def _check(cls: type[Pass]) -> None:
    """Refuse a pass whose class breaks the contract, where its author can see it."""
    where = f"{cls.__module__}.{cls.__qualname__}"
    if not isinstance(getattr(cls, "name", None), str) or not all(
        part.isalnum() for part in cls.name.split("-")
    ):
        raise PipelineError("a pass needs 'name: ClassVar[str]' of letters, digits and single hyphens", where=where)
    if "__dataclass_params__" not in vars(cls) or not vars(cls)["__dataclass_params__"].frozen:
        raise PipelineError("a pass must be a frozen dataclass", where=where, hint="add @dataclass(frozen=True)")
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if required:
        raise PipelineError(f"option '{required[0]}' needs a default", where=where)


@functools.cache
def _modules() -> tuple[str, ...]:
    """Names of the modules of ``qcompiler.passes``, from its folder; nothing is imported."""
    from qcompiler import passes

    root = Path(str(passes.__file__)).parent
    return tuple(
        f"qcompiler.passes.{file.parent.name}.{file.stem}"
        for file in sorted(root.glob("*/*.py"))
        if not file.stem.startswith("_")
    )


@functools.cache
def _in_tree() -> dict[str, type[Pass]]:
    found: dict[str, type[Pass]] = {}
    for module in _modules():
        for name, cls in _classes(importlib.import_module(module)).items():
            if module.rpartition(".")[2].replace("_", "-") != name:
                raise PipelineError(f"pass '{name}' belongs in {name.replace('-', '_')}.py", where=module)
            found[name] = cls
    return found


def _entry_class(entry: metadata.EntryPoint) -> type[Pass]:
    """The class behind an entry point.

    Raises:
        PipelineError: It cannot be imported, is no pass, or bears another name.
    """
    where = f"entry point {entry.name} = {entry.value}"
    try:
        cls = entry.load()
    except Exception as error:  # code of somebody else's package
        raise PipelineError(f"it cannot be loaded: {type(error).__name__}: {error}", where=where) from error
    if not (isinstance(cls, type) and issubclass(cls, Pass)):
        raise PipelineError("it is not a subclass of qcompiler.pipeline.base.Pass", where=where)
    _check(cls)
    if cls.name != entry.name:
        raise PipelineError(f"the pass calls itself '{cls.name}'", where=where)
    return cls


def _source(cls: type[Pass]) -> str | None:
    return getattr(sys.modules.get(cls.__module__), "__file__", None)


def _line_in(error: BaseException, path: Path) -> str:
    """``:LINE`` of the last frame of ``error`` inside ``path``, or nothing."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line
