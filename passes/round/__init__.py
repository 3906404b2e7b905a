"""Passes of the round family."""
