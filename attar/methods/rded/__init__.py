"""RDED (Sun et al., CVPR 2024)."""
