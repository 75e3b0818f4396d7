"""Random kill -9s of runs of every method on the digits, here and by Ray; each is resumed, and its bytes compared.

    python benchmarks/soak.py --kills 200 --engine local --engine ray

Each run has a cache of its own, with the trained prior in it, and is killed and begun again up to `--each` times, each
time after a random part of the time that the undisturbed one took; then it is let go to its end. With Ray, every other
kill is of a worker, which Ray replaces, and the others are of the command. Prints a line for each run, then how many
sets had the same bytes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from attar.core.store import Store
from attar.job import Job, Spec
from attar.methods import METHODS
from attar.sets.distilled import open_distilled, verify
from attar.teachers.settings import TeacherTraining
from attar.teachers.train import train_teacher

TAUGHT = {"confident": "select.teacher", "rded": "teacher", "cao2": "select.teacher"}
"""Methods that need a teacher, and their field of it."""
REAL = ("random", "herding", "k-center", "medoid", "margin", "confident", "rded")
"""Methods without a prior."""
ALL = ["sampler.steps=10", "sampler.guided_channels=none"]
TUNED = [*ALL, "fit.max_steps=20", "fit.monitor.times=0"]
QUICK = {
    "minimax": TUNED,
    "rsm": TUNED,
    "mgd3": [*ALL, "guide.until=5"],
    "tgdd": [*ALL, "guide.until=5"],
    "igd": [
        *ALL,
        "guide.first=8",
        "guide.last=5",
        "guide.real=4",
        "fit.network=convnet3-w8",
        "fit.epochs=2",
        "fit.kept=1,2",
    ],
    "ot": [*ALL, "guide.first=8", "guide.last=3", "fit.count=7"],
    "dmgd": [*ALL, "guide.first=8", "guide.last=3"],
    "cgs": ALL,
    "dap": ALL,
    "cao2": [*ALL, "refine.steps=5"],
    "d3hr": ["fit.steps=10", "sampler.steps=10", "subsets=1000"],
    "exemplars": ["fit.steps=10", "sampler.steps=10", "fit.time=600"],
    "prior": ["sampler.steps=10"],
    "d4m": ["sampler.steps=10"],
    "d4m-noise": ["sampler.steps=10"],
}


def begun(name: str, engine: str, root: Path, teacher: Path) -> subprocess.Popen[bytes]:
    words = ["distill", "--data", "digits@train", "--classes", "0,1,2,3", "--device", "cpu", "--method", name]
    words += ["--ipc", "1,4", "--out", str(root / "out"), "--engine", engine]
    if name not in REAL:
        words += ["--prior", "digits"]
    settings = [*QUICK.get(name, []), *([f"{TAUGHT[name]}={teacher}"] if name in TAUGHT else [])]
    for setting in settings:
        words += ["--set", setting]
    if engine == "ray":
        words += ["--item-cpus", "1"]
    code = "from attar.cli import main; main()"
    log = (root / "log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "ATTAR_CACHE": str(root / "cache")},
        stdout=log,
        stderr=log,
    )


def fresh(base: Path, root: Path) -> Path:
    shutil.copytree(base, root / "cache")
    return root


def images(root: Path) -> list[dict[str, str]]:
    folders = [root / "out" / f"ipc-{ipc:03d}" for ipc in (1, 4)]
    assert all(verify(folder) == [] for folder in folders), root
    return [open_distilled(folder).manifest["images"] for folder in folders]


def killed(run: subprocess.Popen[bytes], engine: str, number: int) -> str:
    """Kills the command, or one of its workers; returns which, or "nothing" where there is none any more."""
    victim = psutil.Process(run.pid) if run.poll() is None else None
    if victim is not None and engine == "ray" and number % 2:
        workers = [
            each for each in psutil.process_iter(["cmdline"]) if "ray::Worker" in (each.info["cmdline"] or [""])[0]
        ]
        own = {child.pid for child in victim.children(recursive=True)}
        victim = next((worker for worker in workers if worker.pid in own), victim)
    if victim is None:
        return "nothing"
    os.kill(victim.pid, signal.SIGKILL)
    return "the command" if victim.pid == run.pid else "a worker"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--engine", action="append", choices=["local", "ray"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", type=Path, help="a cache that holds the prior digits, to begin from")
    asked = parser.parse_args()
    draw, engines = random.Random(asked.seed), asked.engine or ["local", "ray"]
    methods = list(METHODS)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = asked.base or place / "base"
        _ = Job(Spec("digits@train", prior="digits", device="cpu"), Store(base)).prior.key
        teacher = place / "teacher"
        training = TeacherTraining("digits@train", "convnet3-w16", epochs=4, flip=False, device="cpu")
        train_teacher(training, teacher, store=Store(base))
        whole: dict[tuple[str, str], tuple[list[dict[str, str]], float]] = {}
        same = done = runs = 0
        while done < asked.kills:
            number, runs = runs, runs + 1
            name, engine = methods[number % len(methods)], engines[(number + number // len(methods)) % len(engines)]
            if (name, engine) not in whole:
                root, start = fresh(base, place / f"whole-{name}-{engine}"), time.monotonic()
                assert begun(name, engine, root, teacher).wait() == 0, (root / "log").read_text()
                whole[name, engine] = images(root), time.monotonic() - start
            expected, seconds = whole[name, engine]
            assert expected == next(made for (other, _), (made, _) in whole.items() if other == name), "engines differ"
            root, told = fresh(base, place / f"run-{number}"), list[str]()
            run = begun(name, engine, root, teacher)
            while len(told) < asked.each:
                after = draw.uniform(0.1, 0.8) * seconds
                with suppress(subprocess.TimeoutExpired):
                    run.wait(after)
                if (victim := killed(run, engine, done + len(told))) == "nothing":
                    break
                told.append(f"{victim} after {after:.1f} s")
                if victim == "the command":
                    run.wait()
                    run = begun(name, engine, root, teacher)
            assert run.wait() == 0, (root / "log").read_text()
            equal = images(root) == expected
            same, done = same + equal, done + len(told)
            shown = f"{number}: {name}, {engine} ({seconds:.1f} s), killed: {', '.join(told) or 'nothing'}"
            print(f"{shown}: {'same bytes' if equal else 'OTHER BYTES'}; {done} kills", flush=True)
            shutil.rmtree(root)
    print(f"{runs} runs, {done} kills: {same} with the bytes of the undisturbed run")
    sys.exit(same != runs)


if __name__ == "__main__":
    main()
