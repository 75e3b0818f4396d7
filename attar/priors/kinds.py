"""The forms that priors come in, with what loads each: what `PRIORS` names."""

from __future__ import annotations

from attar.priors import Kind, dit, original_dit, stable_diffusion

DIT = Kind(dit.latent_space, dit.load_dit)
STABLE_DIFFUSION = Kind(stable_diffusion.latent_space, stable_diffusion.load_stable_diffusion, prompted=True)
ORIGINAL_DIT = Kind(original_dit.latent_space, original_dit.load_checkpoint)
