"""Soft labels: a teacher's logits for the views of every epoch (FKD, Shen and Xing, ECCV 2022; SRe2L, D4M).

views     drawn from keys, by image and epoch: crop, flip, CutMix partner, ratio and box. Nothing of them is stored,
          and neither the order nor the size of the student's batches changes what is seen of an image.
labels    the teacher's logits for each of these views, stored in shards of some epochs, by a `Scheme`.
student   makes the views again from their keys and reads its labels by (epoch, image); `label_epochs` fewer than
          the student's are used again and again.
fixed     one label an image, of the whole of it, whatever the student's views (Qin et al., NeurIPS 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from numpy.random import Generator
from safetensors.torch import load_file, save_file
from torch import Tensor

from attar.core.errors import AttarError
from attar.core.files import resumed
from attar.core.finite import finite
from attar.core.json_shapes import DIGEST, TEXT, Maybe, Shape, ValueKind, Values, mistake, read_json, whole
from attar.core.json_shapes import number as number_of
from attar.core.progress import Meter, Progress, silent
from attar.core.rng import numpy_generator
from attar.core.store import canonical, file_digest, fingerprint, replacing, write_json
from attar.teachers.label_schemes import BITS, LEFT_OUT, Scheme, is_temperature
from attar.training import DeviceImages, Precision, Shown, autocast, memory_kept
from attar.training.augment import Augmentation, Draw, apply, draw, mixed, mixing

FORMAT = 3
SHARD_VIEWS = 16_384
"""About how many views a shard has labels of, in whole epochs: what an interruption loses at most."""
BATCH = 256
"""Views that the teacher labels at once."""
WHOLE: Literal["imagenet"] = "imagenet"
"""Statistics by which a teacher is shown whole images, whatever the recipe's; one that carries its own sees those."""


@dataclass(frozen=True)
class Views:
    """The views of a set of `count` images: those of epoch e and e + `epochs` are the same.

    Each image has its own crop, flip, partner, ratio and box in each epoch; the partners of an epoch are a permutation
    of the set. In the "batch" form of the box, as in FKD's code, the images of an epoch are put into a random order
    and cut into batches of `batch`, in each of which there is one ratio and box, and partners are found; students are
    shown them in that order.
    """

    how: Augmentation
    """What happens to each image."""
    count: int
    """Images of the set."""
    epochs: int
    """Epochs with views of their own."""
    box: Literal["image", "batch"] = "image"
    """Whether each image has a mixing ratio and box of its own, or each batch has one."""
    batch: int = 1
    """Only in the "batch" form."""
    seed: int = 0
    """Seed of all views."""

    def __call__(self, images: DeviceImages, epoch: int, index: Tensor) -> Shown:
        """The views of the images `index` (n,), of the whole set `images`, in an epoch."""
        every = self.drawn(epoch % self.epochs)
        drawn = every.of(index.cpu())
        if drawn.partner is None:
            plain = apply(images[index], drawn, self.how)
            return Shown(plain, plain)
        needed, of = torch.cat([index.cpu(), drawn.partner]).unique(return_inverse=True)
        views = apply(images[needed.to(images.device)], every.of(needed), self.how)
        plain, others = views[of.to(images.device)].split(len(index))
        return Shown(plain, mixed(plain, drawn, others), drawn.partner.to(images.device), drawn.own)

    @lru_cache(maxsize=2)  # noqa: B019  (frozen, so equal views share what they draw)
    def drawn(self, epoch: int) -> Draw:
        """The parameters of all images in an epoch; partners are numbers of images of the set."""
        key = (self.seed, "views", epoch)
        alone = draw(replace(self.how, mix="none"), self.count, *key)
        if self.how.mix == "none":
            return alone
        rng, order = self._mixing(epoch)
        batches = order.split(self.batch if self.box == "batch" else self.count)
        partner = torch.empty_like(order)
        for batch in batches:
            partner[batch] = batch[torch.from_numpy(rng.permutation(len(batch)))]
        group = torch.arange(self.count)
        if self.box == "batch":
            group[order] = torch.arange(self.count) // self.batch
        groups = int(group.max()) + 1
        mix = {name: value[group] for name, value in mixing(self.how, rng, groups).items()}
        unmixed = torch.from_numpy(rng.random(groups) >= self.how.mix_probability)[group]
        return replace(alone, **mix, partner=torch.where(unmixed, torch.arange(self.count), partner))

    def order(self, epoch: int) -> Tensor | None:
        """The order (N,) in which students are shown the images of an epoch; None: any."""
        return self._mixing(epoch % self.epochs)[1] if self.box == "batch" and self.how.mix != "none" else None

    def _mixing(self, epoch: int) -> tuple[Generator, Tensor]:
        rng = numpy_generator(self.seed, "views", epoch, "mixing")
        return rng, torch.from_numpy(rng.permutation(self.count))


def whole_images(count: int, side: int) -> Views:
    """The images as they are, at `side` pixels: what fixed labels are of."""
    return Views(Augmentation(side, normalise=WHOLE), count, epochs=1)


@dataclass(frozen=True)
class Labelling:
    """What stored labels depend on: equal labellings, equal labels, by one kind of device and one version of torch."""

    views: Views
    """What the teacher sees."""
    images: str
    """Digest of the images."""
    teacher: str
    """Digest of the teacher, its input and its classes."""
    classes: int
    """Number of classes."""
    scheme: Scheme
    """How logits are stored."""
    temperature: float | None = None
    """What is kept of the classes that a scheme leaves out is right at this temperature; None: it leaves out none."""
    precision: Precision = "float32"
    """What the teacher computes in: float32, or mixed precision."""

    looked_at: str | None = None
    """Digest of what the teacher looked at in the place of the images: those that parts were reduced from."""

    LATER: ClassVar[Mapping[str, Any]] = {"precision": "float32", "looked_at": None}

    @property
    def key(self) -> str:
        return fingerprint("soft labels", FORMAT, self)

    @property
    def bytes(self) -> int:
        """Size of all labels, without the few hundred bytes of each file's header."""
        return self.views.epochs * self.views.count * self.scheme.row_bytes(self.classes)

    @property
    def shard_epochs(self) -> int:
        """How many epochs a file holds; the last may hold fewer."""
        return max(1, SHARD_VIEWS // self.views.count)

    @property
    def shards(self) -> list[range]:
        """The epochs of each file."""
        step = self.shard_epochs
        return [range(i, min(i + step, self.views.epochs)) for i in range(0, self.views.epochs, step)]


def write_labels(
    folder: Path,
    labelling: Labelling,
    images: DeviceImages,
    teacher: Callable[[Tensor], Tensor],
    progress: Progress = silent,
    about: dict[str, Any] | None = None,
) -> None:
    """Labels the views of `images`, on the teacher's device, and writes them to `folder`.

    Each shard appears whole and is not made again; the manifest, with `about` in it, comes last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meter = Meter(progress, "labelling", labelling.views.epochs * len(images), "views")
    for number, epochs in enumerate(labelling.shards):
        if has_shard(folder, number):
            meter.add(len(epochs) * len(images))
        else:
            write_shard(folder, number, labelling, images, teacher, meter)
    digests = {_name(number): file_digest(folder / _name(number)) for number in range(len(labelling.shards))}
    manifest = {"format": FORMAT, "key": labelling.key, "labelling": canonical(labelling), "bytes": labelling.bytes}
    manifest |= {**(about or {}), "shard_epochs": labelling.shard_epochs, "shards": digests}
    write_json(folder / "labels.json", manifest)


def has_shard(folder: Path, number: int) -> bool:
    """Whether the file of some epochs is there, whole."""
    return resumed(folder / _name(number), load_file) is not None


def write_shard(
    folder: Path,
    number: int,
    labelling: Labelling,
    images: DeviceImages,
    teacher: Callable[[Tensor], Tensor],
    meter: Meter,
) -> None:
    """Labels the views of some epochs, and writes their file; it appears whole."""
    with memory_kept():
        rows = [_labelled(labelling, images, teacher, epoch, meter) for epoch in labelling.shards[number]]
    parts = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    with replacing(folder / _name(number)) as temporary:
        save_file(parts, temporary)


@torch.no_grad()
def _labelled(
    labelling: Labelling, images: DeviceImages, teacher: Callable[[Tensor], Tensor], epoch: int, meter: Meter
) -> dict[str, Tensor]:
    """One epoch's labels, in the order of the images."""
    parts = []
    for index in torch.arange(len(images)).split(BATCH):
        view = labelling.views(images, epoch, index.to(images.device)).view
        with autocast(images.device, labelling.precision):
            logits = teacher(view)
        logits = finite(logits.float().cpu(), "the teacher's logits")
        parts.append(labelling.scheme.encode(logits, labelling.temperature))
        meter.add(len(index))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def advise(folder: Path, advice: dict[str, Any]) -> None:
    """Says in the labels of a folder, which are there whole, at which "temperature" they are to be learnt from."""
    write_json(folder / "labels.json", {**read_json(folder / "labels.json"), "advice": advice})


_SHAPE: Shape = {
    "key": TEXT,
    "bytes": whole(0),
    "shard_epochs": whole(1),
    "shards": Values(DIGEST),
    "advice?": {"temperature": ValueKind(f"a number above 0 or {LEFT_OUT}", is_temperature)},
    "labelling": {
        "teacher": TEXT,
        "classes": whole(1),
        "scheme": {
            "values": ValueKind(f"one of {', '.join(BITS)}", lambda x: isinstance(x, str) and x in BITS),
            "top": Maybe(whole(1)),
        },
        "temperature": Maybe(number_of(0)),
        "precision?": ValueKind("a number format", lambda x: x in get_args(Precision)),
        "looked_at?": Maybe(TEXT),
        "views": {"epochs": whole(1), "count": whole(1), "how": {"size": whole(1)}},
    },
}
"""What labels.json must hold."""


class StoredLabels:
    """The labels in a folder, read shard by shard as they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises AttarError where the folder holds no labels, or a part of them is missing."""
        self.folder = folder
        try:
            self.manifest: dict[str, Any] = read_json(folder / "labels.json")
            version = int(self.manifest["format"])
        except (AttarError, ValueError, KeyError, TypeError) as error:
            raise AttarError(f"{folder} holds no finished soft labels: `attar relabel` makes them") from error
        if version != FORMAT:
            age = "a newer" if version > FORMAT else "an older"
            raise AttarError(f"{folder}: these labels were written by {age} Attar; `attar relabel` makes labels again")
        if wrong := mistake(self.manifest, _SHAPE) or _misfit(self.manifest):
            raise AttarError(f"{folder / 'labels.json'} is damaged: {wrong}; `attar relabel` makes labels again")
        self.key, self.bytes = self.manifest["key"], self.manifest["bytes"]
        self._labelling, self._digests = self.manifest["labelling"], self.manifest["shards"]
        if missing := [name for name in self._digests if not (folder / name).is_file()]:
            raise AttarError(f"{folder}: {missing[0]} is missing; `attar relabel` makes labels again")
        self.teacher = str(self._labelling["teacher"])
        self.scheme = Scheme(self._labelling["scheme"]["values"], self._labelling["scheme"]["top"])
        self.epochs, self.count = int(self._labelling["views"]["epochs"]), int(self._labelling["views"]["count"])
        self.side = int(self._labelling["views"]["how"]["size"])
        self.temperature: float | None = self._labelling["temperature"]
        self.precision: Precision = self._labelling.get("precision", "float32")
        self.looked_at: str | None = self._labelling.get("looked_at")
        self._rows = int(self.manifest["shard_epochs"])
        self._shard = lru_cache(maxsize=1)(self._read)

    @property
    def fixed(self) -> bool:
        """Whether there is one label an image, of the whole of it."""
        return bool(self._labelling["views"] == canonical(whole_images(self.count, self.side)))

    @property
    def advised(self) -> float | Literal["none"] | None:
        """The temperature that they are to be learnt from at, or `none`: not at all; None: they do not say."""
        advised: float | Literal["none"] | None = self.manifest.get("advice", {}).get("temperature")
        return advised

    @property
    def tried(self) -> bool:
        """Whether trials have chosen that temperature."""
        return "tried" in self.manifest.get("advice", {})

    def __call__(self, epoch: int, index: Tensor) -> Tensor:
        """The logits (n, classes), float32 on the CPU, of the images `index` (n,) in an epoch, up to a constant a row.

        Raises:
            AttarError: a file was altered.
        """
        shard, epoch = divmod(epoch % self.epochs, self._rows)
        rows = epoch * self.count + index.cpu()
        part = {name: value[rows] for name, value in self._shard(shard).items()}
        return self.scheme.decode(part, int(self._labelling["classes"]))

    def _read(self, shard: int) -> dict[str, Tensor]:
        file = self.folder / _name(shard)
        try:
            made = file_digest(file)
        except FileNotFoundError as error:
            raise AttarError(f"{file} is gone since it was opened: the same command makes it again") from error
        if made != self._digests[file.name]:
            raise AttarError(f"{file} was altered since it was written; `attar relabel` makes labels again")
        return load_file(file)

    def about(self, name: str) -> Any:
        """What `attar relabel` says of the labels: their "teacher", the "recipe" and its "changes".

        Raises:
            AttarError: something else wrote them.
        """
        if name not in self.manifest:
            raise AttarError(f"{self.folder}: was not written by `attar relabel`, and does not say its {name}")
        return self.manifest[name]

    def differences(self, labelling: Labelling) -> list[str]:
        """What these labels are that the labels of that labelling are not, as "of other images"."""
        asked, own = canonical(labelling), self._labelling
        words = {
            "images": "of other images",
            "views": f"of other views ({_difference(asked['views'], own['views'])})",
            "teacher": "by another teacher",
            "classes": "of other classes",
            "scheme": "in another scheme",
        }
        every = {**asked, **own}
        return [words.get(name, f"with another {name}") for name in every if asked.get(name) != own.get(name)]

    def check(self, labelling: Labelling) -> None:
        """Raises AttarError, which says what differs, unless these are the labels of that labelling."""
        if wrong := self.differences(labelling):
            raise AttarError(
                f"{self.folder} holds labels {' and '.join(wrong)}: make labels for this set, recipe and teacher with "
                "`attar relabel`, or leave out `labels`"
            )


def _misfit(manifest: dict[str, Any]) -> str | None:
    """What does not go together in a manifest of labels whose keys are all right by themselves."""
    files = -(-manifest["labelling"]["views"]["epochs"] // manifest["shard_epochs"])
    if len(manifest["shards"]) != files:
        return f"shards lists {len(manifest['shards'])} files of {files}"
    odd = set(manifest["shards"]) - set(map(_name, range(files)))
    return f"shards lists {min(odd)!r}, no file of labels" if odd else None


def _name(shard: int) -> str:
    return f"labels-{shard:05d}.safetensors"


def _difference(asked: dict[str, Any], own: dict[str, Any]) -> str:
    """Where two frozen views differ, as "crop 0.08 here, 0.5 there"."""
    asked, own = ({**views, **views["how"]} for views in (asked, own))
    names = [name for name in asked if name != "how" and asked[name] != own.get(name)]
    return ", ".join(f"{name} {asked[name]} here, {own.get(name)} there" for name in names)
