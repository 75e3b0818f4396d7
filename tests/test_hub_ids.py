"""Priors, codecs and teachers that are not there, or whose files are cut short: said of the file, before any work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import original_weights, save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.hub_ids import PATIENCE, near, why_not_on_hub
from attar.core.store import Store
from attar.job import Spec
from attar.networks import build
from attar.priors import load_prior, load_prior_codec
from attar.priors.codec import load_autoencoder
from attar.priors.training.adaptors import DiffFit
from attar.teachers.load import load_pretrained
from attar.teachers.reference import TeacherReference

ID = ": there is no such file or folder; an id of the hub reads owner/name"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prior in runs/prior-1, the current folder being its grandparent; the hub is out of reach."""
    save_tiny_dit(tmp_path / "runs" / "prior-1", ["ant", "bee"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("./no/such", ID),
        ("nosuch", ID),
        ("Digits", f" (did you mean 'digits'?){ID}"),
        ("./runs/prior", f" (did you mean 'runs/prior-1'?){ID}"),
        ("runs/prior-1/transformers", f" (did you mean 'runs/prior-1/transformer'?){ID}"),
        ("ruins/prior-1/vae", f" (did you mean 'runs/prior-1/vae'?){ID}"),
        ("../no-such-folder", ID),
        ("~no-such-user/prior", ID),
        ("runs/prior-1/model_index.json/vae", ID),
    ],
)
def test_a_name_that_can_only_be_a_folder_is_not_asked_of_the_hub(
    world: Path, monkeypatch: pytest.MonkeyPatch, store: Store, named: str, told: str
) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("asks the hub"))
    with pytest.raises(AttarError, match=re.escape(f"`prior` {named}{told}") + "$"):
        load_prior(named, device="cpu", store=store)
    monkeypatch.setattr("attar.priors.digits.digits_prior", lambda *_: pytest.fail("trains first"))
    told = told.replace(" (did you mean 'digits'?)", "")
    with pytest.raises(AttarError, match=re.escape(f"`codec` {named}{told}") + "$"):
        load_prior_codec("digits", codec=named, device="cpu", store=store)


def test_a_name_that_may_be_a_folder_or_an_id_is_told_as_both(world: Path, store: Store) -> None:
    told = r"runs/prior \(did you mean 'runs/prior-1'\?\): there is no such folder here, and from the hub it cannot be"
    with pytest.raises(AttarError, match=f"^`prior` {told} loaded as a diffusers pipeline: "):
        load_prior("runs/prior", device="cpu", store=store)
    with pytest.raises(AttarError, match=f"^`codec` {told} loaded as an autoencoder: "):
        load_prior("runs/prior-1", codec="runs/prior", device="cpu", store=store)


def test_the_hub_is_asked_once_and_not_for_long(world: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Where it cannot be reached, no file is asked of it, each of which would be tried again for half a minute."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(world / "hub"))
    asked: list[float] = []

    def unreachable(*_: object, timeout: float, **__: object) -> None:
        asked.append(timeout)
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", unreachable)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("asks for a file"))
    (world / "owned").mkdir()
    told = r"owner/name: there is no such folder here, and the hub cannot be reached \(no route to host\)"
    with pytest.raises(AttarError, match=f"^`prior` {told}"):
        load_prior("owner/name", device="cpu", store=store)
    with pytest.raises(AttarError, match=f"^`codec` {told}"):
        load_prior_codec("runs/prior-1", codec="owner/name", device="cpu", store=store)
    with pytest.raises(AttarError, match=r"its weights are timm/\S+ of the hub, and the hub cannot be reached"):
        load_pretrained("timm/resnet18", None, 2, 16)
    assert asked == [PATIENCE] * 3
    (world / "hub" / "models--owner--name").mkdir(parents=True)
    assert why_not_on_hub("owner/name") == why_not_on_hub("another/name") == ""
    assert asked == [PATIENCE] * 4, "what is cached is taken without asking again"


def test_an_owner_is_no_mistyped_folder(world: Path) -> None:
    (world / "owned").mkdir()
    assert near("owner/name") == ""
    (world / "owned" / "name").mkdir()
    assert near("owner/name") == " (did you mean 'owned/name'?)"


def test_an_empty_name_is_no_prior(store: Store) -> None:
    with pytest.raises(AttarError, match=r"^`prior` is empty: name a file or folder, or an id of the hub"):
        load_prior("", device="cpu", store=store)
    with pytest.raises(AttarError, match=r"^`prior` is empty: name one, or leave it out"):
        Spec("digits", prior="")


def test_a_checkpoint_and_a_teacher_that_are_not_there(world: Path, store: Store) -> None:
    torch.save(original_weights(), "dit.pt")
    with pytest.raises(AttarError, match=r"`prior` dit2.pt \(did you mean 'dit.pt'\?\): there is no such file$"):
        load_prior("dit2.pt", device="cpu", store=store)
    with pytest.raises(
        AttarError, match=r"runs/prior1 \(did you mean 'runs/prior-1'\?\): there is no such folder; give"
    ):
        load_pretrained("runs/prior1", None, 2, 16)
    with pytest.raises(AttarError, match=r"there is no file dit1.pt \(did you mean 'dit.pt'\?\); give a folder of"):
        load_pretrained("convnet3:dit1.pt", None, 2, 16)


def test_a_home_folder_may_be_a_tilde(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(world))
    with pytest.raises(AttarError, match=f"^`teacher` {re.escape(str(world))}/runs: holds no teacher"):
        load_pretrained("~/runs", None, 2, 16)
    assert TeacherReference.of("~/runs").anywhere.source == str(world / "runs")


def cut(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-100])
    return file


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_part_of_a_prior_that_is_cut_short(world: Path, store: Store, part: str) -> None:
    file = cut(next((world / "runs" / "prior-1" / part).glob("*.safetensors")))
    field = "`prior`" if part == "transformer" else "`codec`"
    with pytest.raises(
        AttarError, match=rf"^{field} {file}: is cut short or damaged \(.*\); copy or download it again$"
    ):
        load_prior(str(world / "runs" / "prior-1"), device="cpu", store=store)


def test_other_weights_that_are_cut_short(world: Path, store: Store) -> None:
    save_file(original_weights(), "dit.safetensors")
    cut(Path("dit.safetensors"))
    with pytest.raises(AttarError, match=r"`prior` dit.safetensors: cannot be read .* Copy or download it again"):
        load_prior("dit.safetensors", device="cpu", store=store)
    save_file(dict(build("convnet3-w8", 2, 16, 0).state_dict()), "net.safetensors")
    cut(Path("net.safetensors"))
    with pytest.raises(AttarError, match=r"`teacher` net.safetensors: is cut short .*; copy or download it again"):
        load_pretrained("convnet3-w8:net.safetensors", None, 2, 16)
    DiffFit({"blocks.0.scale": torch.nn.Parameter(torch.ones(64))}).save(Path("adaptor.safetensors"))
    cut(Path("adaptor.safetensors"))
    with pytest.raises(AttarError, match=r"^adaptor.safetensors: no adaptor can be read .*; give another, or copy it"):
        DiffFit.load(Path("adaptor.safetensors"))


def test_a_folder_that_is_no_prior_is_told_as_a_folder(world: Path, store: Store) -> None:
    data = save_folder(world / "data", ["ant"], each=1)
    with pytest.raises(
        AttarError, match=f"^`prior` {data}: cannot be loaded as a diffusers pipeline: .*model_index.json"
    ):
        load_prior(str(data), device="cpu", store=store)


def test_a_prior_and_a_codec_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From TOML and Python no shell writes ~ out."""
    monkeypatch.setenv("HOME", str(tmp_path))
    save_tiny_dit(tmp_path / "dit", ["ant", "bee"])
    assert load_prior("~/dit", device="cpu", tile=1).classes == ("ant", "bee")
    assert load_autoencoder("~/dit/vae") is not None


def test_a_prior_of_nothing_but_zeros_is_refused(tmp_path: Path) -> None:
    save_tiny_dit(tmp_path / "dit", ["ant", "bee"])
    (file,) = (tmp_path / "dit" / "transformer").glob("*.safetensors")
    save_file({name: torch.zeros_like(value) for name, value in load_file(file).items()}, file)
    with pytest.raises(AttarError, match="all of its weights are 0; give other files"):
        load_prior(str(tmp_path / "dit"), device="cpu", tile=1)
