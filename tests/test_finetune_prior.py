"""Adaptors against the reference and against themselves; fine-tuned priors in diffusers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from test_keep_best import comes_to_an_end, measured, saving_at
from test_train_prior import QUICK, weights
from torch import Tensor
from toys import original_dit, recorded, save_folder, save_tiny_dit, under_original_names

from attar.core.errors import AttarError
from attar.core.rng import generator
from attar.core.store import Store
from attar.data import load_data
from attar.data.class_names import imagenet_names
from attar.priors import load_prior
from attar.priors.codec import Codec
from attar.priors.folder import linear_scheduler, write_pipeline
from attar.priors.original_dit import original_transformer
from attar.priors.prior import Prior
from attar.priors.shared_embedders import SharedDiT, share_embedders, untrained
from attar.priors.training.adaptors import DiffFit, add_lora, merge_lora
from attar.priors.training.finetune import adapted_network, finetune_prior
from attar.priors.training.latent_set import LatentSet
from attar.priors.training.settings import AdaptedPrior, Denoising, Report, Training
from attar.priors.training.task import TrainingRun

DEEP = Training(hidden=16, layers=16, heads=2, patch=2)
BRIEF = Denoising(steps=6, batch=4, learning_rate=1e-2, warmup=1, min_snr=None)


def shaken(network: SharedDiT) -> SharedDiT:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return network


def shaken_adaptor(network: SharedDiT) -> DiffFit:
    adaptor, draw = DiffFit.of(network), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in adaptor.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=draw))
    return adaptor


def deep_network() -> SharedDiT:
    return shaken(untrained((4, 8, 8), 5, DEEP, 0))


def output(network: SharedDiT) -> Tensor:
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    return network(z, torch.tensor([3, 500, 999]), torch.tensor([0, 4, 5]))


@pytest.mark.golden
def test_difffit_trains_what_minimax_trains_and_computes_what_it_computes() -> None:
    golden, given, facts = recorded("minimax_dit")
    plain = {name: value for name, value in given.items() if ".gamma" not in name}
    network = share_embedders(original_transformer(plain, int(facts["num_heads"])), "golden")
    adaptor = DiffFit.of(network)
    found = under_original_names(adaptor.values)
    assert set(found) == set(facts["trainable"].split(","))
    assert sum(value.numel() for value in adaptor.parameters()) == int(facts["n_trainable"])
    for name, value in found.items():
        expected = torch.ones_like(value) if ".gamma" in name else given[name]
        torch.testing.assert_close(value, expected)
    scaled = [i for i in range(int(facts["depth"])) if f"blocks.{i}.gamma1" in given]
    scales = {f"transformer_blocks.{i}.{part}.scale": (i, part) for i in scaled for part in ("attn1", "ff")}
    with torch.no_grad():
        for name, (i, part) in scales.items():
            adaptor.values[name].copy_(given[f"blocks.{i}.gamma{1 if part == 'attn1' else 2}"])
        for i in scaled:
            for part, gamma in zip("qkv", given[f"blocks.{i}.attn.gamma1"].chunk(3), strict=True):
                adaptor.values[f"transformer_blocks.{i}.attn1.to_{part}.scale"].copy_(gamma)
            adaptor.values[f"transformer_blocks.{i}.attn1.to_out.0.scale"].copy_(given[f"blocks.{i}.attn.gamma2"])
    z, t, y = (golden[name] for name in ("z", "t", "y"))
    with torch.no_grad(), adaptor.attached(network):
        torch.testing.assert_close(network(z, t, y), golden["out"], rtol=1e-4, atol=1e-5)
    for name, value in under_original_names(adaptor.values).items():
        torch.testing.assert_close(value, given[name])
    with torch.no_grad():
        assert (network(z, t, y) - original_dit(plain, z, t, y, int(facts["num_heads"]))).abs().max() < 1e-4


def test_a_fresh_adaptor_changes_nothing_and_leaves_no_trace() -> None:
    network = deep_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    owned, plain = dict(network.named_parameters()), output(network)
    with DiffFit.of(network).attached(network):
        torch.testing.assert_close(output(network), plain)
    shaken_one = shaken_adaptor(network)
    with suppress(RuntimeError), shaken_one.attached(network):
        assert not torch.allclose(output(network), plain, atol=0.1)
        raise RuntimeError("whatever happens inside")
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter is owned[name] for name, parameter in network.named_parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(output(network), plain)


def test_an_adaptor_saved_loaded_and_merged_computes_the_same(tmp_path: Path) -> None:
    network = deep_network()
    adaptor = shaken_adaptor(network)
    with torch.no_grad(), adaptor.attached(network):
        attached = output(network)
    adaptor.save(tmp_path / "a.safetensors")
    loaded = DiffFit.load(tmp_path / "a.safetensors")
    with torch.no_grad(), loaded.attached(network):
        assert torch.equal(output(network), attached)
    loaded.merge(network)
    with torch.no_grad():
        torch.testing.assert_close(output(network), attached, rtol=1e-3, atol=1e-4)


def test_an_adaptor_of_biases_alone_is_saved_and_loaded(tmp_path: Path) -> None:
    biases = DiffFit({name: value for name, value in shaken_adaptor(deep_network()).values.items() if "bias" in name})
    biases.save(tmp_path / "a.safetensors")
    loaded = DiffFit.load(tmp_path / "a.safetensors").values
    assert loaded.keys() == biases.values.keys() != set()
    assert all(torch.equal(loaded[name], value) for name, value in biases.values.items())


def test_gradients_reach_every_value_and_nothing_else() -> None:
    network = deep_network().requires_grad_(False)
    adaptor = DiffFit.of(network)
    with adaptor.attached(network):
        output(network).pow(2).sum().backward()
    assert all(value.grad is not None for value in adaptor.parameters())
    assert not any(parameter.grad is not None for parameter in network.parameters())


def test_wrong_adaptors_are_named(tmp_path: Path) -> None:
    network = untrained((4, 8, 8), 5, DEEP, 0)
    other = DiffFit.of(untrained((4, 8, 8), 6, DEEP, 0))
    with pytest.raises(AttarError, match=r"another network.*embedding_table"), other.attached(network):
        pass
    (tmp_path / "x").write_bytes(b"no")
    with pytest.raises(AttarError, match="no adaptor can be read"):
        DiffFit.load(tmp_path / "x")


def test_lora_begins_at_nothing_and_merges() -> None:
    pytest.importorskip("peft")
    network: Any = deep_network()
    plain, names = output(network), set(network.state_dict())
    parameters = add_lora(network, 2, 0)
    torch.testing.assert_close(output(network), plain)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1)
        trained = output(network)
        assert not torch.allclose(trained, plain, atol=1e-2)
        merge_lora(network)
        torch.testing.assert_close(output(network), trained, rtol=1e-3, atol=1e-4)
    assert set(network.state_dict()) == names


def network_of(prior: Prior) -> Any:
    return prior.network.transformer


def test_label_rows_are_kept_by_name_and_others_begin_at_the_mean(tmp_path: Path) -> None:
    prior = load_prior(str(save_tiny_dit(tmp_path / "dit", ["cat, kitty", "dog", "owl"])), device="cpu", tile=1)
    first, *others = (block.norm1 for block in network_of(prior).transformer_blocks)
    for other in others:
        other.emb = first.emb
    old = first.emb.class_embedder.embedding_table.weight
    network, kept = adapted_network(prior, ["Owl", "fish", "kitty", "cow"], "x")
    table = network.table.weight
    assert kept == {"Owl": 2, "kitty": 0}
    assert table.shape == (5, 16)
    for row, expected in zip(table, [old[2], old[:3].mean(0), old[0], old[:3].mean(0), old[3]], strict=True):
        torch.testing.assert_close(row, expected)
    config = network.with_own_embedders().config
    assert config.num_embeds_ada_norm == 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("images"), ["b", "c", "new"], 12)


@pytest.fixture
def tied_prior(tmp_path: Path) -> Path:
    from diffusers import DiTTransformer2DModel

    folder = save_tiny_dit(tmp_path / "dit", ["a", "b", "c", "d"])
    transformer: Any = DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    for block in transformer.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(transformer.transformer_blocks[0].norm1.emb.state_dict())
    transformer.save_pretrained(folder / "transformer")
    return folder


@pytest.mark.parametrize("adapt", ["all", "difffit", "bitfit", "lora"])
def test_a_finetuned_prior_opens_in_diffusers(
    adapt: Any, data: Path, tied_prior: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import attar.priors.training.train as training

    if adapt == "lora":
        pytest.importorskip("peft")
    from diffusers import DiTPipeline

    spec = AdaptedPrior(
        str(data), prior=str(tied_prior), adapt=adapt, rank=2, device="cpu", report=QUICK, training=BRIEF
    )
    finetune_prior(spec, tmp_path / "out", store=store, say=lambda text: None)
    assert DiTPipeline.from_pretrained(tmp_path / "out").get_label_ids(["new"]) == [2]
    prior = load_prior(str(tmp_path / "out"), device="cpu", store=store)
    assert prior.classes == ("b", "c", "new")
    assert prior.n_classes == prior.null == 3
    found, old = weights(tmp_path / "out"), weights(tied_prior)
    assert set(found) == set(old)
    name = "transformer_blocks.0.ff.net.0.proj.weight"
    assert torch.equal(found[name], old[name]) == (adapt in ("difffit", "bitfit"))
    assert (tmp_path / "out" / "adaptor.safetensors").exists() == (adapt in ("difffit", "bitfit"))
    if adapt == "bitfit":
        tables = {name for name in found if "embedding_table" in name}
        changed = {name for name, value in found.items() if name not in tables and not torch.equal(value, old[name])}
        assert changed == {name for name in found if name.endswith(".bias")} != set()

    monkeypatch.setattr("attar.priors.training.optimise.CHECKPOINT_SECONDS", 0.0)
    drawn = generator

    def dies(*parts: str | int) -> torch.Generator:
        if parts[-1] == 4:
            raise KeyboardInterrupt
        return drawn(*parts)

    monkeypatch.setattr(training, "generator", dies)
    second = Store(tmp_path / "cache2")
    with pytest.raises(KeyboardInterrupt):
        finetune_prior(spec, tmp_path / "cut", store=second, say=lambda text: None)
    assert list(second.root.glob("prior/.*.partial/.checkpoint"))
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(training, "generator", drawn)
    finetune_prior(spec, tmp_path / "cut", store=second, say=lambda text: None)
    again = weights(tmp_path / "cut")
    assert all(torch.equal(found[name], again[name]) for name in found)


@pytest.fixture(scope="module")
def photographs(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs of 224 pixels of each of two classes."""
    images, folder = load_data(f"parquet:{shared('data/imagenette224')}@train"), tmp_path_factory.mktemp("photographs")
    for name in ("tench", "church"):
        (folder / name).mkdir()
        for index in images.of_class(images.classes.index(name))[:4]:
            images.open(int(index)).save(folder / name / f"{index}.jpg")
    return folder


def save_narrow_dit(folder: Path) -> Path:
    """The layout of facebook/DiT-XL-2-256 at a width of 64: 28 blocks, 1,000 classes, 32 x 32 latents of 256 pixels."""
    names = [word.replace("_", " ") for word in imagenet_names()]
    transformer = DiTTransformer2DModel(
        num_attention_heads=16,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=28,
        sample_size=32,
        patch_size=2,
        num_embeds_ada_norm=1000,
    )
    first, *others = (block.norm1.emb for block in transformer.transformer_blocks)
    for other in others:
        other.load_state_dict(first.state_dict())
    codec = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=256,
    )
    write_pipeline(folder, transformer, linear_scheduler(), names, codec)
    return folder


@pytest.mark.parametrize("adapt", ["difffit", "bitfit", "lora"])
def test_a_prior_of_imagenets_full_layout_is_adapted_to_photographs(
    adapt: Any, photographs: Path, tmp_path: Path, store: Store
) -> None:
    if adapt == "lora":
        pytest.importorskip("peft")
    folder, out = save_narrow_dit(tmp_path / "dit"), tmp_path / "out"
    brief: dict[str, Any] = {
        "training": Denoising(steps=2, batch=2, learning_rate=1e-2, warmup=1),
        "report": Report(every=2, samples=2, steps=2, judge_steps=2),
    }
    spec = AdaptedPrior(str(photographs), prior=str(folder), adapt=adapt, device="cpu", **brief)
    finetune_prior(spec, out, store=store, say=lambda text: None)
    assert load_prior(str(out), device="cpu", store=store).classes == ("church", "tench")
    old, new = weights(folder), weights(out)
    assert old.keys() == new.keys()
    table = "transformer_blocks.27.norm1.emb.class_embedder.embedding_table.weight"
    assert (old[table].shape, new[table].shape) == ((1001, 64), (3, 64))
    moved = {int(name.split(".")[1]) for name in old if ".attn1." in name and not torch.equal(old[name], new[name])}
    assert moved == set(range(28)), "every block has learnt"


@pytest.mark.parametrize("adapt", ["all", "difffit", "bitfit", "lora"])
def test_the_best_average_of_what_is_trained_is_kept_and_resumed(
    adapt: Any, data: Path, tied_prior: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if adapt == "lora":
        pytest.importorskip("peft")
    measured(monkeypatch, {2: (30.0, 5.0), 4: (60.0, 4.0), 6: (40.0, 3.0)})
    saving_at(monkeypatch, range(6))
    steady = replace(BRIEF, schedule="constant")
    common: dict[str, Any] = {"prior": str(tied_prior), "adapt": adapt, "rank": 2, "device": "cpu"}
    best = AdaptedPrior(str(data), keep="best", report=replace(QUICK, every=2), training=steady, **common)
    short = AdaptedPrior(str(data), report=replace(QUICK, every=2), training=replace(steady, steps=4), **common)
    with pytest.MonkeyPatch.context() as ending:
        comes_to_an_end(ending, "step", 5)
        with pytest.raises(KeyboardInterrupt):
            finetune_prior(best, tmp_path / "best", store=store, say=lambda text: None)
    for spec, name in ((best, "best"), (short, "short")):
        finetune_prior(spec, tmp_path / name, store=store, say=lambda text: None)
    files = [Path("transformer", "diffusion_pytorch_model.safetensors")]
    files += [Path("adaptor.safetensors")] if adapt in ("difffit", "bitfit") else []
    for file in files:
        assert (tmp_path / "best" / file).read_bytes() == (tmp_path / "short" / file).read_bytes()


def test_a_network_of_another_size_is_trained_as_diffusers_will_open_it() -> None:
    network = deep_network()
    network.take_side(16)
    written: Any = network.with_own_embedders()
    opened: Any = DiTTransformer2DModel.from_config(written.config).eval()
    opened.load_state_dict(written.state_dict())
    z, t, y = torch.randn(2, 4, 16, 16), torch.tensor([5, 900]), torch.tensor([0, 4])
    with torch.no_grad():
        torch.testing.assert_close(network(z, t, y), opened(z, timestep=t, class_labels=y).sample)


@pytest.mark.parametrize("adapt", ["all", "difffit"])
def test_a_prior_of_small_images_goes_on_with_larger_ones(
    adapt: Any, data: Path, tied_prior: Path, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained and written is the network that diffusers builds for that size, with the same weights."""
    asked = AdaptedPrior(str(data), prior=str(tied_prior), adapt=adapt, device="cpu", report=QUICK, training=BRIEF)
    finetune_prior(asked, tmp_path / "small", store=store, say=lambda text: None)
    shapes = list[tuple[int, ...]]()
    plain = TrainingRun.encoded

    def noted(run: TrainingRun, codec: Codec) -> LatentSet:
        made = plain(run, codec)
        shapes.append(made.shape)
        return made

    monkeypatch.setattr(TrainingRun, "encoded", noted)
    small = load_prior(str(tied_prior), device="cpu", tile=1)
    size, (channels, side, _) = small.codec.size, small.codec.shape
    common: dict[str, Any] = {"prior": str(tied_prior), "adapt": adapt, "device": "cpu", "report": QUICK}
    still = AdaptedPrior(str(data), size=2 * size, training=replace(BRIEF, learning_rate=1e-12), **common)
    finetune_prior(still, tmp_path / "out", store=store, say=lambda text: None)
    assert shapes == [(channels, 2 * side, 2 * side)], "not the latents of small images, which the store has"
    large = load_prior(str(tmp_path / "out"), device="cpu", tile=1)
    assert (large.codec.size, large.codec.shape) == (2 * size, (channels, 2 * side, 2 * side))
    patches = network_of(small).config.patch_size
    expected = DiTTransformer2DModel.from_config({**network_of(large).config, "sample_size": 2 * side})
    assert network_of(large).pos_embed.pos_embed.shape == (1, (2 * side // patches) ** 2, 16)
    assert torch.equal(network_of(large).pos_embed.pos_embed, expected.pos_embed.pos_embed)
    found, old = weights(tmp_path / "out"), weights(tied_prior)
    body = [name for name in old if "class_embedder" not in name]
    for name in body:
        torch.testing.assert_close(found[name], old[name], rtol=0, atol=1e-6)


def test_the_size_that_a_prior_has_changes_nothing(data: Path, tied_prior: Path, tmp_path: Path, store: Store) -> None:
    said = list[str]()
    spec = AdaptedPrior(str(data), prior=str(tied_prior), device="cpu", report=QUICK, training=BRIEF)
    finetune_prior(spec, tmp_path / "out", store=store, say=lambda text: None)
    own = load_prior(str(tied_prior), device="cpu", tile=1).codec.size
    finetune_prior(replace(spec, size=own), tmp_path / "out", store=store, say=said.append)
    assert "is already there, and is this prior" in said[-1]
    with pytest.raises(AttarError, match="is another run's prior"):
        finetune_prior(replace(spec, size=2 * own), tmp_path / "out", store=store, say=said.append)
    with pytest.raises(AttarError, match=rf"`size` {own + 1}: must be a multiple of \d+, the side of the prior's"):
        finetune_prior(replace(spec, size=own + 1), tmp_path / "other", store=store, say=said.append)


def test_untied_priors_are_refused(data: Path, tmp_path: Path, store: Store) -> None:
    folder = save_tiny_dit(tmp_path / "dit", ["a", "b"], tied=False)
    spec = AdaptedPrior(str(data), prior=str(folder), device="cpu", report=QUICK, training=BRIEF)
    with pytest.raises(AttarError, match="embedders of the prior's blocks differ"):
        finetune_prior(spec, tmp_path / "out", store=store, say=lambda text: None)
