"""Backpropagation by hand, proven against PyTorch: what a person runs."""

__version__ = "0.1.0"
