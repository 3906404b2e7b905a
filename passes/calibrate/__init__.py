"""Passes of the calibrate family."""
