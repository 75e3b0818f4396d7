"""Attar: dataset distillation with diffusion models."""

__version__ = "0.1.0"
