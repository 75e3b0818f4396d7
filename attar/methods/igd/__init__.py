"""IGD, influence-guided diffusion (Chen et al., ICLR 2025)."""
