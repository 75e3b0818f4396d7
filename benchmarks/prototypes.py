"""Prototypes of all classes: Attar's extraction beside the loop of D4M's code, on the same images and the same network.

    python benchmarks/prototypes.py parquet:../shared/data/cifar10@train ../shared/priors/cifar10-dit
    python benchmarks/prototypes.py imagefolder:PHOTOS ../shared/priors/cifar10-dit --size 256 --images 32 --rounds 1

The loop encodes the shuffled data in batches of its loader and fits a class's k-means whenever enough of its latents
are there. It keeps no latents, so every IPC encodes all images anew. The two take turns in one process, ours each time
with an empty cache. Time counts from the data on, with the autoencoder loaded; it is processor time, so that other work
on the machine does not count. Of the loop, the text encoder is left out, which it runs for every image to no purpose,
and the U-Net, which it only loads. Memory is that of processes of their own (Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


def network(prior: str, size: int | None) -> Any:
    """The prior's codec, for images of `size` pixels instead of its own if one is given."""
    from attar.priors import load_prior_codec

    codec: Any = load_prior_codec(prior, device="cpu")
    if size is None:
        return codec
    side = size * codec.shape[1] // codec.size
    return replace(codec, size=size, shape=(codec.shape[0], side, side), key=f"{codec.key} at {size}")


def reference(data: str, codec: Any, ipc: int, expand: int, batch: int) -> None:
    """The loop of D4M's code."""
    from sklearn.cluster import MiniBatchKMeans
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor

    images = ImageFolder(data, Compose([Resize((codec.size, codec.size)), ToTensor(), Normalize(0.5, 0.5)]))
    vae = deepcopy(codec.vae).to(memory_format=torch.contiguous_format)
    enough = ipc * expand
    models = [MiniBatchKMeans(n_clusters=ipc, random_state=0, batch_size=enough, n_init="auto") for _ in images.classes]
    latents: list[list[np.ndarray]] = [[] for _ in images.classes]
    with torch.no_grad():
        for pixels, labels in DataLoader(images, batch_size=batch, shuffle=True):
            made = vae.encode(pixels).latent_dist.sample() * codec.scale
            for latent, label in zip(made, labels.tolist(), strict=True):
                latents[label].append(latent.view(1, -1).numpy())
                if len(latents[label]) == enough:
                    models[label].partial_fit(np.vstack(latents[label]))
                    latents[label] = []


def ours(data: str, codec: Any, ipcs: list[int], expand: int) -> list[float]:
    """Attar's fit with an empty cache: the seconds of each IPC, of which the first encodes."""
    from attar.core.store import Store
    from attar.distillation.artefacts import fit_artefact
    from attar.distillation.pipeline import fit_group
    from attar.job import Job, Spec
    from attar.methods.d4m import Prototypes

    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        job = Job(Spec(data=f"imagefolder:{data}", prior="", preprocess="squash", device="cpu"), Store(Path(cache)))
        job.__dict__["codec"] = codec
        for ipc in ipcs:
            begun, fit = time.process_time(), Prototypes(count=ipc, expand=expand)
            for label in job.labels:
                fit_group(job, fit, ([label], fit_artefact(job, fit, [label])))
            seconds.append(time.process_time() - begun)
    return seconds


def peak(function: Callable[..., object], data: str, prior: str, size: int | None, *given: object) -> float:
    """MiB that a run takes above what its loaded network does; call it in a process of its own."""
    codec = network(prior, size)
    codec.encode(torch.zeros(codec.batch_size, 3, codec.size, codec.size))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    function(data, codec, *given)
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """A line of this process's status, in MiB: VmRSS is what it has, VmHWM the most it had."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def save_images(data: str, classes: int, each: int, root: Path) -> str:
    """The first `each` images of some classes as an image folder, repeated where there are fewer."""
    from attar.data import load_data

    images = load_data(data)
    for label, name in enumerate(images.classes[:classes]):
        (root / name).mkdir(parents=True)
        there = images.of_class(label)
        for index in range(each):
            Image.fromarray(np.asarray(images.open(int(there[index % len(there)])))).save(root / name / f"{index}.png")
    return str(root)


def compare(given: argparse.Namespace, ipcs: list[int], data: str) -> None:
    """Times of the two, taking turns."""
    codec = network(given.prior, given.size)
    loop: list[list[float]] = [[] for _ in ipcs]
    fit: list[list[float]] = [[] for _ in ipcs]
    for _ in range(given.rounds):
        for times, ipc in zip(loop, ipcs, strict=True):
            begun = time.process_time()
            reference(data, codec, ipc, given.expand, given.batch)
            times.append(time.process_time() - begun)
        for times, seconds in zip(fit, ours(data, codec, ipcs, given.expand), strict=True):
            times.append(seconds)
    a, b = ([statistics.median(times) for times in of] for of in (loop, fit))
    print(f"{given.images} images of each of {given.classes} classes, median of {given.rounds} rounds")
    for number, ipc in enumerate(ipcs):
        how = "latents cached" if number else "nothing cached"
        ratio = a[number] / b[number]
        print(f"IPC {ipc}: loop {a[number]:.2f} s, ours, {how}, {b[number]:.2f} s: {ratio:.1f} times faster")
    print(f"all of these: loop {sum(a):.2f} s, ours {sum(b):.2f} s: {sum(a) / sum(b):.1f} times faster", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("prior")
    parser.add_argument("--size", type=int, help="pixels, instead of the prior's own: larger images, a slower network")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--images", type=int, default=500, help="images per class")
    parser.add_argument("--ipcs", default="10,50,100,200", help="default: those of the paper's ImageNet-1k tables")
    parser.add_argument("--expand", type=int, default=1)
    parser.add_argument("--batch", type=int, default=10, help="images in a batch of the loop's loader")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="600,2400", help="images per class whose memory is compared; none: 0")
    given = parser.parse_args()
    ipcs = [int(ipc) for ipc in given.ipcs.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        compare(given, ipcs, save_images(given.data, given.classes, given.images, Path(temporary) / "data"))
    for each in filter(None, map(int, given.memory.split(","))):
        with tempfile.TemporaryDirectory() as temporary:
            data = save_images(given.data, 1, each, Path(temporary) / "data")
            runs = {
                "loop": (reference, data, given.prior, given.size, ipcs[0], given.expand, given.batch),
                "ours": (ours, data, given.prior, given.size, ipcs[:1], given.expand),
            }
            with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                found = {who: pool.apply(peak, run) for who, run in runs.items()}
        print(f"{each} images: " + ", ".join(f"{who} {mib:.0f} MiB above the network" for who, mib in found.items()))


if __name__ == "__main__":
    main()
