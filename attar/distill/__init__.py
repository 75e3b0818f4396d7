"""A run: checks, pipeline, manifest, cost."""
