"""Small trained sample models with their data; installed as ``qcompiler.models``.

>>> from qcompiler.models import load
>>> sample = load("digits_cnn")
"""

from qcompiler.models.loaders import SampleModel, load, names

__all__ = ["SampleModel", "load", "names"]
