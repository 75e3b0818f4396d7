"""Grids of runs, tuning, waterfalls, scores; each resumes, and returns what it came to."""
