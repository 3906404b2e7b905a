"""Samples, observers and the runs that bring them together: what ranges of activations are learnt from."""
