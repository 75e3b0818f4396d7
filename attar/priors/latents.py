"""Per-class latents of a data set: encoded once, kept on disk in bfloat16 shards, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
import torch
from safetensors.torch import load_file
from torch import Tensor

from attar.core.errors import NotFinite
from attar.core.finite import save_finite
from attar.core.progress import Meter, Progress, silent
from attar.core.rng import noise, numpy_generator
from attar.core.store import Artefact, Store
from attar.data import ImageSet, load_pixels
from attar.data.pixels import Pixels
from attar.data.source_contract import Ints
from attar.data.threads import one_ahead
from attar.priors.codec import Encoder, to_float

SHARD = 512


@dataclass(frozen=True, eq=False)
class Shard:
    """Posterior means and deviations of some images of one class, in scaled units."""

    positions: Ints
    """(N,): which of the class's images they are, in the data's order."""
    mean: Tensor
    """(N, C, H, W), bfloat16."""
    std: Tensor
    """(N, C, H, W), bfloat16; 0 where the codec draws nothing."""

    def sampled(self, seed: int, class_name: str) -> Tensor:
        """One float32 sample of each posterior (N, C, H, W), by a key of its own; the means where they are exact."""
        if not self.std.any():
            return self.mean.float()
        shape = tuple(self.mean.shape[1:])
        draws = torch.stack([noise(shape, seed, "posterior", class_name, int(i)) for i in self.positions])
        return self.mean.float() + self.std.float() * draws


@dataclass(frozen=True, eq=False)
class Latents:
    """The latents of `images` under a codec, encoded shard by shard when first asked for."""

    images: ImageSet
    """The images."""
    codec: Encoder
    """What encodes them."""
    preprocess: str
    """How they are brought to the codec's size: adm, resize-crop or squash."""
    store: Store
    """Where they are kept."""
    compute: Any
    """Device class, batch size, dtype and versions: what the bytes depend on beside the codec."""

    def order(self, label: int) -> Ints:
        """Positions of the class's images in its shards: a fixed random order, so that any prefix is a fair sample."""
        name = self.images.classes[label]
        return numpy_generator("latents", name).permutation(len(self.images.of_class(label)))

    def artefacts(self, label: int, first: int | None = None) -> list[Artefact]:
        """The shards of one class, or those that hold the `first` images of its order."""
        images, name = self.images.identity(label), self.images.classes[label]
        read = {"class": name, "images": images, "preprocess": self.preprocess, "pillow": PIL.__version__}
        encoded = {**read, "codec": self.codec.key, "encoding": self.compute, "shard size": SHARD}
        count = images["count"] if first is None else min(first, images["count"])
        return [Artefact("latents", {**encoded, "shard": number}) for number in range(-(-count // SHARD))]

    def missing(self, label: int, first: int | None = None) -> int:
        """How many of the class's images, or of the `first` of its order, are not encoded yet."""
        count, shards = len(self.order(label)[:first]), self.artefacts(label, first)
        sizes = (min(SHARD, count - begin) for begin in range(0, count, SHARD))
        return sum(size for size, shard in zip(sizes, shards, strict=True) if not self.store.has(shard))

    def shards(self, label: int, first: int | None = None, progress: Progress = silent) -> Iterator[Shard]:
        """The class's latents, or those of the `first` images of its order, shard by shard."""
        order, work = self.order(label)[:first], "encoding" if self.missing(label, first) else "reading latents of"
        meter = Meter(progress, f"{work} {self.images.classes[label]}", len(order), "images")
        for number, shard in enumerate(self.artefacts(label, first)):
            positions = order[number * SHARD : (number + 1) * SHARD]
            tensors = load_file(self._encoded(label, number, shard) / "latents.safetensors")
            meter.add(len(positions))
            yield Shard(positions, tensors["mean"][: len(positions)], tensors["std"][: len(positions)])

    def _encoded(self, label: int, number: int, shard: Artefact) -> Path:
        def make(scratch: Path) -> None:
            indices = self.images.of_class(label)[self.order(label)][number * SHARD : (number + 1) * SHARD]
            parts = [indices[begin : begin + 64] for begin in range(0, len(indices), 64)]
            encoded = [self._encode(part, pixels) for part, pixels in zip(parts, self._read(parts), strict=True)]
            mean, std = (torch.cat(parts).to(torch.bfloat16) for parts in zip(*encoded, strict=True))
            what = f"the latents of class {self.images.classes[label]!r}"
            save_finite({"mean": mean, "std": std}, scratch / "latents.safetensors", what)

        return self.store.once(shard, make)

    def _read(self, parts: Sequence[Ints]) -> Iterator[Pixels]:
        """The pixels of each part, read while the part before it is encoded."""
        return one_ahead(lambda part: load_pixels(self.images, part, self.codec.size, self.preprocess), parts)

    def _encode(self, indices: Ints, pixels: Pixels) -> tuple[Tensor, Tensor]:
        try:
            return self.codec.encode(to_float(pixels))
        except NotFinite as error:
            names = [self.images.name(int(indices[row])) for row in error.rows[:1]]
            raise NotFinite(f"encoding {', '.join(names)}: {error}") from error
