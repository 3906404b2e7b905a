"""Passes of the allocate family."""
