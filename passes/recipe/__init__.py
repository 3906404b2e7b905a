"""Passes that try other passes on a copy of the model, and keep what measures a gain."""
