"""Train the digit models from a seed and write them with their data: ``python models/train_digits.py --output models``.

The data are scikit-learn's digits (1797 images of 8×8 pixels, scaled to [0, 1]), split by class into training and
evaluation images; the calibration samples are drawn from the training images. Needs the extra ``train``. On one machine
the same seed gives the same files, byte for byte.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from qcompiler.models.digits_networks import ResidualNetwork, VisionTransformer

__all__ = ["main"]

SEED = 20
EVALUATION_IMAGES = 500
CALIBRATION_IMAGES = 128
BATCH = 64
OPSET = 17


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Attributes:
        name: File name of the model, without suffix.
        network: The class of the network.
        epochs: Passes over the training images.
        learning_rate: The highest step size; it rises over the first twentieth and then falls as a cosine to zero.
    """

    name: str
    network: type[nn.Module]
    epochs: int
    learning_rate: float


RECIPES = (
    Recipe("digits_cnn", ResidualNetwork, epochs=60, learning_rate=4e-3),
    Recipe("digits_vit", VisionTransformer, epochs=150, learning_rate=2e-3),
)


@dataclass(frozen=True)
class Split:
    """The images, float32 (N, 1, 8, 8) in [0, 1], and their labels, int64 (N,); no image is on both sides."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    evaluation: NDArray[np.float32]
    evaluation_labels: NDArray[np.int64]

    def calibration(self) -> NDArray[np.float32]:
        """The calibration images: the first of the (shuffled) training images."""
        return self.train[:CALIBRATION_IMAGES]


def load_split() -> Split:
    """Load the digits and split them, every class in the same proportion on both sides."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    train, evaluation, train_labels, evaluation_labels = train_test_split(
        images, labels, test_size=EVALUATION_IMAGES, stratify=labels, random_state=SEED
    )
    return Split(train, train_labels, evaluation, evaluation_labels)


def distort(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotate, scale and shift every image of (N, 1, 8, 8) a little: ±12°, ±10 %, ±0.8 pixels."""
    count = images.shape[0]

    def uniform(limit: float) -> torch.Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * limit

    angle, scale = uniform(math.radians(12)), 1 + uniform(0.1)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cosine, -sine, uniform(0.2)], 1), torch.stack([sine, cosine, uniform(0.2)], 1)]
    grid = nn.functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def train(recipe: Recipe, split: Split) -> nn.Module:
    """Train the network of ``recipe`` and return it in evaluation mode."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = recipe.network()
    images, labels = torch.from_numpy(split.train), torch.from_numpy(split.train_labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=0.02)
    steps = recipe.epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.05, cycle_momentum=False
    )
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        for step in range(len(images) // BATCH):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            logits = network(distort(images[chosen], generator))
            loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def export(network: nn.Module, path: Path) -> None:
    """Write ``network`` with its batch normalizations kept, a free batch axis and no trace of this machine."""
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, 8, 8),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
        # Keep the mode the network is in, and with it the BatchNormalization nodes that an evaluation export folds.
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    model = onnx.load(path)
    model.producer_name, model.producer_version, model.doc_string = "qcompiler", "", ""
    for node in model.graph.node:
        node.doc_string = ""
    name_folded_weights(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def name_folded_weights(graph: onnx.GraphProto) -> None:
    """Rename weights that the exporter transposed and numbered (``onnx::MatMul_7``) after the layer that uses them."""
    weights = {weight.name: weight for weight in graph.initializer if weight.name.startswith("onnx::MatMul")}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in weights:
                # '/layers/layers.0/attention/query/MatMul' belongs to the module 'layers.0.attention.query'
                node.input[index] = weights[name].name = ".".join(node.name.split("/")[2:-1]) + ".weight"


def accuracy(path: Path, split: Split) -> float:
    """The share of the evaluation images that the written model classifies right in ONNX Runtime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": split.evaluation})
    return float((logits.argmax(1) == split.evaluation_labels).mean())


def main() -> None:
    """Train every model and write models, data and the index into the output folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the folder to write into")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    split = load_split()
    np.savez_compressed(output / "digits_calibration.npz", image=split.calibration())
    np.savez_compressed(output / "digits_evaluation.npz", image=split.evaluation, labels=split.evaluation_labels)
    lines = ["# Written by train_digits.py. The accuracy is that of the float model on the evaluation images.\n"]
    for recipe in RECIPES:
        path = output / f"{recipe.name}.onnx"
        export(train(recipe, split), path)
        measured = accuracy(path, split)
        print(f"{path.name}: {measured:.2%} of {len(split.evaluation)} evaluation images, {path.stat().st_size} bytes")
        lines += [
            f"\n[{recipe.name}]\n",
            'calibration = "digits_calibration.npz"\nevaluation = "digits_evaluation.npz"\n',
            f"accuracy = {measured:.4f}\n",
        ]
    (output / "index.toml").write_text("".join(lines))


if __name__ == "__main__":
    main()
