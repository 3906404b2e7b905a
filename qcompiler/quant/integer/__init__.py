"""Scalar specification of the integer operators: what every kernel, function body and interpreter must compute."""
