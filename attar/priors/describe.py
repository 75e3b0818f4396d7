"""A prior in words: what it is, by which conventions, and which of its classes the data's are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attar.data.class_names import ClassMap, is_imagenet, matches
from attar.priors.codec import AutoencoderCodec, Codec
from attar.priors.prior import Prior

SCHEDULER_FIELDS = ("timestep_spacing", "steps_offset", "set_alpha_to_one")


def prior_in_words(prior: Prior) -> str:
    """Size, latents, codec, schedule, conventions and classes, a line each."""
    abar, network = prior.schedule.alphas_cumprod, prior.network
    lines = {
        "network": f"{type(network).__name__}, {sum(p.numel() for p in network.parameters()) / 1e6:,.1f} M parameters"
        + _size(network),
        "latents": " x ".join(map(str, prior.codec.shape)),
        "codec": _codec(prior.codec),
        "schedule": f"{len(prior.schedule)} times, alpha-bar {abar[0]:.4f} ... {abar[-1]:.2g}",
        "scheduler": _scheduler(prior),
        "prediction": _prediction(prior),
        "classes": _classes(prior),
        "fingerprint": f"{prior.key}, codec {prior.codec.key}",
    }
    if hasattr(network, "conventions"):
        conventions = network.conventions
        lines["timesteps"] = (
            f"frequencies over {128 - conventions.frequency_shift} (diffusers 127, the original DiT 128)"  # type: ignore[union-attr, operator]
        )
        lines["layer norm"] = f"epsilon {conventions.norm_eps:g} (diffusers 1e-05, the original DiT 1e-06)"  # type: ignore[union-attr]
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def described_match(prior: Prior, names: Sequence[str], mapping: ClassMap | None = None) -> str:
    """Which class of the prior each class of the data is, or its prompt, a line each.

    Raises:
        AttarError: nothing can be matched, or `mapping` does not fit.
    """
    if prior.prompts is not None:
        prompts = zip(prior.prompts.classes, prior.prompts.texts, strict=True)
        return "\n".join(["the prompts of the data's classes", *(f"  {name!r}  {text!r}" for name, text in prompts)])
    by_name = matches(names, prior.classes, prior.n_classes, names, mapping)
    matched = sum(len(labels) == 1 for labels in by_name.values())
    how = "by name" if prior.classes else "by position: the prior carries no class names"
    if mapping:
        how += f", {len(mapping)} by the class map"
    lines = [f"{matched} of the data's {len(names)} classes are matched {how}"]
    width = max(len(repr(name)) for name in names)
    for name, labels in by_name.items():
        shown = " or ".join(_named(prior, label) for label in labels) or "unknown to the prior"
        lines.append(f"  {name!r:<{width}}  {shown}" + " (choose with `class_map`)" * (len(labels) > 1))
    return "\n".join(lines)


def _named(prior: Prior, label: int) -> str:
    return f"{label} {prior.classes[label]!r}" if prior.classes else str(label)


def _scheduler(prior: Prior) -> str:
    if prior.schedule.scheduler is None:
        return "none of its own"
    name, config = prior.schedule.scheduler
    settings = ", ".join(f"{field} {config[field]}" for field in SCHEDULER_FIELDS if field in config)
    return f"{name}, {settings}" if settings else name


def _prediction(prior: Prior) -> str:
    if prior.schedule.straight:
        return "flow: noise - z on a straight path, taken for the velocity that follows from it"
    return prior.schedule.prediction + (", learned variance" if _learned_sigma(prior.network) else "")


def _size(network: Any) -> str:
    if not hasattr(network, "transformer"):
        return ""
    config = network.transformer.config
    hidden = config.num_attention_heads * config.attention_head_dim
    blocks, heads = config.num_layers, config.num_attention_heads
    return f": {blocks} blocks of {hidden}, {heads} heads, patches of {config.patch_size} x {config.patch_size}"


def _learned_sigma(network: Any) -> bool:
    return bool(getattr(network, "learned_sigma", False))


def _codec(codec: Codec) -> str:
    size = f"images of {codec.size} x {codec.size}"
    if isinstance(codec, AutoencoderCodec):
        shift = f", shift {codec.shift:g}" if codec.shift else ""
        return f"{type(codec.vae).__name__}, {size}, scale {codec.scale:g}{shift}"
    return f"pixels, {size}"


def _classes(prior: Prior) -> str:
    if prior.prompts is not None:
        return f"given by prompts; null label: the negative prompt, {prior.prompts.negative!r}"
    if prior.classes is None:
        return f"{prior.n_classes} without names, null label {prior.null}"
    shown = ", ".join(repr(name.split(",")[0]) for name in prior.classes[:5])
    usual = " (ImageNet-1k's)" if is_imagenet(prior.classes) else ""
    return f"{prior.n_classes}{usual}: {shown}{' ...' * (prior.n_classes > 5)}; null label {prior.null}"
