"""The two networks trained on the 8×8 digits, as PyTorch modules.

Both take images of shape (N, 1, 8, 8), float32 in [0, 1], and return logits of shape (N, 10). They are small enough to
train on a laptop in a minute and hold the structures that quantization finds hard: batch normalization, depthwise
convolutions, clipped activations and residual sums in one; layer normalization, GELU and attention in the other.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ResidualNetwork", "VisionTransformer"]

CLASSES = 10
TOKENS = 16


class Convolution(nn.Module):
    """A convolution without bias, its batch normalization and an activation (``Identity`` for none)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, activation: nn.Module, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = activation

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return self.activation(self.norm(self.conv(features)))


class ResidualBlock(nn.Module):
    """Two ordinary 3×3 convolutions beside a shortcut; the shortcut is projected when the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = Convolution(inputs, outputs, 3, nn.ReLU(), stride=stride)
        self.second = Convolution(outputs, outputs, 3, nn.Identity())
        keeps_shape = inputs == outputs and stride == 1
        projection = Convolution(inputs, outputs, 1, nn.Identity(), stride=stride)
        self.shortcut = nn.Identity() if keeps_shape else projection
        self.activation = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return self.activation(self.second(self.first(features)) + self.shortcut(features))


class SeparableBlock(nn.Module):
    """Expand, depthwise, project: an inverted residual with Relu6 and a linear end."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = Convolution(channels, wide, 1, nn.ReLU6())
        self.depthwise = Convolution(wide, wide, 3, nn.ReLU6(), groups=wide)
        self.project = Convolution(wide, channels, 1, nn.Identity())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (N, channels, H, W) to the same shape."""
        return features + self.project(self.depthwise(self.expand(features)))


class ResidualNetwork(nn.Module):
    """A residual convolutional network: ordinary and separable blocks, global average pooling, one linear layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = Convolution(1, width, 3, nn.ReLU())
        self.block1 = ResidualBlock(width, width, stride=1)
        self.block2 = ResidualBlock(width, 2 * width, stride=2)
        self.block3 = SeparableBlock(2 * width, expansion=3)
        self.block4 = SeparableBlock(2 * width, expansion=3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(2 * width, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images (N, 1, 8, 8) to logits (N, 10)."""
        features = self.block2(self.block1(self.stem(image)))
        features = self.block4(self.block3(features))
        return self.classifier(self.flatten(self.pool(features)))


class Attention(nn.Module):
    """Multi-head self-attention written out in matrix products and Softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.split = (-1, TOKENS, heads, width // heads)
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (N, 16, width) to the same shape."""
        query = self.query(tokens).reshape(self.split).permute(0, 2, 1, 3)
        key = self.key(tokens).reshape(self.split).permute(0, 2, 3, 1)
        value = self.value(tokens).reshape(self.split).permute(0, 2, 1, 3)
        weights = torch.softmax(torch.matmul(query, key) * self.scale, dim=-1)
        mixed = torch.matmul(weights, value).permute(0, 2, 1, 3)
        return self.output(mixed.reshape(-1, TOKENS, self.width))


class EncoderLayer(nn.Module):
    """Attention and a GELU network of two layers, each normalized before and added to what it was given."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.activation = nn.GELU()
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (N, 16, width) to the same shape."""
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.narrow(self.activation(self.widen(self.norm2(tokens))))


class VisionTransformer(nn.Module):
    """A transformer over the sixteen 2×2 patches of an image, averaged over the patches at the end."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.width = width
        self.patches = nn.Conv2d(1, width, kernel_size=2, stride=2)
        self.position = nn.Parameter(0.02 * torch.randn(1, TOKENS, width))
        self.layers = nn.Sequential(*(EncoderLayer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images (N, 1, 8, 8) to logits (N, 10)."""
        tokens = self.patches(image).reshape(-1, self.width, TOKENS).permute(0, 2, 1)
        tokens = self.norm(self.layers(tokens + self.position))
        return self.classifier(tokens.mean(dim=1))
