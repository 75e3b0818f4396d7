"""The Stable Diffusion prior, held to diffusers' own image-to-image pipeline; tiny, random, in the real format."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import PNDM, learnt, save_folder, save_tiny_dit, save_tiny_sd
from typer.testing import CliRunner

from attar.cli import app
from attar.core.errors import AttarError
from attar.core.store import Store
from attar.diffusion import CHECKPOINT, Sampler, sample, sampling_times, start_time
from attar.distillation import pipeline as stages
from attar.distillation.artefacts import artefacts
from attar.job import Job, Spec
from attar.methods.prior_samples import PriorSamples
from attar.priors import load_prior, load_prior_codec
from attar.priors.prior import Prior
from attar.priors.prompts import NEGATIVE, Prompts, class_prompts

CLASSES = ("ant", "bee", "tench, Tinca tinca")
DDIM = {**PNDM, "_class_name": "DDIMScheduler", "clip_sample": False}
EULER = {**PNDM, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
SCHEDULERS = {"pndm": PNDM, "ddim": DDIM, "euler": EULER}


def opened(folder: Path, store: Store, prompts: Prompts | None = None) -> Prior:
    told = prompts or class_prompts(CLASSES, CLASSES, "a photo of {name}")
    return load_prior(str(folder), device="cpu", tile=1, prompts=told, store=store)


def pipeline(folder: Path, scheduler: dict[str, Any]) -> Any:
    """diffusers' own, of the same parts; the safety checker that the folder names is not there."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    made = diffusers.StableDiffusionImg2ImgPipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae"),
        unet=diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        text_encoder=CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
        scheduler=getattr(diffusers, scheduler["_class_name"]).from_pretrained(folder, subfolder="scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def both(prior: Prior, theirs: Any, steps: int, strength: float, guidance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Our images of the classes and the pipeline's, as latents, from the same latents and noise."""
    z, seed = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1)), 2
    sampler = Sampler(CHECKPOINT, steps=steps, guidance=guidance)
    t = start_time(sampler, prior, strength)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))
    start = prior.schedule.noised(z, t, noise)
    ours = sample(prior, start, t, torch.arange(3), sampler, noise=lambda t: noise)
    made = theirs(
        [f"a photo of {name}" for name in CLASSES],
        image=z,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt=[NEGATIVE] * 3,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    )
    return ours, made.images


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_sample_is_that_of_diffusers_pipeline(name: str, prediction: str, tmp_path: Path, store: Store) -> None:
    scheduler = {**SCHEDULERS[name], "prediction_type": prediction}
    folder = save_tiny_sd(tmp_path / "sd", scheduler)
    prior, theirs = opened(folder, store), pipeline(folder, scheduler)
    for steps, strength, guidance in ((50, 0.7, 8), (10, 0.85, 1), (5, 1.0, 8)):
        ours, made = both(prior, theirs, steps, strength, guidance)
        torch.testing.assert_close(ours, made, rtol=1e-4, atol=1e-4)
        assert prior.schedule.prediction == prediction


@pytest.mark.parametrize("name", SCHEDULERS)
def test_image_to_image_starts_where_diffusers_starts(name: str, tmp_path: Path, store: Store) -> None:
    folder = save_tiny_sd(tmp_path / "sd", SCHEDULERS[name])
    prior, theirs = opened(folder, store), pipeline(folder, SCHEDULERS[name])
    theirs.scheduler.set_timesteps(50)
    for strength in (0.02, 0.35, 0.7, 0.97, 1.0):
        times, _ = theirs.get_timesteps(50, strength, "cpu")
        assert start_time(Sampler(CHECKPOINT), prior, strength) == times[0]


def test_the_checkpoints_times_are_rising_and_told_once(tmp_path: Path, store: Store) -> None:
    prior = opened(save_tiny_sd(tmp_path / "sd"), store)
    assert sampling_times(Sampler(CHECKPOINT), prior) == list(range(1, 1000, 20))
    assert sampling_times(Sampler("ddim"), prior) == list(range(0, 1000, 20))
    dit = load_prior(str(save_tiny_dit(tmp_path / "dit", None)), device="cpu", tile=1, store=store)
    assert sampling_times(Sampler(CHECKPOINT), dit) == list(range(0, 1000, 20))
    z, y = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 7])
    own, ddim = (sample(dit, z, 680, y, Sampler(solver), noise=lambda t: z) for solver in (CHECKPOINT, "ddim"))
    torch.testing.assert_close(own, ddim, rtol=1e-4, atol=1e-4)


def test_strengths_that_leave_no_step_are_refused(tmp_path: Path, store: Store) -> None:
    prior = opened(save_tiny_sd(tmp_path / "sd"), store)
    for strength, message in ((0.0, "above 0"), (1.1, "at most 1"), (0.01, "none of the 50 steps .* at least 0.02")):
        with pytest.raises(AttarError, match=message):
            start_time(Sampler(CHECKPOINT), prior, strength)


@pytest.mark.parametrize(("steps", "strength", "below"), [(50, 0.98, 0.97), (5, 0.8, 0.79)])
def test_pndm_does_not_start_where_it_begins_two_steps(
    steps: int, strength: float, below: float, tmp_path: Path, store: Store
) -> None:
    """Diffusers starts there with the first of the two; the time alone would mean the second."""
    folder = save_tiny_sd(tmp_path / "sd")
    prior, theirs = opened(folder, store), pipeline(folder, PNDM)
    for solver in (CHECKPOINT, "PNDMScheduler"):
        message = f"strength {strength}: PNDM cannot start at the second of {steps} .* 1, or less than {strength}"
        with pytest.raises(AttarError, match=message):
            start_time(Sampler(solver, steps=steps), prior, strength)
    assert start_time(Sampler("ddim", steps=steps), prior, strength) == 1000 - 2 * (1000 // steps)
    for near in (below, 1.0):
        torch.testing.assert_close(*both(prior, theirs, steps, near, 8), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "KDPM2DiscreteScheduler"}, "KDPM2DiscreteScheduler, is not supported; choose another"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "linspace"}, "not ask at 50 whole times"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, "with use_karras_sigmas"),
        ({"skip_prk_steps": False}, "not ask at 50 whole times"),
    ],
)
def test_schedulers_that_cannot_be_followed_are_refused_when_used(
    change: dict[str, Any], message: str, tmp_path: Path, store: Store
) -> None:
    prior = opened(save_tiny_sd(tmp_path / "sd", {**PNDM, **change}), store)
    assert len(sampling_times(Sampler("ddim"), prior)) == 50
    with pytest.raises(AttarError, match=rf"sampler.solver checkpoint: .*{message}"):
        sampling_times(Sampler(CHECKPOINT), prior)


def test_a_checkpoints_spacing_is_its_own() -> None:
    with pytest.raises(AttarError, match=r"set sampler\.spacing = leading"):
        Sampler(CHECKPOINT, spacing="trailing")


def test_prompts_are_by_name_from_a_template_or_a_file(tmp_path: Path) -> None:
    assert class_prompts(CLASSES, CLASSES).texts == CLASSES
    told = class_prompts([*CLASSES, "n02086240", "crane (517)"], ["n02086240", "crane (517)", "bee"], "a {name}!")
    assert told.texts == (None, "a bee!", None, "a Shih-Tzu!", "a crane!")
    assert told.negative == NEGATIVE == "cartoon, anime, painting"
    toml, other = tmp_path / "prompts.toml", tmp_path / "prompts.json"
    toml.write_text('bee = "a {name}"\nant = "an ant"\n')
    other.write_text(json.dumps({"ant": "an ant", "bee": "a {name}"}))
    for file in (toml, other):
        assert class_prompts(CLASSES, ["ant", "bee"], file=file, negative="").texts == ("an ant", "a {name}", None)


def test_classes_of_imagenet_that_share_a_name_are_told_apart_by_their_meaning() -> None:
    from timm.data import ImageNetInfo

    from attar.data.source_contract import unique_names

    info = ImageNetInfo()
    wnids, names = info.label_names(), unique_names(info.label_descriptions())
    bird, hoist = wnids.index("n02012849"), wnids.index("n03126707")
    for classes in (wnids, names, [wnids[bird], "n01440764", wnids[hoist]]):
        texts = class_prompts(classes, classes, "a {name}").texts
        assert len(set(texts)) == len(texts)
        assert [text for text in texts if text and text.startswith("a crane: ")] == [
            "a crane: large long-necked wading bird of marshes and plains in many parts of the world",
            "a crane: lifts and moves heavy objects; lifting tackle is suspended from a pivoted boom that rotates "
            "around a vertical axis",
        ]
        assert "a tench, Tinca tinca" in texts
    assert class_prompts(names, names[bird : bird + 1]).texts[bird] == texts[0].removeprefix("a ")  # type: ignore[union-attr]
    assert class_prompts([wnids[bird]], [wnids[bird]]).texts == ("crane",)


def test_prompts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "prompts.toml"
    file.write_text('bee = "a bee"\nwasp = "a wasp"\nfly = "a fly"\n')
    for template, table, message in (
        ("{name}", file, "the data has no class wasp, fly"),
        ("a photo", None, "must contain {name}"),
        ("my {name}", file, "`prompt` and `prompts`: give one"),
        ("{name}", tmp_path, "cannot be read"),
    ):
        with pytest.raises(AttarError, match=message):
            class_prompts(CLASSES, CLASSES, template, table)
    file.write_text('bee = "a bee"\n')
    with pytest.raises(AttarError, match="no prompt for ant, tench, Tinca tinca"):
        class_prompts(CLASSES, CLASSES, file=file)
    file.write_text("bee = 3\n")
    with pytest.raises(AttarError, match="a table of prompts"):
        class_prompts(CLASSES, ["bee"], file=file)
    with pytest.raises(AttarError, match="'n99999999': ImageNet has no such WordNet id"):
        class_prompts(["n99999999"], ["n99999999"])


def test_a_prompt_that_would_be_cut_is_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(AttarError, match=r"'x, x, .* has 122 tokens; the text encoder of .*sd takes 77"):
        opened(save_tiny_sd(tmp_path / "sd"), store, Prompts(("x",), ("x, " * 60,)))


def test_the_text_encoder_is_freed(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import CLIPTextModel

    folder, seen = save_tiny_sd(tmp_path / "sd"), list[Any]()
    load: Callable[..., Any] = CLIPTextModel.from_pretrained

    def watched(*args: Any, **kwargs: Any) -> Any:
        loaded = load(*args, **kwargs)
        seen.append(weakref.ref(loaded[0]))
        return loaded

    monkeypatch.setattr(CLIPTextModel, "from_pretrained", watched)
    prior = opened(folder, store)
    gc.collect()
    assert [encoder() for encoder in seen] == [None]
    assert prior.network.embeddings.shape == (4, 77, 12)


def world(root: Path) -> tuple[str, str]:
    return str(save_folder(root / "data", list(CLASSES), each=4)), str(save_tiny_sd(root / "sd"))


METHOD = PriorSamples(sampler=Sampler(CHECKPOINT, steps=3, guidance=2))


def keys_of(job: Job) -> list[str]:
    return [made.key for made in artefacts(job, METHOD, 2).candidates.values()]


def test_a_class_is_the_same_whichever_others_there_are(tmp_path: Path) -> None:
    data, prior = world(tmp_path)
    keys, made = [], []
    for classes in (None, ("bee",)):
        job = Job(Spec(data, prior, classes=classes, device="cpu"), Store(tmp_path / str(classes)))
        asked, label = artefacts(job, METHOD, 2), job.classes.index("bee")
        fitted = stages.fit(job, METHOD, asked)
        candidates = stages.sample(job, METHOD, asked, fitted)
        assert job.prior_labels[label] == 1
        keys.append(candidates[label].key)
        made.append(stages.select(job, METHOD, candidates, 2)[label].load(job))
    assert keys[0] == keys[1]
    assert torch.equal(*made)
    assert job.prior.prompts == Prompts(CLASSES, (None, "bee", None))


def test_another_prompt_is_another_result_of_that_class_only(tmp_path: Path, store: Store) -> None:
    data, prior = world(tmp_path)
    file, keys = tmp_path / "prompts.json", []
    for bee in ("bee", "a bee"):
        file.write_text(json.dumps({name: name for name in CLASSES} | {"bee": bee}))
        job = Job(Spec(data, prior, prompts=str(file), device="cpu"), store)
        keys.append(keys_of(job))
    template = Job(Spec(data, prior, device="cpu"), store)
    assert [one == other for one, other in zip(*keys, strict=True)] == [True, False, True]
    assert keys_of(template) == keys[0]
    other = Job(Spec(data, prior, negative_prompt="", device="cpu"), store)
    assert not set(keys[0]) & set(keys_of(other))


def refuse(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("a network was loaded")


@pytest.mark.parametrize("save", [save_tiny_sd, lambda folder: save_tiny_dit(folder, list(CLASSES))])
def test_prototypes_and_latents_need_the_codec_alone(
    save: Callable[[Path], Path], tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers
    import transformers

    from attar.methods.d4m import Prototypes

    data, prior = str(save_folder(tmp_path / "data", list(CLASSES), each=4)), str(save(tmp_path / "prior"))
    for part in (diffusers.UNet2DConditionModel, diffusers.DiTTransformer2DModel, transformers.CLIPTextModel):
        monkeypatch.setattr(part, "from_pretrained", refuse)
    job = Job(Spec(data, prior, device="cpu"), store)
    fitted = learnt(job, Prototypes(count=2), [1])
    assert fitted["prototypes"].shape == (2, 4, 8, 8)
    assert job.codec.decode(fitted["prototypes"]).shape == (2, 3, 16, 16)
    with pytest.raises(AttarError, match="a network was loaded"):
        assert job.prior


def test_a_prior_and_its_codec_have_tiles_of_their_own(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, prior = world(tmp_path)
    for module in ("attar.priors.prior", "attar.priors.codec"):
        monkeypatch.setattr(f"{module}.exact", lambda *words: True)
    job = Job(Spec(data, prior, device="cpu", tile=2), store)
    assert (job.prior.batch_size, job.codec.batch_size) == (2, 16)
    assert job.prior.codec is job.codec
    assert load_prior_codec(prior, device="cpu", tile=4, store=store).batch_size == 4


def test_prompts_are_for_priors_that_take_them(tmp_path: Path, store: Store) -> None:
    data, prior = world(tmp_path)
    dit = str(save_tiny_dit(tmp_path / "dit", list(CLASSES)))
    for spec in (Spec(data, dit, prompt="a {name}"), Spec(data, dit, negative_prompt="")):
        with pytest.raises(AttarError, match=r"dit: knows its classes by label, so it takes no prompts"):
            assert Job(spec, store).prior
    with pytest.raises(AttarError, match=r"`class_map`: .*sd takes its classes as prompts"):
        assert Job(Spec(data, prior, class_map="map.toml", device="cpu"), store).prior


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("unet", {"in_channels": 9}, "9 input and 4 output channels"),
        ("unet", {"addition_embed_type": "text_time"}, "addition_embed_type 'text_time'"),
        ("unet", {"cross_attention_dim": 16}, "cannot be loaded as a Stable Diffusion"),
        ("text_encoder", {"hidden_size": 24}, "cannot be loaded as a Stable Diffusion"),
        ("text_encoder", {"num_hidden_layers": 3}, r"lacks the weights encoder\.layers\.2"),
    ],
)
def test_other_networks_are_refused(part: str, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = save_tiny_sd(tmp_path / "sd") / part / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(AttarError, match=rf"`prior` .*sd: .*{message}"):
        load_prior(str(tmp_path / "sd"), device="cpu", tile=1)


@pytest.mark.parametrize(
    ("part", "message"),
    [("tokenizer", "tokenizer knows 2 words and its text encoder 94"), ("scheduler", "scheduler_config.json")],
)
def test_a_missing_part_is_no_stand_in(part: str, message: str, tmp_path: Path) -> None:
    shutil.rmtree(save_tiny_sd(tmp_path / "sd") / part)
    with pytest.raises(AttarError, match=rf"`prior` .*sd: .*{message}"):
        load_prior(str(tmp_path / "sd"), device="cpu", tile=1)


def test_the_commands_take_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    data, prior = world(tmp_path)
    (tmp_path / "prompts.toml").write_text('ant = "an ant"\nbee = "a bee"\n"tench, Tinca tinca" = "a fish"\n')
    told = ["--data", data, "--prompts", str(tmp_path / "prompts.toml"), "--negative-prompt", "a cat"]
    shown = CliRunner().invoke(app, ["describe-prior", prior, *told])
    assert shown.exit_code == 0, shown.output
    for text in ("PromptedUNet", "PNDMScheduler, steps_offset 1", "'a cat'", "'tench, Tinca tinca'  'a fish'"):
        assert text in shown.output
    asked = ["--method", "prior", "--ipc", "1", "--out", str(tmp_path / "out"), "--device", "cpu"]
    sampler = ["--set", "sampler.solver=checkpoint", "--set", "sampler.steps=2"]
    done = CliRunner().invoke(app, ["distill", "--prior", prior, *told, *asked, *sampler])
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["prior"]["told"] == ["an ant", "a bee", "a fish"]
    assert manifest["prior"]["negative_prompt"] == "a cat"
