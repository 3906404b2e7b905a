"""Passes that make a file of the result."""
