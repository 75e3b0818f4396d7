"""The plan of a checked run: what it is asked for, its keys, and which of its sets are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attar.core.errors import AttarError
from attar.core.progress import Say
from attar.core.store import Artefact, fingerprint
from attar.core.wording import listed
from attar.data.output_places import UNSURE, occupied
from attar.data.source_contract import shown
from attar.distillation.artefacts import AIMED, Artefacts, artefacts
from attar.distillation.labelling import label_teacher, tried_teacher
from attar.job import Job, Spec
from attar.methods.base import ComposedImages, LatentMethod, Method

if TYPE_CHECKING:
    from attar.teachers.reference import TeacherReference
    from attar.teachers.teacher import Teacher


@dataclass(frozen=True, eq=False)
class RunPlan:
    """A checked run: nothing that can be found wrong beforehand is wrong."""

    job: Job
    """The data, the prior and the store."""
    name: str
    """The method's name."""
    method: Method
    """The method, its fields set."""
    ipcs: tuple[int, ...]
    """Images per class, rising."""
    folders: dict[int, Path]
    """IPC -> the folder of its set."""
    fits: Mapping[int, Artefact] | None = None
    """What was learnt of each class elsewhere; None where this run is to learn it."""

    @property
    def uses_prior(self) -> bool:
        """Whether a prior samples the images, or real ones are chosen by what a prior makes of them."""
        return isinstance(self.method, LatentMethod) or self.method.select.uses_prior(self.job)

    @property
    def generates(self) -> bool:
        """Whether the images are drawn from noise and latents, so that no two can be equal, as real ones may be."""
        return isinstance(self.method, LatentMethod) and self.method.fit.chooses is None

    @cached_property
    def artefacts(self) -> dict[int, Artefacts]:
        """All that the set of each IPC is made from, of a method that samples a prior."""
        assert isinstance(self.method, LatentMethod)
        made = {ipc: self.job.spec.made(ipc) for ipc in self.ipcs}
        return {ipc: artefacts(self.job, self.method.for_ipc(n), n, self.fits) for ipc, n in made.items()}

    @cached_property
    def labeller(self) -> TeacherReference | None:
        """Who labels the images; None where the sets hold no soft labels."""
        return label_teacher(self.job.spec, self.method)

    @cached_property
    def tried_labeller(self) -> Teacher | None:
        """The same, opened and tried."""
        return None if self.labeller is None else tried_teacher(self.job, self.method, self.labeller)

    @property
    def teachers(self) -> list[Teacher]:
        """All teachers that were tried, each once: one that chooses and labels, as it chooses."""
        chosen: list[Teacher] = list(self.job.teachers.values())
        labels = self.labeller not in [reference for reference, _ in self.job.teachers] and self.tried_labeller
        return [*chosen, labels] if labels else chosen

    @property
    def _labelled(self) -> dict[str, str | float]:
        """What keys and manifests hold of the labels; nothing where there are none."""
        spec, teacher = self.job.spec, self.tried_labeller
        if teacher is None:
            return {}
        at = {} if spec.label_temperature is None else {"label_temperature": spec.label_temperature}
        return {"label_scheme": str(spec.labels), "label_teacher": teacher.digest, **at}

    @property
    def fields(self) -> dict[str, Any]:
        """The method's fields, as keys and manifests hold them."""
        return self.job.to_config(self.method)

    def key(self, ipc: int) -> str:
        """The fingerprint of the distilled set of one IPC: of every input and setting, none of the timings."""
        data = [self.job.images.digest(label) for label in self.job.labels]
        job = self.job
        inputs: Any = None
        if self.uses_prior:
            conditions = [job.named_condition(label) for label in job.labels]
            inputs = (job.prior.key, job.codec.key, conditions, job.compute, job.encoding)
            if isinstance(self.method, LatentMethod) and self.method.aims_at_latents:
                inputs = (*inputs, AIMED)
            if self.method.refine is not None and (seen := self.method.refine.inputs(job.spec)):
                inputs = (*inputs, seen)
        elif isinstance(self.method, ComposedImages):
            inputs = self.method.inputs(job)
        spec = (self.job.spec.seed, self.job.spec.preprocess, self.job.spec.output_size, *_unusual(job.spec).values())
        labelled = self._labelled.values()
        return fingerprint(data, self.job.classes, inputs, spec, self.name, self.fields, ipc, *labelled)

    def missing(self, ipcs: Sequence[int], say: Say) -> list[int]:
        """The IPCs whose sets are not there yet.

        Raises:
            AttarError: a folder holds something else, another run's set, or a damaged one.
        """
        return [ipc for ipc in ipcs if not self._is_done(ipc, say)]

    def _is_done(self, ipc: int, say: Say) -> bool:
        from attar.sets.distilled import verify

        folder = self.folders[ipc]
        if not occupied(folder):
            return False
        manifest = set_in(folder)
        if self.uses_prior and (self.job.untrained or self.job.unread or self.job.awaits_prior):
            when = "the prior's weights are read" if self.job.unread else "its prior is trained"
            say(f"{folder} is there; whether this run made it is seen when {when}")
            return True
        if manifest["run"] != self.key(ipc):
            if self.job.half_seen:
                say(f"{folder} {UNSURE}")
                return True
            raise foreign(folder, manifest, self.described(ipc))
        if problems := verify(folder):
            raise AttarError(f"{folder} is damaged ({problems[0]}, {len(problems)} in all); remove it to write it anew")
        say(f"{folder} is already there")
        return True

    def described(self, ipc: int) -> dict[str, Any]:
        """The part of the manifest that says what was asked for: settings and inputs."""
        if isinstance(self.method, ComposedImages):
            return {**self.asked(ipc), "prior": None, "compute": None, "inputs": self.method.inputs(self.job)}
        if not self.uses_prior:
            return {**self.asked(ipc), "prior": None, "compute": None}
        compute = {**self.job.encoding, **self.job.compute, "codec_tile": self.job.codec.batch_size}
        return {**self.asked(ipc), "prior": _prior(self.job), "compute": compute}

    def asked(self, ipc: int) -> dict[str, Any]:
        """The settings and the data, known before the prior is loaded."""
        job = self.job
        return {
            "method": {"name": self.name, **self.fields},
            "ipc": ipc,
            "seed": job.spec.seed,
            "classes": list(job.classes),
            "preprocess": job.spec.preprocess,
            "output_size": job.spec.output_size,
            **_unusual(job.spec),
            "data": job.about_data(),
            **({"keep_statistics": True} if job.spec.keep_statistics else {}),
            **self._labelled,
        }


def _unusual(spec: Spec) -> dict[str, str | int]:
    """The filter of the output size and the formation as keys and manifests hold them; nothing where they are usual."""
    fields = ("output_filter", "formation")
    return {name: getattr(spec, name) for name in fields if getattr(spec, name) != getattr(Spec, name)}


def set_in(folder: Path) -> dict[str, Any]:
    """The manifest of the set in a folder.

    Raises:
        AttarError: the folder holds something else.
    """
    from attar.sets.distilled import open_distilled

    if not folder.is_dir():
        raise AttarError(f"{folder}: is there already, and is no folder; choose another place")
    if not (folder / "manifest.json").is_file():
        others = listed(sorted(shown(child.name) for child in folder.iterdir()), 3)
        raise AttarError(f"`out` {folder}: holds other things ({others}), and no distilled set; name a new folder")
    return open_distilled(folder).manifest


_OF_LABELS = ("label_scheme", "label_teacher", "label_temperature")
RARE = ("formation", "output_filter", "keep_statistics", *_OF_LABELS, "expanded_from")
"""Keys that a manifest has only where they are unusual."""
OF_FORMAT = {f"compute.{name}" for name in ("dtype", "weights", "tile", "codec_tile", "threads")}
"""What differs in a set that was made in another number format, and in nothing else."""


def foreign(folder: Path, manifest: dict[str, Any], here: dict[str, Any]) -> AttarError:
    """The error of a folder that holds the set of another run; it says which settings differ."""
    differing = [name for name in RARE if name in manifest and name not in here]
    differing = [*_differing(manifest, here), *differing] or ["versions"]
    remedy = "choose another `out`"
    if "compute.dtype" in differing and OF_FORMAT.issuperset(differing):
        remedy += f", or go on with it by `dtype` {manifest['compute']['dtype']}"
    return AttarError(f"{folder} belongs to another run (other {' and '.join(differing)}); {remedy}")


def _differing(manifest: Any, here: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings that are not as they are here, those of the method and of its parts each by its own name."""
    names = []
    for name in {**here, **manifest} if prefix else here:
        value, other = here.get(name), manifest.get(name)
        if isinstance(value, dict) and isinstance(other, dict) and other.get("name") == value.get("name"):
            names += _differing(other, value, f"{prefix}{name}.")
        elif other != value:
            names.append(prefix + name)
    return names


def _prior(job: Job) -> dict[str, Any]:
    named, spec = job.prior.classes is not None, job.spec
    files = {"source": spec.prior, "fingerprint": job.prior.key, "codec": job.codec.key, "codec_source": spec.codec}
    if job.prior.prompts is not None:
        asked = {"prompt": spec.prompt, "prompts": spec.prompts, "negative_prompt": job.prior.prompts.negative}
        return {**files, **asked, "told": [job.named_condition(label) for label in job.labels], "matched": "by prompt"}
    return {
        **files,
        "class_map": spec.class_map,
        "labels": job.prior_labels,
        "matched": ("by name" if named else "by position: the prior carries no class names")
        + (", or by the class map" if spec.class_map else ""),
    }
