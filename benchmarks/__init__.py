"""Attar's speed: `python -m benchmarks` times each hot path; the scripts beside it measure single things in detail."""
