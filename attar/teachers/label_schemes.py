"""How a teacher's logits are stored: as they are, in a few bits, or only the largest. Importing this loads no torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from attar.core.errors import AttarError, suggestion

if TYPE_CHECKING:
    from torch import Tensor

BITS = {"fp16": 16, "int8": 8, "int4": 4}
FIXED = "fixed"
"""Names of schemes that begin so store one label an image, for all of its views: fixed (in fp16), fixed-int8 ..."""
LEFT_OUT: Literal["none"] = "none"
"""In the place of a temperature: labels are best left out, and the classes learnt alone."""
_NAME = re.compile(rf"(?:{FIXED}-)?(?:top([1-9][0-9]*)-)?(fp16|int8|int4)")


def is_temperature(value: object) -> bool:
    """Whether this is a temperature of fixed labels as files hold it: a number above 0, or `LEFT_OUT`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value == LEFT_OUT
    return 0 < value < math.inf


def is_fixed(name: str) -> bool:
    """Whether the scheme of that name has one label an image."""
    return name.partition("-")[0] == FIXED


@dataclass(frozen=True)
class Scheme:
    """A way to store rows of logits, up to a constant a row, which no softmax sees: the largest of a row becomes 0.

    `fp16`: half precision. `int8` and `int4`: whole multiples of a step, which is the row's range over 255 or 15 and is
    stored with the row. `top5-int8`: the five largest alone, with their classes; the others share evenly what
    probability they had together at the recipe's temperature, as one level a row.
    """

    values: str
    """How a logit is stored: fp16, int8 or int4."""
    top: int | None = None
    """How many logits of a row are stored, the largest; None: all."""

    @classmethod
    def named(cls, name: str) -> Scheme:
        """The scheme of a name such as int8, top5-int8 or fixed.

        Raises:
            AttarError: there is none.
        """
        match = _NAME.fullmatch(f"{FIXED}-fp16" if name == FIXED else name)
        if match is None:
            hint = suggestion(name, ("online", FIXED, *BITS))
            raise AttarError(
                f"scheme {name!r}{hint}: choose online, fp16, int8, int4, or the k largest, as top5-int8; with one "
                "label an image: fixed, or fixed-int8"
            )
        return cls(match[2], int(match[1]) if match[1] else None)

    @property
    def fixed_name(self) -> str:
        """The name of the scheme where there is one label an image."""
        top = "" if self.top is None else f"top{self.top}-"
        return FIXED if (self.values, self.top) == ("fp16", None) else f"{FIXED}-{top}{self.values}"

    def encode(self, logits: Tensor, temperature: float | None = None) -> dict[str, Tensor]:
        """Logits (n, C) as the tensors to store, each with n rows; those of `top` need fewer than C, and a temperature.

        Raises:
            AttarError: logits that are not finite or too far apart, or a `top` of C or more.
        """
        import torch

        if not torch.isfinite(logits).all():
            raise AttarError(
                "the teacher gives logits that are not finite numbers: its weights or its input are broken"
            )
        below = logits.float() - logits.float().amax(1, keepdim=True)
        if self.top is None:
            return self._encoded(below)
        classes = logits.shape[1]
        if self.top >= classes:
            raise AttarError(f"scheme top{self.top}-{self.values}: there are only {classes} classes; use {self.values}")
        assert temperature is not None
        values, which = below.topk(self.top, dim=1)
        others = below.scatter(1, which, -torch.inf)
        rest = temperature * ((others / temperature).exp().sum(1) / (classes - self.top)).log()
        kind = torch.uint8 if classes <= 256 else torch.int16 if classes <= 32768 else torch.int32
        return {**self._encoded(values), "classes": which.to(kind), "rest": rest.half()}

    def decode(self, stored: dict[str, Tensor], classes: int) -> Tensor:
        """Logits (n, classes), float32, from what `encode` gave."""
        if self.top is None:
            return self._decoded(stored, classes)
        every = stored["rest"].float()[:, None].expand(-1, classes)
        return every.scatter(1, stored["classes"].long(), self._decoded(stored, self.top))

    def row_bytes(self, classes: int) -> int:
        """How many bytes a row takes."""
        import torch

        row = self.encode(torch.zeros(1, classes), 1.0)
        return sum(part.numel() * part.element_size() for part in row.values())

    def _encoded(self, below: Tensor) -> dict[str, Tensor]:
        import torch

        if self.values == "fp16":
            return {"values": below.half()}
        most = 2 ** BITS[self.values] - 1
        step = (-below.amin(1) / most * (1 + 2**-10)).clamp(min=2**-14).half()  # rounded up, so that `most` suffices
        if not torch.isfinite(step).all():
            raise AttarError(f"the teacher's logits are too far apart for {self.values}: store them as fp16")
        steps = (below / -step.float()[:, None]).round().clamp(max=most).to(torch.uint8)
        if self.values == "int4":
            steps = torch.nn.functional.pad(steps, (0, steps.shape[1] % 2))
            steps = steps[:, ::2] | steps[:, 1::2] << 4
        return {"values": steps, "step": step}

    def _decoded(self, stored: dict[str, Tensor], width: int) -> Tensor:
        import torch

        values = stored["values"]
        if self.values == "fp16":
            return values.float()
        if self.values == "int4":
            values = torch.stack([values & 15, values >> 4], 2).flatten(1)[:, :width]
        return values.float() * -stored["step"].float()[:, None]


def check_temperature(temperature: float | Literal["auto"] | None, labels: str | None) -> None:
    """Raises AttarError for a temperature that labels cannot have, or that is for none."""
    if temperature is None:
        return
    if labels is None:
        raise AttarError(f"`label_temperature` {temperature}: is of labels: ask for them with `labels` fixed")
    if temperature != "auto" and not 0 < temperature < math.inf:
        raise AttarError(f"`label_temperature` {temperature}: a number above 0, or auto")
    if not is_fixed(labels) or Scheme.named(labels).top is not None:
        raise AttarError(
            f"`label_temperature` {temperature}: is of whole labels, one an image, and these are {labels}: choose "
            "fixed, fixed-int8 or fixed-int4"
        )
