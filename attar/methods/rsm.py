"""RSM ("Mitigating The Distribution Shift of Diffusion-based Dataset Distillation", CVPR 2026): its first stage.

The prior is fine-tuned to sparse latents (`SparseTune`), as few images cannot hold all that a class has:

    L = L_diffusion + sparsity * mean |x0|

Written from the abstract and a short description, without the paper; no code is published. x0 is what the network
predicts as clean; all else is tuned as `minimax` tunes it. The second stage, a class denoised together, is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from attar.methods.minimax.finetune import Tune
from attar.methods.minimax.method import Minimax


@dataclass(frozen=True)
class SparseTune(Tune):
    """Fine-tunes the prior on groups of classes with the sparse term, without the criteria of minimax."""

    representativeness: float = 0.0
    """Weight of minimax's first criterion; the abstract names the sparse term alone."""
    diversity: float = 0.0
    """Weight of minimax's second criterion; likewise."""
    sparsity: float = 0.004
    """Weight of the sparse term. 0.002 to 0.006 are described; the middle, and the mean over values, are our choice."""


@dataclass(frozen=True)
class RSM(Minimax):
    """Tunes the prior to sparse latents, then samples it: the first n of one pool are the set of IPC n.

    Sampler, pool, adaptor and steps are those of `minimax`: their settings are not described.
    """

    fit: SparseTune = SparseTune()
    """Fine-tuning with the sparse term."""
