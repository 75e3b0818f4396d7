"""Training a teacher: a short recipe after the CIFAR speed runs, resumable, written as a folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from attar.core.arguments import checked
from attar.core.batching import device_class, fills, resolve
from attar.core.errors import AttarError
from attar.core.flops import counted_flops
from attar.core.limits import IN_MEMORY
from attar.core.processes import launched
from attar.core.progress import Progress, Say, about, silent, timed_on
from attar.core.rng import seed_of
from attar.core.store import Artefact, Store, canonical, file_digest, write_json
from attar.core.tracking import begin_tracking, note
from attar.core.wording import counted, size
from attar.data import ImageSet, load_data, looked_at, readable_parts, still_to_look_at, usual_side
from attar.data.decoded import decoded, pixel_bytes
from attar.data.output_places import UNSURE, check_place, own_record
from attar.networks import build, check_size
from attar.priors.folder import publish
from attar.teachers.load import checked_weights, load_pretrained
from attar.teachers.record import RECORD, read_record
from attar.teachers.settings import TeacherTraining
from attar.teachers.teacher import Pretrained
from attar.training import DeviceImages, Plan, Step, memory_kept, placed, top1, train
from attar.training.augment import STATISTICS, Augmentation, apply, arithmetic, draw
from attar.training.checkpoint import Checkpoint
from attar.training.memory import COPIES, ON_THE_WAY, kept_for_gradient
from attar.training.meters import Tally
from attar.training.processes import accelerator, as_main_finds, check_shared, is_main, once_together, processes

USUAL, SMALL = "airbench-w32", "convnet3-bn-w48"
"""The networks that teach unless one is named: SMALL for images below 32 pixels."""
STEP = 3
"""Passes that a step of training takes, about."""
Set = tuple[DeviceImages, Tensor]
"""Images in uint8, for the device, and labels (N,) on it."""


@dataclass(eq=False)
class _Bench:
    """What a training works with."""

    spec: TeacherTraining
    """Once made, with the network and the learning rate settled, for the key and the record."""
    progress: Progress
    store: Store
    dry: bool = False
    """Whether some of the images are looked at in the place of all."""
    images: tuple[ImageSet, ImageSet] = field(init=False)
    """The images to train on, and the fixed tenth."""
    looking: str = field(init=False)
    """What of the images is still to be looked at, in words."""

    def __post_init__(self) -> None:
        spec = self.spec
        images = load_data(spec.data)
        self.looking = still_to_look_at(looked_at(images, spec.on_bad_image), self.store) if self.dry else ""
        self.images = readable_parts(images, spec.on_bad_image, self.store, self.progress, self.dry)
        self.size = usual_side(self.images[0]) if self.spec.size is None else self.spec.size
        self.name = self.spec.network or (USUAL if self.size >= 32 else SMALL)
        self.lr = self.spec.lr or (0.05 if self.name.startswith("convnet") else 0.25)
        self.spec = replace(self.spec, network=self.name, lr=self.lr)
        self.device, dtype = resolve(self.spec.device, "auto")
        self.bfloat16 = dtype == torch.bfloat16
        self.helper = accelerator(self.spec.device, "auto") if launched() > 1 else None
        if self.helper is not None:
            self.device = self.helper.device
        check_shared(self.spec.batch, self.helper)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.images[0].classes

    @property
    def in_epoch(self) -> int:
        """Steps in an epoch."""
        return max(1, len(self.images[0]) // self.spec.batch)

    @property
    def steps(self) -> int:
        return self.spec.epochs * self.in_epoch

    @property
    def look_every(self) -> int:
        """Steps between two looks at the images held out, where the training may end early."""
        return max(1, self.in_epoch // 4)

    @cached_property
    def artefact(self) -> Artefact:
        settings = canonical(replace(self.spec, data="", test=None, device="", size=self.size))
        if self.spec.stop_at is None:
            del settings["stop_at"]
        inputs: dict[str, Any] = {"settings": settings}
        inputs |= {"images": self.images[0].identities, "held out": self.images[1].identities}
        inputs |= {"crops": "antialiased"} if self.spec.crop else {}
        inputs |= {"processes": processes(self.helper)} if self.helper is not None else {}
        inputs |= {"dtype": "bfloat16"} if self.bfloat16 and self.device.type == "cpu" else {}  # a GPU's all are
        inputs |= {"device": device_class(self.device), "torch": torch.__version__}
        return Artefact("teacher", inputs | arithmetic(self.augmentation, self.device))

    def opened(self, images: ImageSet) -> Set:
        pixels = decoded(images, self.size, self.spec.preprocess, self.store, self.progress)
        return placed(pixels, self.device), torch.tensor(images.labels, device=self.device)

    def network(self) -> nn.Module:
        network = build(self.name, len(self.classes), self.size, seed_of(self.spec.seed, "teacher"))
        return network.to(self.device).to(memory_format=torch.channels_last)

    @property
    def augmentation(self) -> Augmentation:
        spec = self.spec
        return Augmentation(self.size, crop=spec.crop, shift=spec.shift, flip=spec.flip, normalise=spec.normalise)

    def plan(self, steps: int) -> Plan:
        spec = self.spec
        return Plan(
            steps=steps,
            batch=spec.batch,
            lr=self.lr,
            momentum=spec.momentum,
            nesterov=True,
            weight_decay=spec.weight_decay,
            decay_vectors=False,
            schedule="triangle",
            label_smoothing=spec.label_smoothing,
            precision="bfloat16" if self.bfloat16 else "float32",
        )


@checked
def train_teacher(
    spec: TeacherTraining,
    out: Path,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = print,
    dry_run: bool = False,
) -> None:
    """Trains a teacher on nine tenths of the data and writes its folder; run again, it goes on where it was.

    The folder holds model.safetensors, and teacher.json with the classes in order, the images' size and statistics,
    the accuracy on the fixed tenth, and after how many steps the training was stopped early, if it was. A teacher that
    is there already is tested where `spec.test` asks for more.

    Raises:
        AttarError: any input is wrong, or `out` holds something else; before any long work.
    """
    check_place(out, "`out`", [spec.data, spec.test])
    bench = _Bench(spec, progress, store or Store(), dry_run)
    check_size(bench.name, len(bench.classes), bench.size)
    tests = _test_images(bench)
    earlier = _earlier(out, bench.artefact.key, sure=not bench.looking)
    if finished := _finished(bench, earlier, tests):
        say(f"{out} {finished}")
        return
    done = "tested" if earlier else "copied" if bench.store.has(bench.artefact) else None
    say(_estimate(bench) if done is None else f"trained already: it is only {done}")
    if dry_run:
        return
    begin_tracking()
    made = out if earlier else _made(bench)
    if not is_main(bench.helper):
        return
    record = {**read_record(made), **_tested(bench, made, tests)}
    if earlier:
        write_json(out / RECORD, record)
    else:
        publish(made, out, {RECORD: {**record, "seconds": bench.store.seconds(bench.artefact)}})
    say(f"wrote {out.resolve()}: {bench.name}, {_accuracies(record, spec.test)}{_ended(record)}")


def before_training(spec: TeacherTraining, store: Store, progress: Progress, dry: bool) -> tuple[Pretrained, str]:
    """The network of a teacher before its training, and the key of the teacher that it will be.

    Raises:
        AttarError: any input is wrong.
    """
    bench = _Bench(spec, progress, store, dry)
    mean, std = STATISTICS[spec.normalise]
    classes, network = bench.classes, bench.network().cpu().eval()
    return Pretrained("untrained", network, classes, bench.size, mean, std, len(classes)), bench.artefact.key


def _made(bench: _Bench) -> Path:
    """Where the teacher lies in the store; it is trained where it is not there."""
    return once_together(bench.store, bench.artefact, bench.helper, partial(_make, bench), partial(_train, bench))


def _test_images(bench: _Bench) -> ImageSet | None:
    """The test images, in the order of the teacher's classes; None where it is not tested."""
    spec = bench.spec
    if spec.test is None:
        return None
    tests = load_data(spec.test).restricted(bench.classes)
    if tests.classes != bench.classes:
        raise AttarError(f"`test` {spec.test}: its classes are in another order than those of {spec.data}")
    return tests


def _accuracies(record: dict[str, Any], test: str | None) -> str:
    """What the record says of how good the teacher is, in words."""
    words = {"held_out": "images held out", "test": f"images of {test}"}
    return ", ".join(
        f"{record[name]['accuracy']:.2f} % on {record[name]['images']:,} {images}"
        for name, images in words.items()
        if name in record
    )


def _ended(record: dict[str, Any]) -> str:
    """When a training ended that could end early, in words."""
    stop_at, steps = record["settings"].get("stop_at"), record.get("stopped", {})
    if stop_at is None:
        return ""
    if not steps:
        return f"; it never reached {100 * stop_at:g} %, and was trained to the end"
    return f"; stopped after {steps['step']:,} of {steps['of']:,} steps"


def _earlier(out: Path, key: str, sure: bool) -> dict[str, Any]:
    """The record of the teacher of this key in `out`, {} where nothing is; raises AttarError for anything else."""
    record = own_record(out, RECORD, key, "teacher", sure) or {}
    if record:
        checked_weights(out, record)
    return record


def _finished(bench: _Bench, earlier: dict[str, Any], tests: ImageSet | None) -> str:
    """Why nothing is to be done where a teacher was written earlier, in words; nothing where something is."""
    if earlier and earlier["key"] != bench.artefact.key:
        return UNSURE
    tested = tests is None or earlier.get("test", {}).get("data") == bench.spec.test
    return "is already there, and is this teacher: nothing to do" if earlier and tested else ""


def _tested(bench: _Bench, folder: Path, held: ImageSet | None) -> dict[str, Any]:
    """What the record says of the teacher in `folder` on test images: nothing, where there are none."""
    if held is None:
        return {}
    network = load_pretrained(str(folder), None, len(bench.classes), bench.size).network.to(bench.device)
    return {"test": {"data": bench.spec.test, **_accuracy(bench, network, held)}}


def _train(bench: _Bench, scratch: Path) -> tuple[nn.Module, int | None]:
    """The trained network, and the step that the training was ended after, if it ended early."""
    network = bench.network()
    plan, how = bench.plan(bench.steps), bench.augmentation

    def show(text: str, fraction: float) -> None:
        bench.progress(f"training {bench.name}, {text}", fraction)

    images, labels = bench.opened(bench.images[0])
    key, after = (bench.spec.seed, "teacher"), _After(bench, network, Tally(show, "step"))
    checkpoint = Checkpoint(scratch, helper=bench.helper)
    train(network, images, labels, plan, how, *key, after=after, checkpoint=checkpoint)
    return network, after.stopped


def _make(bench: _Bench, scratch: Path) -> None:
    network, stopped = _train(bench, scratch)
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if not all(value.isfinite().all() for value in state.values()):
        raise AttarError(f"the training diverged, to weights that are not finite numbers: lower lr = {bench.lr}")
    save_file(state, scratch / "model.safetensors")
    mean, std = STATISTICS[bench.spec.normalise]
    held_out = _accuracy(bench, network, bench.images[1])
    record = {
        "network": bench.name,
        "classes": list(bench.classes),
        "size": bench.size,
        "mean": list(mean),
        "std": list(std),
        "weights": file_digest(scratch / "model.safetensors"),
        "held_out": held_out,
        "images": len(bench.images[0]),
        "settings": asdict(bench.spec),
        "device": device_class(bench.device),
        "key": bench.artefact.key,
    }
    record |= {} if stopped is None else {"stopped": {"step": stopped, "of": bench.steps}}
    write_json(scratch / RECORD, record)
    note(bench.steps if stopped is None else stopped, held_out_accuracy=held_out["accuracy"])


@dataclass(eq=False)
class _After:
    """What is done after each step: a report; a look at the images held out, where the training may end early."""

    bench: _Bench
    network: nn.Module
    tally: Tally
    stopped: int | None = None
    """The step that the training was ended after."""

    def __call__(self, step: Step) -> bool:
        """Whether the training has come far enough."""
        self.tally.add(step)
        stop_at, total = self.bench.spec.stop_at, self.bench.steps
        if stop_at is None or (step.done % self.bench.look_every and step.done < total):
            return False
        images, labels = self.held_out
        accuracy = top1(self.network, images, labels, self.bench.spec.normalise)
        note(step.done, held_out_accuracy=accuracy)
        reached = accuracy >= 100 * stop_at
        if not as_main_finds(reached, self.bench.helper):
            return False
        self.stopped = step.done
        return True

    @cached_property
    def held_out(self) -> Set:
        return self.bench.opened(self.bench.images[1])


def _accuracy(bench: _Bench, network: nn.Module, images: ImageSet) -> dict[str, Any]:
    pixels, labels = bench.opened(images)
    return {"accuracy": top1(network, pixels, labels, bench.spec.normalise), "images": len(labels)}


def _estimate(bench: _Bench) -> str:
    """What is about to be done, and about how long it takes here: steps of as many rows as fill a CPU are timed."""
    spec, network = bench.spec, bench.network()
    batch = spec.batch // processes(bench.helper)
    rows = _rows(bench, network, batch)
    images = torch.zeros((rows, 3, bench.size, bench.size), device=bench.device)
    images = images.contiguous(memory_format=torch.channels_last)

    how = bench.augmentation
    pixels = torch.zeros((rows, bench.size, bench.size, 3), dtype=torch.uint8, device=bench.device)

    def step() -> None:
        apply(pixels, draw(how, rows, "estimate"), how)
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=bench.bfloat16):
            loss = network(images).float().sum()
        loss.backward()

    with memory_kept():
        seconds = bench.steps * timed_on(step, bench.device) * batch / rows
    train_images, held = bench.images
    taken, early = about(seconds), ""
    if spec.stop_at is not None:
        looks = counted(bench.look_every, "step")
        taken = f"at most {taken}"
        early = f"; it ends when {100 * spec.stop_at:g} % of those held out are right, looked at every {looks}"
    size_of = sum(p.numel() for p in network.parameters())
    return (
        f"{counted(len(train_images), 'image')} of {counted(len(bench.classes), 'class')}, {len(held):,} held out; "
        f"{bench.name}, {size_of:,} parameters; {spec.epochs} epochs, {bench.steps:,} steps of "
        f"{spec.batch}: {taken} on {device_class(bench.device)}, {_room(bench, network)}{bench.looking}{early}"
    )


def _rows(bench: _Bench, network: nn.Module, most: int) -> int:
    """As many rows as fill a CPU forth and back, two or more and at most `most`; of a GPU these."""
    pair = torch.zeros(2, 3, bench.size, bench.size)
    filled = fills(bench.device, lambda: STEP * counted_flops(lambda: network(pair)) // 2)
    return min(most, max(2, filled or most))


def _room(bench: _Bench, network: nn.Module) -> str:
    """What the training takes of memory, and of the disk where it maps its images from there, in words."""
    row = torch.zeros(2, 3, bench.size, bench.size, device=bench.device)
    kept = bench.spec.batch // processes(bench.helper) * kept_for_gradient(lambda: network(row), rows=2)
    weights = COPIES * sum(p.numel() * p.element_size() for p in network.parameters())
    pixels = [pixel_bytes(images, bench.size) for images in bench.images]
    held = sum(count for count in pixels if count <= IN_MEMORY)
    mapped = sum(pixels) - held
    disk = f", {size(mapped)} of disk for decoded images" if mapped else ""
    return f"in about {size(weights + ON_THE_WAY * kept + held)} of memory{disk}"
