"""Rendered faces with known truth, in the raw layout of each data set."""
