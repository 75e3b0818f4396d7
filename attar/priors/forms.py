"""The forms that priors come in, with what loads each: what `PRIORS` names."""

from __future__ import annotations

from attar.priors import PriorForm, dit, original_dit, stable_diffusion

DIT = PriorForm(dit.latent_space, dit.load_dit)
STABLE_DIFFUSION = PriorForm(stable_diffusion.latent_space, stable_diffusion.load_stable_diffusion, prompted=True)
ORIGINAL_DIT = PriorForm(original_dit.latent_space, original_dit.load_checkpoint)
