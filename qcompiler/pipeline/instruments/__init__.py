"""Observers of a pipeline run: verify, time, dump, reproduce, bisect."""
