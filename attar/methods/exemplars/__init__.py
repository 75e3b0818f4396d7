"""Exemplars: real images that stand for their class, made typical of it by the prior (our own)."""
