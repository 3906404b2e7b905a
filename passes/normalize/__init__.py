"""Normalize family: float-equal rewrites that bring any accepted model into one canonical form."""
