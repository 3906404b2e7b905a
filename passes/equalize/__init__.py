"""Passes of the equalize family: move factors between layers, so that channels that share a scale suit each other."""
