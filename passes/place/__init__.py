"""Passes of the place family."""
