"""Folders of class folders as they are found: links, pipes, odd names, splits among classes."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from PIL import Image
from toys import attar

from attar.core.errors import AttarError, BadImage
from attar.core.store import Store
from attar.data import load_data, readable, test_spec


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))


def folder(root: Path, *files: str) -> Path:
    """Images of these names, relative to `root`."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((4, 4 + len(file))).save(root / file)
    return root


def names(root: Path) -> list[str]:
    images = load_data(str(root))
    return [images.name(index) for index in range(len(images))]


def test_a_class_called_train_beside_classes_is_not_taken_for_a_split(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "train/steam/1.png", "train/diesel/2.png", "bus/1.png", "car/1.png")
    message = (
        f"train may be a split, for .*, or a class, for the class folders bus, car are beside it; .*{root}@train, "
    )
    with pytest.raises(AttarError, match=message):
        load_data(str(root))
    assert load_data(f"{root}@train").classes == ("diesel", "steam")
    for file in ("train/steam/1.png", "train/diesel/2.png"):
        (root / file).rename(root / "train" / Path(file).name)
    for kind in ("steam", "diesel"):  # left empty: the images are the folder's own
        assert (root / "train" / kind).is_dir()
    assert load_data(str(root)).classes == ("bus", "car", "train")
    assert names(root)[2:] == ["train/1.png", "train/2.png"]


@pytest.mark.parametrize("name", ["train", "test", "val", "Validation"])
def test_a_class_may_be_called_as_a_split_is(tmp_path: Path, name: str) -> None:
    assert load_data(str(folder(tmp_path / "data", f"{name}/1.png", "bus/1.png"))).classes == tuple(
        sorted([name, "bus"])
    )


def test_folders_without_images_beside_splits_are_no_classes(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "train/cat/1.png", "val/cat/1.png", "train/preview.png")
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text("{}")
    assert test_spec(f"{root}@train") == f"imagefolder:{root}@val"
    with pytest.raises(AttarError, match="splits train, val"):
        load_data(str(root))
    assert len(load_data(f"{root}@train")) == 1


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "cat/1.png", "dog/1.png")
    for place, target in {"cat/up": "..", "cat/here": ".", "cat/above": "../..", "dog/other": "../cat"}.items():
        (root / place).symlink_to(target)
    assert names(root) == ["cat/1.png", "dog/1.png", "dog/other/1.png"]
    (root / "all").symlink_to(".")
    with pytest.raises(AttarError, match=f"no images .* in {root}/all: add some, or remove the folder"):
        load_data(str(root))


def test_a_class_that_is_a_link_to_nowhere_is_not_left_out(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", "cat/1.png")
    (root / "dog").symlink_to(tmp_path / "gone")
    (root / "emu").symlink_to("emu")
    with pytest.raises(
        AttarError, match=f"{root}/dog, {root}/emu: a link that leads nowhere, perhaps a class; mend it"
    ):
        load_data(str(root))


def test_pipes_sockets_devices_and_links_to_themselves_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "data", "cat/1.png")
    monkeypatch.chdir(root / "cat")  # the path of a socket must be short
    os.mkfifo("2.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind("3.png")
    Path("4.png").symlink_to("/dev/zero")
    Path("5.png").symlink_to("5.png")
    Path("6.png").mkdir()
    images, read = load_data(str(root)), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("hangs") if path.is_fifo() else read(path))
    with pytest.raises(AttarError, match="4 of 5 images") as caught:
        readable(images, "error", Store(tmp_path / "cache"))
    for line in (
        "cat/2.png: it is no file, but a pipe",
        "cat/3.png: it is no file, but a socket",
        "cat/4.png: it is no file, but a device",
        "cat/5.png: [Errno",
    ):
        assert f"\n  {line}" in str(caught.value)
    with pytest.raises(BadImage, match=r"cat/2\.png: it is no file, but a pipe"):
        images.open(1)
    assert len(readable(images, "skip", Store(tmp_path / "cache"))) == 1
    server.close()


def test_what_is_left_out_or_taken_from_below_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path / "data", "cat/1.png", "cat/old/a/2.png", "cat/old/3.png", "dog/4.png", ".b/5.png", "6.png")
    folder(root, ".cache/7.png", "8.png", "dog/._9.png")
    (root / ".git").mkdir()
    (root / "readme.txt").write_text("loose")
    for _ in range(2):
        assert names(root) == ["cat/1.png", "cat/old/3.png", "cat/old/a/2.png", "dog/4.png"]
    assert caplog.messages == [
        f"{root}: left out: 2 images beside the class folders (6.png, 8.png)",
        f"{root}: left out: 2 images in hidden folders (.b, .cache)",
        f"{root}: taken for their class's: 2 images in folders below a class folder",
    ]
    caplog.clear()
    names(folder(tmp_path / "plain", "cat/1.png", "dog/2.png"))
    assert caplog.messages == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
def test_names_that_are_not_utf8_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "data", "cat/1.png")
    odd = os.fsencode(root) + b"/cat/caf\xe9.png"
    os.rename(root / "cat" / "1.png", odd)
    told = r"these names are not UTF-8, and no record could hold them: cat/caf\udce9.png; rename them"
    for words in ([root], [os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")]):
        if words != [root]:
            os.rename(root, words[0])
            told = r"caf\udce9: the path is not UTF-8, and no record could hold it; rename it"
        asked = ["--method", "random", "--ipc", "1", "--out", tmp_path / "out"]
        assert attar(monkeypatch, "distill", "--data", *words, *asked) == 2
        assert told in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs this may read every folder: the refusal is made up."""
    root, scan = folder(tmp_path / "data", "cat/1.png", "dog/1.png"), os.scandir

    def refusing(path: Path) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(AttarError, match=f"{root} cannot be read as a folder of class folders: .*Permission.*data/dog"):
        load_data(str(root))


def test_a_pipe_is_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for form, message in (("imagefolder", "is not a folder"), ("parquet", "holds no parquet file")):
        with pytest.raises(AttarError, match=message):
            load_data(f"{form}:{tmp_path}/pipe")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("imagfolder:/x", r"neither a folder nor a known form of data \(did you mean 'imagefolder'\?\); known are"),
        ("PARQUET:/x", r"known form of data \(did you mean 'parquet'\?\)"),
        ("Digits", r"known form of data \(did you mean 'digits'\?\)"),
        ("digits@Test", r"no split 'Test' \(did you mean 'test'\?\); there are train, test, all"),
        ("digits@trian", r"no split 'trian' \(did you mean 'train'\?\)"),
    ],
)
def test_mistyped_specs(spec: str, message: str) -> None:
    with pytest.raises(AttarError, match=message):
        load_data(spec)


def test_mistyped_classes_and_subsets(tmp_path: Path) -> None:
    images = load_data(str(folder(tmp_path / "data", "Cat/1.png", "cat/1.png", "CAT /1.png", "dog/1.png")))
    assert images.classes == ("CAT ", "Cat", "cat", "dog")
    for wrong, told in {"CAT": "'CAT ' or 'Cat' or 'cat'", "dgo": "'dog'", "ImageWoof": "'imagewoof'"}.items():
        with pytest.raises(AttarError, match=rf"no class '{wrong}' \(did you mean {told}\?\)"):
            images.restricted([wrong])


def test_splits_without_classes_are_no_classes(tmp_path: Path) -> None:
    for name in ("train", "test", "val"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), "red").save(tmp_path / name / "0.png")
    with pytest.raises(AttarError, match="test, train, val hold images and no class folders; put a folder for each"):
        load_data(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("spec", ["{0}", "imagefolder:{0}", "parquet:{0}", "{0}/below"])
def test_a_link_to_itself_is_no_data(tmp_path: Path, spec: str) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with pytest.raises(AttarError, match=r"loop.*\(.*a link that leads nowhere\)"):
        load_data(spec.format(loop))


def test_a_split_that_is_a_link_to_itself_is_not_left_out(tmp_path: Path) -> None:
    folder(tmp_path / "data", "train/ant/1.png", "train/bee/1.png")
    (tmp_path / "data" / "test").symlink_to("test")
    with pytest.raises(AttarError, match=r"data/test: a link that leads nowhere, perhaps a split; mend it"):
        load_data(f"imagefolder:{tmp_path / 'data'}@train")
