"""Adaptors: a few trained weights that are attached to a DiT, saved, loaded, merged, and detached without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from attar.core.errors import AttarError
from attar.core.rng import Part, seed_of
from attar.priors.shared_embedders import SharedDiT

SCALED_BLOCKS = 14
SCALED = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn1", "ff")
"""Modules of a block whose outputs have scales: the qkv projection, the attention's own, and the two gated branches."""
MERGED_INTO = {"attn1": "attn1.to_out.0", "ff": "ff.net.2"}
"""The last linear layer of each branch: a scale of the branch is one of that layer's output."""


@dataclass(frozen=True, eq=False)
class DiffFit:
    """DiffFit (Xie et al., ICCV 2023) as Minimax has it: biases, the label table, and scales of outputs.

    Of biases alone it is BitFit (Ben Zaken et al., ACL 2022), which Minimax's code offers too.
    Names are those of diffusers, the one embedder of times and labels under `embedder`; `NAME.scale` multiplies the
    output of module NAME.
    """

    values: dict[str, nn.Parameter]

    @staticmethod
    def of(network: SharedDiT, scaled: bool = True, table: bool = True) -> DiffFit:
        """A fresh adaptor, which changes nothing: copies of the biases and the label table, scales of 1.

        Args:
            scaled: whether outputs have scales; without them it is BitFit.
            table: whether the label table is trained.
        """
        modules = _modules(network)
        values = {
            f"{name}.{leaf}": value.detach().clone()
            for name, module in modules.items()
            for leaf, value in module.named_parameters(recurse=False)
            if leaf == "bias" or (isinstance(module, nn.Embedding) and table)
        }
        blocks = len(network.transformer.transformer_blocks) if scaled else 0
        for number in range(min(SCALED_BLOCKS, blocks)):
            for name in SCALED:
                full = f"transformer_blocks.{number}.{name}"
                linear = modules[_linear(full)]
                values[f"{full}.scale"] = torch.ones_like(linear.bias.detach())
        return DiffFit({name: nn.Parameter(value) for name, value in values.items()})

    def parameters(self) -> list[nn.Parameter]:
        """All of them, in a fixed order."""
        return list(self.values.values())

    @contextmanager
    def attached(self, network: SharedDiT) -> Iterator[None]:
        """Within it the network computes with the adaptor, whose gradients are kept; afterwards it is as it was.

        Its weights are not touched: biases and the label table are exchanged, scales are hooks.

        Raises:
            AttarError: the adaptor is of another network.
        """
        modules = self._checked_modules(network)
        replaced: list[tuple[nn.Module, str, nn.Parameter]] = []
        hooks = []
        try:
            for name, value in self.values.items():
                owner, _, leaf = name.rpartition(".")
                if leaf == "scale":
                    hooks.append(modules[owner].register_forward_hook(_scaling(value)))
                else:
                    replaced.append((modules[owner], leaf, getattr(modules[owner], leaf)))
                    setattr(modules[owner], leaf, value)
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for module, leaf, parameter in reversed(replaced):
                setattr(module, leaf, parameter)

    @torch.no_grad()
    def merge(self, network: SharedDiT) -> None:
        """Writes the adaptor into the network's own weights: every scale is one of a linear layer's output."""
        modules = self._checked_modules(network)
        for name, value in self.values.items():
            owner, _, leaf = name.rpartition(".")
            if leaf != "scale":
                getattr(modules[owner], leaf).copy_(value)
        for name, value in self.values.items():
            owner, _, leaf = name.rpartition(".")
            if leaf == "scale":
                linear = modules[_linear(owner)]
                linear.weight.mul_(value[:, None])
                linear.bias.mul_(value)

    def save(self, file: Path) -> None:
        """Writes a safetensors file."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.values.items()}
        save_file(tensors, file, metadata={"adaptor": "difffit"})

    @staticmethod
    def load(file: Path) -> DiffFit:
        """Reads what `save` wrote.

        Raises:
            AttarError: the file cannot be read, or holds no such adaptor.
        """
        try:
            with safe_open(file, "pt") as opened:
                kind = (opened.metadata() or {}).get("adaptor")
                values = {name: nn.Parameter(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise AttarError(
                f"{file}: no adaptor can be read from it ({error}); give another, or copy it again"
            ) from error
        scaled = any(name.endswith(".scale") for name in values)
        if kind != "difffit" and not (kind is None and scaled):
            raise AttarError(f"{file}: not a DiffFit adaptor (its metadata say {kind!r})")
        return DiffFit(values)

    def _checked_modules(self, network: SharedDiT) -> dict[str, Any]:
        """The network's modules by name; raises AttarError where the adaptor is of another network."""
        modules = _modules(network)
        for name, value in self.values.items():
            owner, _, leaf = name.rpartition(".")
            linear = modules.get(_linear(owner) if leaf == "scale" else owner)
            own = None if linear is None else getattr(linear, "bias" if leaf == "scale" else leaf, None)
            if own is None or own.shape != value.shape:
                shape = "nothing" if own is None else f"values of shape {tuple(own.shape)}"
                raise AttarError(
                    f"the adaptor is of another network: its {name} {tuple(value.shape)} meets {shape} there"
                )
        return modules


def check_lora() -> None:
    """Raises AttarError where peft is not installed."""
    if find_spec("peft") is None:
        raise AttarError("adapt = lora needs peft: pip install 'attar[lora]'")


def add_lora(network: SharedDiT, rank: int, *key: Part) -> list[nn.Parameter]:
    """Adds LoRA to the attention and feed-forward layers (through peft) and gives what is to be trained.

    That is its matrices, drawn from `key`, and the label table. Merge with `merge_lora`.

    Raises:
        AttarError: peft is not installed.
    """
    check_lora()
    from peft import LoraConfig, inject_adapter_in_model

    network.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=r".*\.(to_q|to_k|to_v|to_out\.0|net\.0\.proj|net\.2)")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(*key))
        inject_adapter_in_model(config, network.transformer)
    matrices = [p for name, p in network.named_parameters() if "lora_" in name]
    table = network.get_parameter("embedder.class_embedder.embedding_table.weight")
    table.requires_grad_(True)
    return [*matrices, table]


def merge_lora(network: SharedDiT) -> None:
    """Writes LoRA into the weights, and takes its modules out again."""
    from peft.tuners.lora import Linear

    for name, module in list(network.transformer.named_modules()):
        if isinstance(module, Linear):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            network.transformer.get_submodule(parent).register_module(leaf, module.get_base_layer())


def _modules(network: SharedDiT) -> dict[str, Any]:
    """The network's modules under diffusers' names, the one embedder under `embedder`."""
    modules = {n: m for n, m in network.transformer.named_modules() if ".norm1.emb" not in n and n}
    embedder = {f"embedder.{name}": module for name, module in network.embedder.named_modules() if name}
    return {**modules, **embedder}


def _linear(name: str) -> str:
    """The linear layer whose output a scale of this module multiplies."""
    start, _, branch = name.rpartition(".")
    return f"{start}.{MERGED_INTO[branch]}" if branch in MERGED_INTO else name


def _scaling(scale: nn.Parameter) -> Any:
    return lambda module, inputs, output: output * scale
