"""Grids of runs, tuning, waterfalls, scores; each resumes and returns its results."""
