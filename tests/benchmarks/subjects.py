"""Models to measure on: those of the zoo beside the repository, with their data, and the fixture of random weights."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ZOO = Path(__file__).resolve().parents[3] / "shared" / "zoo"
FIXTURE = "resnet50"
"""ResNet-50 with random weights: for speed and memory, not for accuracy."""

NAMES = {"mobilenetv1_025": "mobilenetv1_025_imagenet", "resnet20": "resnet20_cifar10", "vit": "vit_mnist"}
"""Short names of models of the zoo."""


def float_model(name: str, folder: Path) -> tuple[Path, Path]:
    """A float model and calibration data; what has to be made is made in ``folder`` once."""
    data = folder / f"{name}.npz"
    if name == FIXTURE:
        path = folder / f"{name}.onnx"
        if not path.exists():
            subprocess.run([sys.executable, str(ZOO / "make_resnet50.py"), str(path)], check=True)
        if not data.exists():
            random = np.random.default_rng(7)
            np.savez(data, **{"gpu_0/data_0": random.standard_normal((8, 3, 224, 224)).astype(np.float32)})
        return path, data
    case = zoo().load(NAMES.get(name, name))
    if not data.exists():
        case.write_npz(data, 64)
    return Path(case.model), data


def compiled(name: str, target: str, form: str | None, folder: Path) -> Path:
    """The model compiled for a target, in ``folder``; compiled only where it is not there yet."""
    model, data = float_model(name, folder)
    path = folder / f"{name}.{Path(target).stem}{f'.{form}' if form else ''}.onnx"
    if not path.exists():
        command = [str(Path(sys.executable).with_name("qcompile")), str(model), "--target", target]
        command += ["--calibration", str(data), "-o", str(path), "--quiet", "--no-latency", "--keep"]
        result = subprocess.run(command + (["--format", form] if form else []), check=False)
        if not path.exists():
            raise SystemExit(f"{name} could not be compiled for {target}: qcompile ended with code {result.returncode}")
    return path


def zoo() -> Any:
    """The zoo's module."""
    described = importlib.util.spec_from_file_location("qcompiler_zoo", ZOO / "zoo.py")
    if described is None or described.loader is None:
        raise SystemExit(f"needs the model zoo at {ZOO}")
    module = importlib.util.module_from_spec(described)
    sys.modules[described.name] = module
    described.loader.exec_module(module)
    return module
