"""Bits chosen layer by layer on pretrained models, through the installed command line.

At the bytes of uniform 4 and 3 bits a chosen plan must lose at most 0.8 of what the uniform one loses, codes rounded
alike (to nearest); written files keep their budget to the byte; a bound on the loss holds on evaluation data. A normal
run compares 300 images on one model, ``QCOMPILER_NIGHTLY=1`` all, on three.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CANDIDATES = "w8a8,w4a8,w3a8,w2a8"
SHARE = 0.8
"""Of the loss of the uniform plan."""

RESNET, VIT, MOBILENET = "resnet20_cifar10", "vit_mnist", "mobilenetv1_025_imagenet"


@pytest.mark.parametrize("form", ["w4a8", "w3a8"])
@pytest.mark.parametrize("name", [RESNET, VIT, MOBILENET])
def test_a_chosen_plan_loses_less_than_a_uniform_one_of_as_many_bytes(compiled, nightly, name, form):
    """Measured, chosen to uniform, at 4 and 3 bits: resnet20 0.54 and 0.26, vit 0.41 and 0.47, mobilenetv1 0.44, 0.27.

    Some of these miss the gate of every second decision, uniform ones above all, which is beside the point here.
    """
    if (name, form) != (RESNET, "w4a8") and not nightly:
        pytest.skip("one model at one size in a normal run: QCOMPILER_NIGHTLY=1 takes all")
    uniform = compiled(name, "lowbit-cpu", "--format", form, "--keep")
    size = uniform.path.stat().st_size
    made = compiled(name, "lowbit-cpu", "--candidates", CANDIDATES, "--budget", f"size={size}", "--keep")
    assert made.path.stat().st_size <= size
    resources = {item["resource"]: item for item in made.report["formats"]["resources"]}
    assert resources["size"]["actual"] == made.path.stat().st_size <= resources["size"]["budget"]
    limit = None if nightly else 300
    found, wanted = (item.subject.evaluate(item.path, limit=limit)["kl"] for item in (made, uniform))
    assert found <= SHARE * wanted


def test_a_bound_on_the_loss_holds_on_evaluation_data(compiled, nightly):
    made = compiled(RESNET, "lowbit-cpu", "--candidates", "w8a8,w4a8,w2a8", "--budget", "loss=0.3")
    bound = made.report["formats"]["loss_bound"]
    assert bound["upper"] <= 0.3
    assert bound["evaluations"] <= bound["most_evaluations"] == 6
    assert made.subject.evaluate(made.path, limit=None if nightly else 300)["kl"] <= 0.3


def test_what_no_plan_keeps_is_refused_with_the_smallest(subject, tmp_path):
    given = subject(RESNET)
    command = [str(Path(sys.executable).with_name("qcompile")), str(given.model), "-t", "lowbit-cpu", "-c",
               str(given.calibration), "--candidates", "w8a8,w4a8", "--budget", "size=20KB", "--effort", "quick",
               "-o", str(tmp_path / "m.onnx"), "-q", "--no-cache"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the smallest feasible: size" in done.stderr
    assert list(tmp_path.iterdir()) == []
