"""A run: checks, artefacts, the stages of the pipeline, manifest, cost."""
