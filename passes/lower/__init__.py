"""Passes that turn Q/DQ groups into integer operators."""
