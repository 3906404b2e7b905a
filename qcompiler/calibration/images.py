"""A folder of images as samples, decoded one at a time. Needs Pillow (the extra ``images``).

Images are taken in natural order of their paths, in subfolders too. Where all images lie in subfolders named by
integers, those are the labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.preprocessing import Preprocessing, parse
from qcompiler.errors import DataError

if TYPE_CHECKING:
    from qcompiler.calibration.checks import InputSpec
    from qcompiler.calibration.sources import Read

__all__ = ["ImageColumn", "find", "read"]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})


@dataclass(frozen=True)
class ImageColumn:
    """Images as float32 tensors."""

    paths: tuple[Path, ...]
    how: Preprocessing
    origin: str

    slow = True

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.paths)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    def shapes(self) -> set[tuple[int, ...]]:
        """The declared size, or that of the first image."""
        if self.how.size is None:
            return {next(self.rows([0])).shape}
        height, width = self.how.size
        return {(self.how.channels, height, width) if self.how.layout == "nchw" else (height, width, self.how.channels)}

    def rows(self, indices: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Decoded and preprocessed images."""
        for index in indices:
            yield _load(self.paths[index], self.how)


def find(folder: Path) -> tuple[Path, ...]:
    """Image files in a folder and its subfolders, in natural order."""
    from qcompiler.calibration.sources import natural

    found = [path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()]
    return tuple(sorted(found, key=lambda path: [natural(part) for part in path.relative_to(folder).parts]))


def read(
    folder: Path,
    inputs: Mapping[str, InputSpec],
    preprocessing: str | Path | Mapping[str, Any] | Preprocessing | None,
) -> Read:
    """The one input's column of a folder of images.

    Raises:
        DataError: No preprocessing is declared, Pillow is missing, or the model takes more than one input.
    """
    from qcompiler.calibration import sources

    if len(inputs) != 1:
        text = f"holds images, the model has {len(inputs)} inputs: {', '.join(inputs)}"
        raise DataError(text, where=str(folder), hint="use an .npz file")
    declared = preprocessing if preprocessing is not None else folder / "preprocessing.toml"
    if preprocessing is None and not (folder / "preprocessing.toml").exists():
        raise DataError(
            "holds images; how they become tensors must be declared",
            where=str(folder),
            hint="put a preprocessing.toml beside them, e.g. size = [224, 224], mean = [0.485, 0.456, 0.406], "
            "std = [0.229, 0.224, 0.225]",
        )
    _pillow()
    name, spec = next(iter(inputs.items()))
    how = _with_size(parse(declared), spec)
    paths = find(folder)
    column = ImageColumn(paths, how, str(folder))
    labels = _labels(folder, paths)
    return sources.Read({name: column}, {} if labels is None else {"labels": labels}, str(folder))


def _with_size(how: Preprocessing, spec: InputSpec) -> Preprocessing:
    """Fill in the size from the model where it is not declared."""
    if how.size is not None or spec.shape is None or len(spec.shape) != 4:
        return how
    height, width = spec.shape[2:4] if how.layout == "nchw" else spec.shape[1:3]
    if not (isinstance(height, int) and isinstance(width, int)):
        return how
    return dataclasses.replace(how, size=(height, width))


def _labels(folder: Path, paths: tuple[Path, ...]) -> NDArray[Any] | None:
    names = [path.relative_to(folder).parts[0] for path in paths]
    if all(name.isdigit() for name in names):
        return np.array([int(name) for name in names], np.int64)
    return None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("reading images needs Pillow", hint="pip install 'qcompiler[images]'") from error
    return Image


def _load(path: Path, how: Preprocessing) -> NDArray[np.float32]:
    image_module = _pillow()
    try:
        with image_module.open(path) as opened:
            image = opened.convert("L" if how.colour == "grey" else "RGB")
            pixels = np.asarray(_fit(image, how, image_module), np.float32)
    except (OSError, image_module.DecompressionBombError) as error:
        raise DataError(f"cannot be read as an image: {error}", where=str(path)) from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if how.colour == "bgr":
        pixels = pixels[..., ::-1]
    real = (pixels * np.float32(how.scale) - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    return np.ascontiguousarray(real.transpose(2, 0, 1) if how.layout == "nchw" else real)


def _fit(image: Any, how: Preprocessing, image_module: Any) -> Any:
    """Resize, and crop the centre."""
    if how.size is None:
        return image
    kernel = image_module.Resampling[how.filter.upper()]
    height, width = how.size
    if how.resize is None:
        return image.resize((width, height), kernel)
    factor = how.resize / min(image.size)
    wide, high = (max(how.resize, round(side * factor)) for side in image.size)
    left, top = (wide - width) // 2, (high - height) // 2
    return image.resize((wide, high), kernel).crop((left, top, left + width, top + height))
