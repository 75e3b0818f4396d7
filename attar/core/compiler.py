"""What `torch.compile` needs beside torch."""

from __future__ import annotations

import os
import shutil
import sys

import torch
from torch import nn

from attar.core.errors import AttarError

MOST = 256
"""Kinds of calls that a process compiles: of each network, for each size of a batch, to train and to test. torch's own
limit is 8 of all networks together; what comes after that is run as it is, slower and to other last bits."""


def compile_network(network: nn.Module) -> None:
    """Compiles a network, for each size of a batch by itself, whatever the process has compiled before."""
    torch._dynamo.config.recompile_limit = MOST
    network.compile(dynamic=False)


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
