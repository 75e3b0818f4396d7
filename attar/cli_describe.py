"""The command `attar describe-prior`, and the flags that it shares with `attar distill`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Prior = Annotated[
    str | None,
    typer.Option(
        help="The diffusion model: [bold]digits[/bold], a DiTPipeline folder or hub id, or an original DiT.pt"
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(
        help="Instead of the prior's own: pixel, or a folder or hub id of an AutoencoderKL or AutoencoderTiny"
    ),
]
ClassMap = Annotated[
    Path | None,
    typer.Option(help="TOML or JSON table: data class = class name or label of the prior; the others match by name"),
]


@app.command("describe-prior")
def describe_prior(
    source: Annotated[str, typer.Argument(help="As --prior of `attar distill`")],
    data: Annotated[str | None, typer.Option(help="Images: show which of the prior's classes theirs are")] = None,
    codec: Codec = None,
    class_map: ClassMap = None,
) -> None:
    """Show a prior: size, latents, codec, schedule, conventions, classes, and how the data's classes match."""
    from attar.bar import bar, lines
    from attar.data import load_data
    from attar.priors import load_prior
    from attar.priors.classes import read_class_map
    from attar.priors.describe import described, described_match

    images = None if data is None else load_data(data)
    mapping = None if class_map is None else read_class_map(class_map)
    with bar() if sys.stderr.isatty() else lines() as progress:
        prior = load_prior(source, device="cpu", tile=1, codec=codec, progress=progress)
    print(described(prior), flush=True)
    if images is not None:
        print(described_match(prior, images.classes, mapping), flush=True)
