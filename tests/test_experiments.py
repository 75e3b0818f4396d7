"""Every shipped experiment: it can be read, says where its numbers come from, and can be costed on this machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.experiments.compare import compare
from attar.experiments.forecast import absent
from attar.experiments.spec import read_experiment
from attar.methods.base import LatentMethod

FILES = sorted((Path(__file__).parent.parent / "experiments").glob("*.toml"))
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_there_are_experiments() -> None:
    names = ("imagewoof", "imagenette", "imageidc", "imagenet100", "imagenet1k")
    wanted = {f"minimax-{name}" for name in names} | {"d4m-imagenet1k", "d4m-tiny-imagenet", "d4m-cifar10"}
    assert wanted <= {file.stem for file in FILES}


@each
def test_it_opens_with_its_command_its_cost_and_its_result(file: Path) -> None:
    head = file.read_text(encoding="utf-8").split("\n\n")[0]
    assert f"attar compare experiments/{file.name}" in head
    assert all(re.search(rf"^# {word}: +\S", head, re.MULTILINE) for word in ("Command", "Needs", "Cost", "Result"))
    assert all(line.startswith("#") for line in head.splitlines())


@each
def test_everything_that_it_names_exists(file: Path) -> None:
    experiment = read_experiment(file)
    assert experiment.title
    assert experiment.status
    assert experiment.out == Path("runs") / file.stem
    labels = {contender.label for contender in experiment.contenders}
    networks = {network for one in experiment.evaluations for network in one.networks}
    for one in experiment.published:
        assert len(one.source) > 20
        assert one.method in labels
        assert one.network in networks
        assert set(one.accuracy) <= set(experiment.ipcs)
        assert all(0 < mean < 100 for mean, _ in one.accuracy.values())


@each
def test_its_cost_can_be_told_without_its_data(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    from attar.distillation import estimate

    monkeypatch.setattr(estimate, "_pass_seconds", lambda *words: (0.001, 0.003))
    monkeypatch.chdir(tmp_path)
    experiment, said = read_experiment(file), list[str]()
    assert absent(experiment)
    if experiment.planned is None:
        with pytest.raises(AttarError, match="no file or folder"):
            compare(experiment, store=store, dry_run=True)
        return
    compare(experiment, store=store, say=said.append, dry_run=True)
    (told,) = said
    assert "estimated from the FLOP rate of one block" in told
    sampled = [contender.label for contender in experiment.contenders if isinstance(contender.method, LatentMethod)]
    for label in sampled:
        for ipc in experiment.ipcs:
            assert re.search(rf"^  {label} +{ipc} .* \S+ (s|min|h)$", told, re.MULTILINE)
    assert not list(tmp_path.glob("runs"))
