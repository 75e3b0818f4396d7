"""Every shipped experiment: it can be read, cited, costed without its data, and run to its table on stand-ins."""

from __future__ import annotations

import json
import re
import time
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from stand_ins import StandIns, stood_in

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.experiments.compare import compare
from attar.experiments.forecast import Forecast, why_unusable
from attar.experiments.spec import read_experiment
from attar.experiments.summary import judging_fingerprint
from attar.methods.base import LatentMethod
from attar.report.tables import write_tables

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
    from attar.evaluation import outlook

    monkeypatch.setattr(outlook, "_pass_seconds", lambda *words: (0.001, 0.003))
    monkeypatch.chdir(tmp_path)
    experiment, said = read_experiment(file), list[str]()
    assert why_unusable(experiment)
    if experiment.planned is None:
        with pytest.raises(AttarError) as error:
            compare(experiment, store=store, dry_run=True)
        told = str(error.value)
        assert f"{file} names what is not here (its paths are relative to the current folder, {tmp_path}):" in told
        named = tomllib.loads(file.read_text(encoding="utf-8"))
        for line in (f"data = {named['data']}: no file or folder ", f"prior = {named['prior']}: "):
            assert f"\n  {line}" in told
        assert re.search(r"\nit needs .{20}", told)
        assert re.search(r"\nedit data(, prior and teacher| and prior) in the file to say where yours are$", told)
        return
    compare(experiment, store=store, say=said.append, dry_run=True)
    (told,) = said
    assert "estimated from the FLOP rate of one block" in told
    sampled = [contender.label for contender in experiment.contenders if isinstance(contender.method, LatentMethod)]
    for label in sampled:
        for ipc in experiment.ipcs:
            assert re.search(rf"^  {label} +{ipc} .* \S+ (s|min|h|days)$", told, re.MULTILINE)
    assert not list(tmp_path.glob("runs"))


@each
def test_a_newcomer_is_told_first_what_to_fill_in(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """Every path of the file that is not here, the teachers of methods and evaluations included; nothing is begun."""
    monkeypatch.chdir(tmp_path)
    text, said = file.read_text(encoding="utf-8"), list[str]()
    written = tomllib.loads(text)
    with pytest.raises(AttarError) as error:
        compare(read_experiment(file), store=store, say=said.append)
    told = str(error.value)
    teachers = set(re.findall(r"runs/teachers/[\w-]+", text.split("\n\n", 1)[1]))
    assert all(
        f"\n  teacher = {teacher}: there is no such file or folder; `attar train" in told for teacher in teachers
    )
    if not written["data"].startswith(("hf:", "torchvision:")):
        assert f"\n  data = {written['data']}: no file or folder {tmp_path.parent}" in told
    head = re.sub(r"\n# +", " ", text.split("\n\n")[0])
    needs = re.search(r"\nit needs (.+)\nedit (data|prior|teacher)", told)
    assert needs
    assert f"Needs:   {needs[1]} Cost:" in head
    assert not said
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("stand-ins"))


@each
def test_it_runs_to_its_table(
    file: Path, made: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """With what it needs stood in for, its sizes and counts made small; costs and figures have tests of their own."""
    from attar.experiments import compare as grid

    monkeypatch.setattr(grid, "forecast", lambda *words: Forecast("", defaultdict(float)))
    begun = time.process_time()
    experiment = stood_in(file, tomllib.loads(file.read_text(encoding="utf-8")), made, tmp_path / "out")
    summary = compare(experiment, store=store)
    assert summary.failures == ()
    write_tables(summary)
    print(f"{file.stem}: {time.process_time() - begun:.1f} s of the CPU")
    original = read_experiment(file)
    assert [one.label for one in experiment.contenders] == [one.label for one in original.contenders]
    assert [one.label for one in experiment.evaluations] == [one.label for one in original.evaluations]
    wanted = {
        (judging_fingerprint(experiment, evaluation, contender), network, contender.label, ipc)
        for evaluation in experiment.evaluations
        for network in evaluation.networks
        for contender in experiment.contenders
        if contender.label in evaluation.methods
        for ipc in evaluation.ipcs
    }
    records = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert {tuple(record[name] for name in ("judged", "network", "label", "ipc")) for record in records} == wanted
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert all(f"| {one.label} " in table for one in experiment.contenders if one.label in str(wanted))
