"""Files of weights that are cut short or damaged, named."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from attar.core.files import expand_user


def damaged_weights(source: str | Path) -> str:
    """Which safetensors file of a folder, or the file itself, cannot be read, and what to do; "" where none is."""
    place = expand_user(source)
    for file in sorted(place.rglob("*.safetensors")) if place.is_dir() else [place]:
        if file.suffix != ".safetensors" or not file.is_file():
            continue
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{file}: is cut short or damaged ({error}); copy or download it again"
    return ""
