"""What the commands share: flags, TOML and how progress is shown."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attar.cli import ending
from attar.core.config import parsed
from attar.core.errors import AttarError, reason, suggestion
from attar.core.limits import IPC, check_most

if TYPE_CHECKING:
    from attar.core.progress import Progress
    from attar.job import Spec

DATA_HELP = (
    "The images: digits, parquet:PATH (Hugging Face layout), imagefolder:PATH or just PATH, hf:REPO, "
    "torchvision:NAME; @SPLIT names a split"
)

Prior = Annotated[
    str | None,
    typer.Option(
        help="The diffusion model: digits, a DiTPipeline or StableDiffusionPipeline folder or hub id, "
        "or an original DiT.pt"
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

Prompt = Annotated[
    str | None,
    typer.Option(help="Stable Diffusion: what it is told of a class, {name} being its name (default '{name}')"),
]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompts", help="Stable Diffusion: TOML or JSON table, class name = prompt, instead of --prompt"),
]
NegativePrompt = Annotated[
    str | None,
    typer.Option(help="Stable Diffusion: what no image shall be (default 'cartoon, anime, painting', as in D4M)"),
]

Seed = Annotated[int | None, typer.Option(help="Seed of all randomness (default 0)")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--set", help="A field of the method: --set sampler.steps=20 (`attar describe METHOD` lists them)"),
]
Classes = Annotated[
    str | None, typer.Option(help="Only these classes, by name: cat,dog; or an ImageNet subset: imagewoof")
]
ImbalanceFactor = Annotated[
    float | None, typer.Option(help="Take a long-tailed view: the largest class over the smallest")
]
Preprocess = Annotated[
    str | None, typer.Option(help="How images are brought to the prior's size: adm (default), resize-crop, squash")
]
OutputSize = Annotated[int | None, typer.Option(help="Save images at this size, in pixels; default: the prior's own")]
OutputFilter = Annotated[
    str | None, typer.Option(help="How they are brought to --output-size: lanczos (default), bicubic")
]
Device = Annotated[str | None, typer.Option(help="auto (default), cpu, cuda, cuda:1, mps")]
Dtype = Annotated[str | None, typer.Option(help="auto (default), float32, bfloat16, float16")]
Tile = Annotated[int | None, typer.Option(help="Images in one network call; found by probing if not given")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, and stop")]
OnBadImage = Annotated[str | None, typer.Option(help="What to do with unreadable images: error (default), skip")]


def say(text: str) -> None:
    """A line for the user."""
    print(text, flush=True)


@contextmanager
def showing() -> Iterator[Progress]:
    """A progress bar with the remaining time on a terminal; elsewhere a line every ten seconds."""
    from attar.core.progress import bar, lines

    with bar() if sys.stderr.isatty() else lines() as progress:

        def show(text: str, fraction: float) -> None:
            ending.running.stage = text
            progress(text, fraction)

        yield show


def merged(flags: dict[str, Any], config: Path | None) -> dict[str, Any]:
    """The flags that were given, and below them what the TOML says.

    Raises:
        AttarError: a file that cannot be read, or a key that is no flag.
    """
    given = {
        name: str(value) if isinstance(value, Path) else value for name, value in flags.items() if value is not None
    }
    if config is None:
        return given
    try:
        written = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise AttarError(f"--config {config} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise AttarError(f"--config {config} is not TOML: {error}") from error
    written = {name.replace("-", "_"): value for name, value in written.items()}
    known = [*flags, "set"]
    unknown = [name + suggestion(name, known) for name in sorted(set(written) - set(known))]
    if unknown:
        raise AttarError(f"--config {config}: unknown key {', '.join(unknown)}; known: {', '.join(known)}")
    if not isinstance(written.get("set", {}), dict):
        raise AttarError(f"--config {config}: set must be a table, [set]")
    for name in ("data", "prior", "method", "out", "codec"):
        if not isinstance(written.get(name, ""), str):
            raise AttarError(f"--config {config}: {name} = {written[name]!r} must be a text")
    ending.running.options["out"] = given.get("out", written.get("out"))
    return {**written, **given}


def assignments(pairs: list[str], flag: str = "--set") -> dict[str, str]:
    """`field=value` words as a dictionary."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise AttarError(f"{flag} {pair}: write it as field=value")
        found[name.strip()] = value.strip()
    return found


def spec_of(settings: dict[str, Any], command: str) -> Spec:
    """The job that flags ask for: data, prior, classes, seed ..."""
    from attar.core.config import changed
    from attar.job import Spec

    own = dict(settings)
    if "classes" in own:
        own["classes"] = tuple(name.strip() for name in _names(own["classes"]))
    return changed(Spec(data=own.pop("data")), own, command)


def _names(value: Any) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise AttarError(f"classes = {value!r}: names, as a,b or as a list")
    return names


def ipcs_of(value: Any) -> list[int]:
    """Images per class, as `--ipc` gives them."""
    found = numbers(value, "--ipc")
    if min(found) < 1:
        raise AttarError(f"--ipc {min(found)}: the number of images per class must be 1 or more")
    check_most("--ipc", max(found), IPC)
    return found


def numbers(value: Any, flag: str) -> list[int]:
    """`1,10` or a list as whole numbers."""
    items = value if isinstance(value, list) else str(value).split(",")
    try:
        found = [parsed(item, int, flag) for item in items]
    except AttarError as error:
        raise AttarError(f"{flag} {value}: whole numbers, separated by commas") from error
    if not found:
        raise AttarError(f"{flag}: at least one number")
    return found
