"""A training of a prior, monitored: samples, the loss, and a small held-out measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from attar.core.files import read_lines, replacing, resumed, write_lines
from attar.core.progress import Progress, silent
from attar.core.rng import noise
from attar.core.tracking import note
from attar.diffusion import CHECKPOINT, Sampler, Schedule, in_two_calls, sample, sampling_times
from attar.priors.codec import Codec, to_uint8
from attar.priors.training.best import Best
from attar.priors.training.settings import Report

if TYPE_CHECKING:
    from attar.priors.training.lesson import Lesson
    from attar.priors.training.optimise import TrainingState
    from attar.priors.training.sample_quality import Classifier

COLUMNS, MOST_ROWS = 8, 20
SAMPLED = 100
"""Images that are sampled at once."""


@dataclass(eq=False)
class Monitor:
    """Writes samples/, measures.jsonl, losses.jsonl and loss.png into a folder while a network is trained."""

    folder: Path
    report: Report
    total: int
    """Steps of the training."""
    network: nn.Module
    """Called with latents, times and labels."""
    parameters: Sequence[nn.Parameter]
    """The parameters that are trained."""
    schedule: Schedule
    codec: Codec
    classes: Sequence[str]
    classifier: Classifier
    lesson: Lesson | None
    """What a linear classifier learns from samples; None where none can be had."""
    taught_real: float | None
    """What it learns from as many random real images."""
    device: torch.device
    seed: int
    progress: Progress = silent
    best: Best | None = None
    """The best average so far, where that is what is kept."""

    def __call__(self, moment: TrainingState) -> None:
        """Draws and measures samples, if it is time to."""
        if moment.step % self.report.interval(self.total) and moment.step != self.total:
            return
        with holding(self.parameters, moment.average):
            shown = self._samples(range(min(len(self.classes), MOST_ROWS)), COLUMNS)
            labels = [label % len(self.classes) for label in range(self.report.samples)]
            measured = self._sampled(labels, noise((self.report.samples, *self.codec.shape), self.seed, "measured"))
        save_grid(self.folder / "samples" / f"step-{moment.step:07d}.png", shown, COLUMNS)
        record = {"step": moment.step, **self._measured(torch.from_numpy(to_uint8(measured)), torch.tensor(labels))}
        note(moment.step, sample_accuracy=record["accuracy"], frechet=record["frechet"])
        record |= self._terms
        if self.best is not None:
            self.best.offer(record, moment.average)
        self._write(moment.curve, record)

    def _measured(self, pixels: Tensor, labels: Tensor) -> dict[str, float]:
        accuracy, distance = self.classifier(pixels, labels)
        taught = {} if self.lesson is None else {"taught": self.lesson(pixels, labels)}
        return {"accuracy": round(accuracy, 2), "frechet": round(distance, 4), **taught}

    @property
    def _terms(self) -> dict[str, Any]:
        """What samples are measured by: another start may have other terms."""
        report = self.report
        return {"samples": report.samples, "guidance": report.guidance, "steps": report.steps}

    def measures(self) -> dict[str, Any]:
        """The measure of the average that is kept, with its terms; where that is the best, beside the last's."""
        measured = last = read_lines(self.folder / "measures.jsonl")[-1]
        if self.best is not None:
            measured = {**self.best.record, **{f"last_{name}": last[name] for name in ("step", "accuracy", "frechet")}}
        classifier = self.classifier
        real = {"held_out": len(classifier.features), "accuracy_real": round(classifier.accuracy_real, 2)}
        real |= {} if self.taught_real is None else {"taught_real": self.taught_real}
        return {**self._terms, **measured, **real, "frechet_real": round(classifier.frechet_real, 4)}

    def _samples(self, labels: Sequence[int], columns: int) -> Tensor:
        z = [noise(self.codec.shape, self.seed, "shown", self.classes[c], i) for c in labels for i in range(columns)]
        return self._sampled([label for label in labels for _ in range(columns)], torch.stack(z))

    def _sampled(self, labels: Sequence[int], z: Tensor, batch: int = SAMPLED) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] of prior labels, from noise (N, C, h, w)."""
        solver = CHECKPOINT if self.schedule.straight else "ddim"
        sampler = Sampler(solver, steps=self.report.steps, guidance=self.report.guidance)
        denoiser = NetworkDenoiser(self.schedule, len(self.classes), self.network, self.device)
        start = sampling_times(sampler, denoiser)[-1]
        images = []
        for begin in range(0, len(z), batch):
            self.progress("sampling, to see how far it is", begin / len(z))
            y = torch.tensor(labels[begin : begin + batch], device=self.device)
            images.append(
                self.codec.decode(sample(denoiser, z[begin : begin + batch].to(self.device), start, y, sampler))
            )
        return torch.cat(images).cpu()

    def _write(self, curve: list[tuple[int, float]], record: dict[str, Any]) -> None:
        file = self.folder / "measures.jsonl"
        earlier = [line for line in resumed(file, read_lines) or [] if line["step"] < record["step"]]
        write_lines(file, [*earlier, record])
        write_lines(self.folder / "losses.jsonl", [{"step": step, "loss": round(loss, 6)} for step, loss in curve])
        kept = None if self.best is None else self.best.record["step"]
        draw_curve(self.folder / "loss.png", curve, [*earlier, record], kept)


def shown_images(classes: int) -> int:
    """The images of a grid of samples, a row for each class."""
    return COLUMNS * min(classes, MOST_ROWS)


@dataclass(frozen=True, eq=False)
class NetworkDenoiser:
    """A network in training, as a denoiser that can be sampled."""

    schedule: Schedule
    null: int
    network: nn.Module
    device: torch.device
    dtype: torch.dtype = torch.float32

    def __call__(self, z: Tensor, t: int, y: Tensor) -> Tensor:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output: Tensor = self.network(z, torch.full((len(z),), t, device=self.device), y)
        return output.float()

    def both(self, z: Tensor, t: int, y: Tensor) -> tuple[Tensor, Tensor]:
        return in_two_calls(self, z, t, y)


@contextmanager
def holding(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """Within it the parameters have other values."""
    own = [parameter.detach().clone() for parameter in parameters]
    try:
        set_to(parameters, values)
        yield
    finally:
        set_to(parameters, own)


def set_to(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Gives parameters other values, wherever these lie."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)


def save_grid(file: Path, images: Tensor, columns: int) -> None:
    """Images (N, 3, H, W) in [-1, 1] as a PNG, `columns` a row."""
    sheet = make_grid(images, nrow=columns, padding=max(1, images.shape[-1] // 16), pad_value=1.0)
    with replacing(file) as temporary:
        Image.fromarray(to_uint8(sheet[None])[0]).save(temporary, format="PNG")


def draw_curve(
    file: Path, curve: Sequence[tuple[int, float]], measures: Sequence[dict[str, Any]], kept: int | None = None
) -> None:
    """The loss, and below it the measures, against the steps, as a PNG; the step of the best average is marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    loss.plot(*zip(*curve, strict=True)) if curve else None
    loss.set(ylabel="loss", yscale="log")
    steps = [record["step"] for record in measures]
    accuracy.plot(steps, [record["accuracy"] for record in measures], "o-", label="accuracy, %")
    accuracy.set(xlabel="step", ylabel="samples given their class, %")
    if kept is not None:
        accuracy.axvline(kept, color="tab:green", linestyle=":")
        accuracy.annotate("kept", (kept, 1), xycoords=("data", "axes fraction"), va="top", color="tab:green")
    distance = accuracy.twinx()
    distance.plot(steps, [record["frechet"] for record in measures], "s--", color="tab:orange")
    distance.set(ylabel="Frechet distance (dashed)")
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
