"""Tiny real models, priors whose answers are known in closed form, and the arrays recorded from reference codes."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from attar.core.rng import numpy_generator
from attar.core.store import Store
from attar.diffusion import Schedule, in_two_calls
from attar.distillation.artefacts import fit_artefact
from attar.distillation.pipeline import fit_group
from attar.evaluation import Record
from attar.job import Job, Spec
from attar.methods.base import Fit, Group, Tensors

GOLDEN = Path(os.environ.get("ATTAR_GOLDEN", Path(__file__).parent / "golden"))
"""The recordings; ATTAR_GOLDEN=FOLDER names others of the same form, whatever their sizes."""


def recorded(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    """The arrays of a recording, those under `model.` as weights, and its metadata: sizes and constants."""
    from safetensors import safe_open

    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        sizes = file.metadata()
    weights = {key.removeprefix("model."): value for key, value in arrays.items() if key.startswith("model.")}
    return arrays, weights, sizes


def linear_schedule() -> Schedule:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    return Schedule((1 - betas).cumprod(0).float())


class GaussianPrior:
    """Class y is N(mean[y], std[y]^2) in every feature, so the best denoiser is known exactly."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.schedule = linear_schedule()
        self.mean, self.std = mean, std
        self.null = len(mean) - 1
        self.calls = 0

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        self.calls += 1
        abar = self.schedule.abar(t)
        mean, std = (table[y].reshape(-1, 1, 1, 1) for table in (self.mean, self.std))
        return (1 - abar) ** 0.5 * (z - abar**0.5 * mean) / (abar * std**2 + 1 - abar)

    def both(self, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        return in_two_calls(self, z, t, y)

    def at(self, z0: Tensor, t: int, y: Tensor) -> Tensor:
        """Where the exact probability flow takes clean latents: a Gaussian is scaled to its marginal at t."""
        abar = self.schedule.abar(t)
        mean, std = (table[y].reshape(-1, 1, 1, 1) for table in (self.mean, self.std))
        return abar**0.5 * mean + (abar * std**2 + 1 - abar) ** 0.5 * (z0 - mean) / std


def original_weights(
    hidden: int = 48, depth: int = 3, patch: int = 2, channels: int = 4, classes: int = 10
) -> dict[str, Tensor]:
    """Random weights of an original DiT of 8 x 8 latents, learned variance, under its own names."""
    linear = {
        "t_embedder.mlp.0": (hidden, 256),
        "t_embedder.mlp.2": (hidden, hidden),
        "final_layer.adaLN_modulation.1": (2 * hidden, hidden),
        "final_layer.linear": (2 * channels * patch**2, hidden),
        "x_embedder.proj": (hidden, channels, patch, patch),
    }
    for block in range(depth):
        for name, sides in {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}.items():
            linear[f"blocks.{block}.{name}"] = (sides[0] * hidden, sides[1] * hidden)
        linear[f"blocks.{block}.adaLN_modulation.1"] = (6 * hidden, hidden)
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in linear.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    shapes |= {"y_embedder.embedding_table.weight": (classes + 1, hidden), "pos_embed": (1, (8 // patch) ** 2, hidden)}
    draw = torch.Generator().manual_seed(0)
    return {name: 0.15 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def original_dit(w: dict[str, Tensor], z: Tensor, t: Tensor, y: Tensor, heads: int) -> Tensor:
    """The original network, gammas and all, written from its paper: a second implementation."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[name + ".weight"], w[name + ".bias"])

    def norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=1e-6)

    patch = w["x_embedder.proj.weight"].shape[-1]
    x = F.conv2d(z, w["x_embedder.proj.weight"], w["x_embedder.proj.bias"], stride=patch).flatten(2).transpose(1, 2)
    x = x + w["pos_embed"]
    angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(128).float() / 128)
    time_embedding = linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], 1))
    c = F.silu(linear("t_embedder.mlp.2", F.silu(time_embedding)) + w["y_embedder.embedding_table.weight"][y])
    n, tokens, hidden = x.shape
    for block in range(sum(name.endswith("qkv.bias") for name in w)):
        b = f"blocks.{block}."
        s1, c1, g1, s2, c2, g2 = linear(b + "adaLN_modulation.1", c)[:, None].chunk(6, 2)
        qkv = linear(b + "attn.qkv", norm(x) * (1 + c1) + s1) * w.get(b + "attn.gamma1", 1)
        q, k, v = qkv.view(n, tokens, 3, heads, hidden // heads).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + w.get(b + "gamma1", 1) * g1 * linear(b + "attn.proj", h) * w.get(b + "attn.gamma2", 1)
        h = F.gelu(linear(b + "mlp.fc1", norm(x) * (1 + c2) + s2), approximate="tanh")
        x = x + w.get(b + "gamma2", 1) * g2 * linear(b + "mlp.fc2", h)
    shift, scale = linear("final_layer.adaLN_modulation.1", c)[:, None].chunk(2, 2)
    x = linear("final_layer.linear", norm(x) * (1 + scale) + shift)
    side = math.isqrt(tokens)
    return x.view(n, side, side, patch, patch, -1).permute(0, 5, 1, 3, 2, 4).reshape(n, -1, patch * side, patch * side)


def save_tiny_dit(
    folder: Path,
    classes: list[str] | None,
    *,
    vae: bool = True,
    learned_sigma: bool = True,
    tied: bool = True,
    channels: int = 3,
) -> Path:
    """A random DiTPipeline folder: 16-pixel images, 8 x 8 latents of 4 channels; seconds to use.

    Its blocks' embedders are equal, as those of trained priors are, unless they are not to be `tied`. Without a vae it
    is of pixels, 8 x 8 of this many `channels`.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    channels, count = (4 if vae else channels), len(classes) if classes else 10
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=channels,
            out_channels=channels * (2 if learned_sigma else 1),
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=count,
        )
        first, *others = (block.norm1.emb for block in transformer.transformer_blocks)
        for other in others if tied else []:
            other.load_state_dict(first.state_dict())
        codec = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            sample_size=16,
            scaling_factor=0.5,
        )
    DiTPipeline(transformer, codec, DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    index = folder / "model_index.json"
    if classes:
        labels = {str(label): name for label, name in enumerate(classes)}
        index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": labels}))
    return folder


PNDM = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""The scheduler of Stable Diffusion 1.5, as its folder has it."""


def with_flow(folder: Path, **fields: Any) -> Path:
    """The DiT or Stable Diffusion in `folder`, said to be a rectified flow."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    name = "FlowMatchEulerDiscreteScheduler"
    FlowMatchEulerDiscreteScheduler(**fields).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", name]}))
    return folder


def save_tiny_sd(folder: Path, scheduler: dict[str, Any] = PNDM, size: int = 16) -> Path:
    """A random StableDiffusionPipeline folder as those of the hub are, safety checker named but absent; seconds to use.

    Images of `size` pixels, latents of 4 channels at half of it. `scheduler`: its scheduler_config.json.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    words = save_tiny_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=size // 2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=12,
            attention_head_dim=2,
        )
        codec = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            sample_size=size,
            scaling_factor=0.18215,
        )
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=words,
                hidden_size=12,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=3,
                bos_token_id=words - 2,
                eos_token_id=words - 1,
            )
        )
    for name, part in {"unet": unet, "vae": codec, "text_encoder": encoder}.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": ["transformers", "CLIPFeatureExtractor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def save_tiny_tokenizer(folder: Path) -> int:
    """CLIP's tokenizer with letters, digits and a few merges; how many words it has."""
    folder.mkdir(parents=True)
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789,.-'()"]
    merges = ["a n", "an t</w>", "b e", "be e</w>", "c a", "ca t</w>", "p h", "o t"]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary)


def save_folder(root: Path, classes: list[str], each: int, size: int = 16, seed: int = 0) -> Path:
    """An image folder of random smooth pictures."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(each):
            small = numpy_generator(seed, name, index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(small).resize((size, size)).save(root / name / f"{index:03d}.png")
    return root


def size_of(file: Path) -> tuple[int, int]:
    """Of a picture, which is closed again."""
    with Image.open(file) as picture:
        return picture.size


def tint(root: Path) -> None:
    """Takes all blue from the first class of an image folder, and all red from the others: none can be confused."""
    for number, folder in enumerate(sorted(root.iterdir())):
        for file in folder.iterdir():
            pixels = np.array(Image.open(file))
            pixels[..., 0 if number else 2] = 0
            Image.fromarray(pixels).save(file)


def result_record(*accuracies: float, **more: Any) -> Record:
    """A record with these accuracies; all else is made up, but for what is named."""
    about = {"set": "runs/d3hr", "method": "d3hr", "seed": 0, "recipe": "quick", "network": "convnet3", "ipc": 1}
    numbers = {"mean": statistics.fmean(accuracies), "std": statistics.stdev(accuracies) if len(accuracies) > 1 else 0}
    sizes = {"best": accuracies, "n_train": 10, "n_test": 364, "seconds": 12.0, "device": "cpu"}
    return Record(accuracies=accuracies, **{**about, **numbers, **sizes, **more})


def learnt(job: Job, fit: Fit, group: Group) -> Tensors:
    """What a fit learns of a group of classes, from the job's store if it is there."""
    return fit_group(job, fit, group, fit_artefact(job, fit, group))


def attar(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """What the command `attar` exits with; the signals, which it takes over, are given back."""
    from attar import cli
    from attar.cli import failures

    monkeypatch.setattr(failures, "running", failures.running)  # given back, as the command makes its own
    monkeypatch.setattr("sys.argv", ["attar", *map(str, words)])
    try:
        with own_signals():
            cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@contextmanager
def own_signals() -> Iterator[None]:
    """Gives back the signals that a command takes over."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


GUIDED: dict[str, dict[str, Any]] = {
    "igd": {
        "guide.first": 3,
        "guide.last": 2,
        "guide.real": 4,
        "fit.network": "convnet3-w8",
        "fit.epochs": 2,
        "fit.kept": "1,2",
    },
    "ot": {"guide.first": 3, "guide.last": 1, "fit.count": 7},
    "dmgd": {"guide.first": 3, "guide.last": 1},
    "cgs": {},
    "dap": {},
}
"""Of methods with a guide, settings that leave five steps of sampling in which it guides."""


def job_of(world: Path, store: Store, **spec: Any) -> Job:
    """A job of what `save_world` has made."""
    return Job(Spec(f"imagefolder:{world / 'data'}", prior=str(world / "dit"), device="cpu", **spec), store)


def save_world(root: Path, classes: list[str]) -> Path:
    """In `root`, nine images of each class as `data`, and a tiny prior of these classes as `dit`."""
    save_folder(root / "data", classes, each=9)
    save_tiny_dit(root / "dit", classes)
    return root


def save_random_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In `root`, with a cache of its own: data of two classes, and random images of it as a set."""
    monkeypatch.setenv("ATTAR_CACHE", str(root / "cache"))
    for split in ("train", "test"):
        save_folder(root / "data" / split, ["ant", "bee"], each=6, size=16)
    data = f"imagefolder:{root / 'data'}@train"
    attar(monkeypatch, "distill", "--data", data, "--method", "random", "--ipc", 2, "--out", root / "set")
    return root


ORIGINAL_IN_BLOCK = {
    "scale": {
        "attn.gamma1": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
        "attn.gamma2": ("attn1.to_out.0",),
        "gamma1": ("attn1",),
        "gamma2": ("ff",),
    },
    "bias": {
        "attn.qkv.bias": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
        "attn.proj.bias": ("attn1.to_out.0",),
        "mlp.fc1.bias": ("ff.net.0.proj",),
        "mlp.fc2.bias": ("ff.net.2",),
        "adaLN_modulation.1.bias": ("norm1.linear",),
    },
}
ORIGINAL_OUTSIDE = {
    "x_embedder.proj.bias": "pos_embed.proj.bias",
    "t_embedder.mlp.0.bias": "embedder.timestep_embedder.linear_1.bias",
    "t_embedder.mlp.2.bias": "embedder.timestep_embedder.linear_2.bias",
    "y_embedder.embedding_table.weight": "embedder.class_embedder.embedding_table.weight",
    "final_layer.linear.bias": "proj_out_2.bias",
    "final_layer.adaLN_modulation.1.bias": "proj_out_1.bias",
}


def under_original_names(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A DiffFit adaptor's values under the names of the original DiT and Minimax, q, k and v in one."""
    renamed = {original: values[name].detach() for original, name in ORIGINAL_OUTSIDE.items() if name in values}
    numbers = {int(name.split(".")[1]) for name in values if name.startswith("transformer_blocks.")}
    for number in sorted(numbers):
        for leaf, table in ORIGINAL_IN_BLOCK.items():
            for original, names in table.items():
                parts = [f"transformer_blocks.{number}.{name}.{leaf}" for name in names]
                if parts[0] in values:
                    renamed[f"blocks.{number}.{original}"] = torch.cat([values[part].detach() for part in parts])
    return renamed
