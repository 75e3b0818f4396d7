"""What `torch.compile` needs beside torch."""

from __future__ import annotations

import os
import shutil
import sys

import torch

from attar.core.errors import AttarError


def check_compiler(device: torch.device) -> None:
    """Looks for the C++ compiler that torch.compile calls for a CPU: that of the variable CXX, else g++ or clang++.

    Raises:
        AttarError: there is none.
    """
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(name) is None:
        raise AttarError(
            f"`compile` needs the C++ compiler {name}, which is not here: install it, name another one in the variable "
            "CXX, or leave `compile` out"
        )
