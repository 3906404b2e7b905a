"""The compiler driver: from a request to a verified file, one idea per module."""
