"""Minimax Diffusion (Gu et al., CVPR 2024, arXiv 2311.15529)."""
