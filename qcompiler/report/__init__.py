"""The report: as data (``model``), as JSON (``codec``, ``schema.json``), on the terminal (``terminal``)."""

from qcompiler.report.model import Report

__all__ = ["Report"]
