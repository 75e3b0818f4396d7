"""One run in this process, whatever it is, and what its sampling steps take.

    python -m benchmarks.steps FILE attar distill ...             # a command of Attar
    python -m benchmarks.steps FILE diffusers FOLDER CLASS ...    # the plain pipeline, an image of each class

FILE then holds seconds of the processor a step and image, a number for each step.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

STEPS = 2
"""Of the plain pipeline."""


class Clock:
    """Seconds of the processor between its ticks, for each of some images."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.images, self.last = 1, 0.0

    def begin(self, images: int) -> None:
        """A walk of this many images begins."""
        self.images, self.last = images, time.process_time()

    def tick(self) -> None:
        """A step of it is done."""
        now = time.process_time()
        self.found.append((now - self.last) / self.images)
        self.last = now


def of_attar(words: Sequence[str]) -> list[float]:
    """Steps of a command: those that starts are denoised in, their guide's part included."""
    from attar import cli
    from attar.distillation import denoising

    clock, denoise = Clock(), denoising.denoise

    def timed(denoiser: Any, z: Any, t: int, y: Any, sampler: Any, step: Callable[[int], None], *others: Any) -> Any:
        def ticking(time: int) -> None:
            clock.tick()
            step(time)

        clock.begin(len(z))
        return denoise(denoiser, z, t, y, sampler, ticking, *others)

    denoising.denoise = timed
    sys.argv = ["attar", *words]
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        denoising.denoise = denoise
    return clock.found


def of_diffusers(folder: str, classes: Sequence[str]) -> list[float]:
    """Steps of the plain pipeline, in bfloat16, with its own guidance and scheduler."""
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    clock, step, set_timesteps = Clock(), pipe.scheduler.step, pipe.scheduler.set_timesteps

    def begun(*given: Any, **named: Any) -> None:
        set_timesteps(*given, **named)
        clock.begin(len(classes))

    def stepped(*given: Any, **named: Any) -> Any:
        made = step(*given, **named)
        clock.tick()
        return made

    pipe.scheduler.set_timesteps, pipe.scheduler.step = begun, stepped
    told = {"prompt": list(classes)} if hasattr(pipe, "tokenizer") else {"class_labels": pipe.get_label_ids(classes)}
    torch.manual_seed(0)
    pipe(**told, num_inference_steps=STEPS)
    return clock.found


def main() -> None:
    file, who, *words = sys.argv[1:]
    ways = {"attar": partial(of_attar, words), "diffusers": partial(of_diffusers, words[0], words[1:])}
    Path(file).write_text(json.dumps(ways[who]()))


if __name__ == "__main__":
    main()
