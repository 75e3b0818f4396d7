"""What a hostile file may try: to be reached through links, to climb out of folders, to run code, to fill memory."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_report import write_set
from toys import attar, save_folder, save_random_set, save_tiny_dit, save_tiny_sd

from attar.core.cache import contents, find
from attar.core.errors import AttarError
from attar.core.files import appearing, replacing
from attar.core.store import META, Artefact, Store
from attar.data import load_data
from attar.priors import load_prior
from attar.priors.prompts import Prompts
from attar.report.sprites import image_of
from attar.sets.distilled import open_distilled, verify
from attar.teachers.load import load_pretrained
from attar.teachers.soft_labels import StoredLabels
from attar.training.checkpoint import Checkpoint

ATTAR = Path(__file__).parent.parent / "attar"


class Attack:
    """Unpickled as any object, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(os.environ["ATTACKED"]),))


@pytest.fixture
def attacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that an attack makes where its code runs."""
    monkeypatch.setenv("ATTACKED", str(tmp_path / "attacked"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return tmp_path / "attacked"


# code


def calls() -> list[tuple[str, str, list[str]]]:
    """Each call in the package: where, of what, with which keywords."""
    found = []
    for file in sorted(ATTAR.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                where = f"{file.relative_to(ATTAR)}:{node.lineno}"
                words = [f"{word.arg}={ast.unparse(word.value)}" for word in node.keywords]
                found.append((where, ast.unparse(node.func), words))
    return found


def test_nothing_in_the_package_unpickles_unpacks_or_evaluates() -> None:
    """What is loaded by torch is weights alone; archives are left to `datasets` and torchvision."""
    forbidden = {"eval", "exec", "pickle.load", "pickle.loads", "shutil.unpack_archive", "tarfile.open", "os.system"}
    for where, called, words in calls():
        assert called not in forbidden, where
        assert not called.endswith((".extract", ".extractall")), where
        assert called != "torch.load" or "weights_only=True" in words, where
        assert called != "np.load" or "allow_pickle=False" in words, where
        assert not [word for word in words if word.startswith(("trust_remote_code", "shell", "custom_pipeline"))], where


PARTS = {
    "transformer/diffusion_pytorch_model": save_tiny_dit,
    "vae/diffusion_pytorch_model": save_tiny_dit,
    "unet/diffusion_pytorch_model": save_tiny_sd,
    "text_encoder/model": save_tiny_sd,
}


@pytest.mark.parametrize("part", PARTS)
def test_weights_that_are_a_pickle_do_not_run(part: str, tmp_path: Path, attacked: Path, store: Store) -> None:
    """As of a repository of the hub that offers no safetensors."""
    made = PARTS[part]
    folder = save_tiny_dit(tmp_path / "p", ["a"]) if made is save_tiny_dit else save_tiny_sd(tmp_path / "p")
    (folder / f"{part}.safetensors").unlink()
    torch.save({"weight": Attack()}, (folder / part.replace("/model", "/pytorch_model")).with_suffix(".bin"))
    prompts = Prompts(("a",), ("a",)) if made is save_tiny_sd else None
    with pytest.raises(AttarError, match=r"`(prior|codec)` .*/p"):
        load_prior(str(folder), device="cpu", tile=1, prompts=prompts, store=store)
    assert not attacked.exists()


CODE = "import os, pathlib\npathlib.Path(os.environ['ATTACKED']).touch()\nclass Own: ...\n"


def own_code(folder: Path, **entries: Any) -> None:
    """Puts code into every folder of a repository, and names it in every configuration."""
    for config in [file for file in folder.rglob("*.json") if "config" in file.name or "index" in file.name]:
        (config.parent / "own.py").write_text(CODE)
        config.write_text(json.dumps({**json.loads(config.read_text()), **entries}))


AUTO = {f"Auto{kind}": "own.Own" for kind in ("Model", "Config", "Tokenizer", "ModelForImageClassification")}


def test_code_that_a_repository_brings_along_does_not_run(tmp_path: Path, attacked: Path, store: Store) -> None:
    dit, sd = save_tiny_dit(tmp_path / "dit", ["a"]), save_tiny_sd(tmp_path / "sd")
    own_code(dit, auto_map=AUTO, trust_remote_code=True, custom_pipeline="own")
    own_code(sd, auto_map=AUTO, trust_remote_code=True, custom_pipeline="own")
    load_prior(str(dit), device="cpu", tile=1, store=store)
    load_prior(str(sd), device="cpu", tile=1, store=store, prompts=Prompts(("a",), ("a",)))
    assert not attacked.exists()


@pytest.mark.parametrize("name", [["own", "Own"], "own.Own", "own", "DiffusionPipeline", None, 3])
def test_a_pipeline_of_its_own_is_refused(tmp_path: Path, attacked: Path, store: Store, name: Any) -> None:
    folder = save_tiny_dit(tmp_path / "p", ["a"])
    own_code(folder, _class_name=name)
    with pytest.raises(AttarError, match="it must be one of DiTPipeline, StableDiffusionPipeline"):
        load_prior(str(folder), device="cpu", tile=1, store=store)
    assert not attacked.exists()


def test_parts_of_its_own_are_not_asked(tmp_path: Path, attacked: Path, store: Store) -> None:
    folder = save_tiny_dit(tmp_path / "p", ["a"])
    index = json.loads((folder / "model_index.json").read_text())
    own_code(folder)
    parts = {part: ["own", "Own"] for part in ("transformer", "vae", "scheduler", "safety_checker")}
    (folder / "model_index.json").write_text(json.dumps({**index, **parts}))
    load_prior(str(folder), device="cpu", tile=1, store=store)
    assert not attacked.exists()


def test_a_data_set_with_a_script_is_refused(tmp_path: Path, attacked: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.py").write_text(CODE)
    with pytest.raises(AttarError, match="cannot be loaded"):
        load_data(f"hf:{tmp_path / 'own'}")
    assert not attacked.exists()


def test_a_teacher_that_is_a_pickle_does_not_run(tmp_path: Path, attacked: Path) -> None:
    (tmp_path / "own").mkdir()
    config = {"architecture": "resnet10t", "num_classes": 2, "pretrained_cfg": {"input_size": [3, 32, 32]}}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    torch.save({"state_dict": Attack()}, tmp_path / "own" / "pytorch_model.bin")
    (tmp_path / "whole.pth").write_bytes(pickle.dumps(Attack(), protocol=2))
    for source in (f"timm/local-dir:{tmp_path / 'own'}", f"convnet3-w4:{tmp_path / 'whole.pth'}"):
        with pytest.raises(AttarError):
            load_pretrained(source, None, 2, 32)
    assert not attacked.exists()


def test_a_checkpoint_of_the_cache_that_is_a_pickle_does_not_run(tmp_path: Path, attacked: Path) -> None:
    network = torch.nn.Linear(2, 2)
    checkpoint = Checkpoint(tmp_path)
    with checkpoint.file.open("wb") as file:
        torch.save({"step": Attack()}, file)
    assert not checkpoint.restore(network, torch.optim.SGD(network.parameters()), torch.amp.GradScaler(enabled=False))
    assert not attacked.exists()
    assert not checkpoint.file.exists()


# places


def holding(text: str) -> Callable[[Path], None]:
    """What makes an artefact of one file with this text."""

    def make(scratch: Path) -> None:
        (scratch / "x").write_text(text)

    return make


def test_an_image_that_is_a_link_out_of_the_set_is_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    (tmp_path / "private.png").write_bytes((image := open_distilled(folder).files()[0][0]).read_bytes())
    image.unlink()
    image.symlink_to("../../../private.png")
    with pytest.raises(AttarError, match=rf"{image}: a link that leads out of the set; copy the files"):
        open_distilled(folder)


@pytest.mark.parametrize("part", ["images", "images/000_cat"])
def test_a_folder_that_is_a_link_out_of_the_set_is_refused(tmp_path: Path, part: str) -> None:
    folder = write_set(tmp_path / "set")
    os.rename(folder / part, tmp_path / "elsewhere")
    (folder / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AttarError, match="leads out of the set"):
        open_distilled(folder)


def test_links_within_a_set_and_those_of_the_hubs_downloads_are_followed(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "hub" / "snapshots" / "0123" / "set")
    first, second = (files[0] for files in open_distilled(folder).files())
    (tmp_path / "hub" / "blobs").mkdir()
    os.rename(first, tmp_path / "hub" / "blobs" / "ab")
    first.symlink_to(os.path.relpath(tmp_path / "hub" / "blobs" / "ab", first.parent))
    os.rename(second, second.with_name("own"))
    second.symlink_to("own")
    assert [file for (file,) in open_distilled(folder).files()] == [first, second]
    (tmp_path / "set").symlink_to(folder)
    open_distilled(tmp_path / "set")


@pytest.mark.parametrize("run", [None, "abcd"])
def test_nothing_is_written_through_a_link_that_waits_beside_an_output(tmp_path: Path, run: str | None) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / ".x.partial").write_text("kept")
    (tmp_path / (f".out.{run}.partial" if run else ".out.partial")).symlink_to(victim)
    with appearing(tmp_path / "out", run=run) as made:
        (made / "new").touch()
    assert [file.name for file in victim.iterdir()] == [".x.partial"]
    assert not (tmp_path / "out").is_symlink()


def test_nothing_is_written_through_a_link_that_waits_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / f".out.{os.getpid()}.partial").symlink_to(tmp_path / "victim")
    with replacing(tmp_path / "out") as made:
        made.write_text("new")
    assert (tmp_path / "victim").read_text() == "kept"
    assert (tmp_path / "out").read_text() == "new"


@pytest.mark.parametrize("hidden", [False, True])
def test_a_link_in_the_cache_is_replaced_and_what_it_leads_to_is_left(
    store: Store, tmp_path: Path, hidden: bool
) -> None:
    artefact = Artefact("kind", {"a": 1})
    folder = store.once(artefact, holding("own"))
    victim = tmp_path / "victim"
    os.rename(folder, victim)
    (store.scratch(artefact) if hidden else folder).symlink_to(victim)
    again = Store(store.root)
    assert again.has(artefact) is False
    again.once(artefact, holding("new"))
    assert (victim / "x").read_text() == "own"
    assert (folder / "x").read_text() == "new"
    assert not folder.is_symlink()


CLIMBING = ("images/../../../private.png", "/etc/passwd", "images/000_cat/../../../x.png", "images/000_cat/0000.png\n")


@pytest.mark.parametrize("kind", ["images", "prototypes", "statistics"])
@pytest.mark.parametrize("name", CLIMBING)
def test_names_that_climb_out_of_a_set_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    folder = write_set(tmp_path / "set")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.setdefault(kind, {})[name] = "0" * 32
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AttarError, match=f"is damaged: {kind} lists"):
        verify(folder)


def test_names_that_climb_out_of_the_cache_are_damage(store: Store, tmp_path: Path) -> None:
    artefact = Artefact("kind", {"a": 1})
    folder = store.once(artefact, holding("own"))
    (tmp_path / "private").write_text("secret")
    meta = json.loads((folder / META).read_text())
    meta["files"]["../../../private"] = {"bytes": 6, "digest": "0" * 32}
    (folder / META).write_text(json.dumps(meta))
    assert not Store(store.root).has(artefact)
    (record,) = contents(store.root).records
    assert record.wrong == "its ../../../private is missing"


@pytest.mark.parametrize("word", ["../../private", "kind/../..", "..", "*", "/etc"])
def test_keys_that_climb_name_no_artefact(store: Store, word: str) -> None:
    store.once(Artefact("kind", {"a": 1}), lambda scratch: None)
    with pytest.raises(AttarError, match="no artefact"):
        find(word, store.root)


@pytest.mark.parametrize("name", ["../../private", "/etc/passwd", "labels-00001.safetensors", "x"])
def test_files_of_labels_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    labelling = {"teacher": "t", "classes": 2, "scheme": {"values": "fp16", "top": None}, "temperature": None}
    labelling["views"] = {"epochs": 3, "count": 4, "how": {"size": 8}}
    about = {"format": 3, "key": "k", "bytes": 1, "shard_epochs": 4, "shards": {name: "0" * 32}, "labelling": labelling}
    (tmp_path / "labels.json").write_text(json.dumps(about))
    with pytest.raises(AttarError, match=r"labels.json is damaged: shards lists .*, no file of labels"):
        StoredLabels(tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps({**about, "labelling": {**labelling, "views": {"epochs": 3}}}))
    with pytest.raises(AttarError, match=r"labels.json is damaged: labelling.views.count is missing"):
        StoredLabels(tmp_path)


def climbing_zip(file: Path, image: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("a/0.png", "b/0.png", "../../../climbed.png"):
            archive.writestr(name, image)


def climbing_tar(file: Path, image: bytes) -> None:
    with tarfile.open(file, "w:gz") as archive:
        for name in ("a/0.png", "b/0.png", "../../../climbed.png"):
            member = tarfile.TarInfo(name)
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image))


@pytest.mark.parametrize(("suffix", "pack"), [("zip", climbing_zip), ("tar.gz", climbing_tar)])
def test_names_that_climb_out_of_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, pack: Callable[[Path, bytes], None]
) -> None:
    """The one place where archives of others are unpacked is `datasets`, into its own cache."""
    datasets = pytest.importorskip("datasets")
    data, cache = tmp_path / "d" / "data", tmp_path / "c" / "c" / "c" / "c"
    for name in ("HF_DATASETS_CACHE", "EXTRACTED_DATASETS_PATH", "DOWNLOADED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, cache / name)
    data.mkdir(parents=True)
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(encoded, "PNG")
    pack(data / f"train.{suffix}", encoded.getvalue())
    with suppress(AttarError):
        assert set(load_data(f"hf:{data}").classes) <= {"a", "b"}
    climbed = [
        file for file in tmp_path.rglob("climbed.png") if (cache / "EXTRACTED_DATASETS_PATH") not in file.parents
    ]
    assert not climbed


# memory


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it has so many pixels on a side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_images_that_would_fill_the_memory_are_named(tmp_path: Path, store: Store, side: int) -> None:
    folder = save_folder(tmp_path / "data", ["a", "b"], each=2)
    (folder / "a" / "000.png").write_bytes(bomb(side))
    with pytest.raises(AttarError, match=r"a/000.png: .*pixels"):
        load_data(str(folder)).open(0)
    with pytest.raises(AttarError, match=r"000.png cannot be read \(.*pixels"):
        image_of(folder / "a" / "000.png")


# words


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\u2028", "\x85"])
def test_a_class_name_begins_no_line_of_the_card(tmp_path: Path, end: str) -> None:
    name = f"cat{end}---{end}tags: [x]{end}# <b>Title</b>"
    card = (write_set(tmp_path / "set", classes=(name, "dog")) / "README.md").read_text(encoding="utf-8")
    assert not [line for line in card.splitlines() if line.startswith(("tags", "# <"))]
    assert card.splitlines().count("---") == 2
    assert "<b>" not in card


def test_a_class_name_from_toml_stays_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of classes are words to look for, never markup of the console, formats, paths or commands."""
    world = save_random_set(tmp_path, monkeypatch)
    name = "[red]ant[/red] {0.__class__} $(touch x) ../../x <script>"
    (tmp_path / "run.toml").write_text(f"data = 'imagefolder:{world / 'data'}@train'\nclasses = [{json.dumps(name)}]\n")
    words = ("--config", tmp_path / "run.toml", "--method", "random", "--ipc", 1, "--out", tmp_path / "new")
    assert attar(monkeypatch, "distill", *words) != 0
    said = "".join(capsys.readouterr())
    assert "[red]ant[/red] {0.__class__} $(touch x)" in " ".join(said.split())
    assert not (tmp_path / "new").exists()
