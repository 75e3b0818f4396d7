"""`attar compare`: a grid that resumes, tables that say what was measured, and files that cannot be misread."""

from __future__ import annotations

import csv
import math
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toys import attar, save_folder, save_tiny_dit

from attar.core.errors import AttarError
from attar.core.store import Store
from attar.evaluation.records_file import read_records
from attar.experiments import compare as grid
from attar.experiments.spec import Experiment, read_experiment
from attar.experiments.summary import Cell, Panel, Summary, paired, summarise
from attar.job import Job
from attar.report.tables import MISSING, latex
from attar.report.written_experiments import compare_and_write

CLASSES = ["ant", "bee's", "cat <3"]
FILE = """
title = "Insects | and a cat"
status = "a test"
data = "{world}/data@train"
prior = "{world}/dit"
device = "cpu"
ipc = [1, 2]
seeds = 2
distillation_seeds = 2
out = "{out}"

[methods.random]
[methods.prior]
set = {{sampler = {{steps = 2}}}}
[methods.d3hr]
set = {{"sampler.steps" = 5, "fit.steps" = 5, "subsets" = 20}}

[evaluations.short]
recipe = "quick"
networks = ["convnet3-w16"]
set = {{steps = 3}}

[[published]]
method = "d3hr"
network = "convnet3-w16"
accuracy = {{1 = [41.0, 0.5], 10 = 50}}
recipe = "hard labels"
source = "Nobody & Sons, 2026, table 1"
[[published]]
method = "IDC-1"
network = "convnet3-w16"
accuracy = {{2 = 33.3}}
source = "Kim et al., 2022"
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for split in ("train", "test"):
        save_folder(root / "data" / split, CLASSES, each=4, size=16)
    save_tiny_dit(root / "dit", CLASSES)
    return root


def panels(experiment: Experiment) -> tuple[Panel, ...]:
    return summarise(experiment, read_records(experiment.out / "results.json")).panels


def written(folder: Path, text: str) -> Path:
    file = folder / "experiment.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def experiment(world: Path, tmp_path: Path) -> Experiment:
    return read_experiment(written(tmp_path, FILE.format(world=world, out=tmp_path / "out")))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of all trainings that are really done."""
    from attar.evaluation import evaluator

    seeds: list[int] = []
    run = evaluator.Students.run

    def counted(self: Any, seed: int, *rest: Any) -> dict[str, float]:
        seeds.append(seed)
        return run(self, seed, *rest)

    monkeypatch.setattr(evaluator.Students, "run", counted)
    return seeds


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("finished")
    one = read_experiment(written(folder, FILE.format(world=world, out=folder / "out")))
    assert not compare_and_write(one, store=Store(folder / "cache"))
    return one


def test_every_cell_is_measured_over_both_kinds_of_seeds(finished: Experiment) -> None:
    (panel,) = panels(finished)
    assert panel.cells.keys() == {(label, ipc) for label in ("random", "prior", "d3hr") for ipc in (1, 2)}
    assert {tuple(sorted(cell.accuracies)) for cell in panel.cells.values()} == {((0, 0), (0, 1), (1, 0), (1, 1))}
    assert all(cell.bytes > 0 and cell.seconds > 0 for cell in panel.cells.values())


def test_the_table_is_what_the_records_say(finished: Experiment) -> None:
    runs: dict[str, list[float]] = {}
    for record in sorted(read_records(finished.out / "results.json"), key=lambda record: record.seed or 0):
        if record.ipc == 1 and record.trial:
            runs.setdefault(record.trial.label, []).extend(record.accuracies)
    mean, std = statistics.fmean(runs["d3hr"]), statistics.stdev(runs["d3hr"])
    table = (finished.out / "table.md").read_text()
    assert re.search(rf"\| d3hr \| {mean:.1f} ± {std:.1f} \(n = 4\) \|", table)
    assert "| d3hr, published [1], hard labels | 41.0 ± 0.5 |  |" in table
    assert "| IDC-1, published [2] |  | 33.3 |" in table
    assert "[1] Nobody & Sons, 2026, table 1" in table
    gaps = [method - random for method, random in zip(runs["d3hr"], runs["random"], strict=True)]
    half = 3.182446 * statistics.stdev(gaps) / math.sqrt(4)  # t of 97.5 % with 3 degrees of freedom
    with (finished.out / "table.csv").open() as file:
        (row,) = (row for row in csv.DictReader(file) if row["method"] == "d3hr" and row["ipc"] == "1")
    assert float(row["mean"]) == pytest.approx(mean, abs=1e-4)
    assert float(row["random difference"]) == pytest.approx(statistics.fmean(gaps), abs=1e-4)
    assert float(row["random low"]) == pytest.approx(statistics.fmean(gaps) - half, abs=1e-3)
    assert float(row["random high"]) == pytest.approx(statistics.fmean(gaps) + half, abs=1e-3)
    assert row["random pairs"] == "4"
    assert r"Nobody & Sons" in latex(Summary(finished, ())), "a comment needs no escapes"
    assert r"33.3" in (finished.out / "table.tex").read_text()
    for name in ("ipc.png", "cost.png"):
        assert (finished.out / name).read_bytes().startswith(b"\x89PNG")


def test_the_interval_is_scipys() -> None:
    from scipy import stats

    of = Cell({(0, 0): 40.0, (0, 1): 42.5, (1, 0): 39.0, (1, 1): 41.0, (2, 0): 99.0}, 1, 1)
    to = Cell({(0, 0): 38.0, (0, 1): 41.0, (1, 0): 38.5, (1, 1): 37.0, (2, 1): 0.0}, 1, 1)
    found = paired(of, to)
    gaps = [2.0, 1.5, 0.5, 4.0]
    low, high = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert found is not None
    assert (found.mean, found.low, found.high, found.pairs) == pytest.approx((2.0, low, high, 4))
    assert paired(of, Cell({(5, 5): 1.0}, 1, 1)) is None
    alone = paired(of, Cell({(0, 0): 39.0}, 1, 1))
    assert alone is not None
    assert (alone.mean, alone.low, alone.pairs) == (1.0, None, 1)


def test_nothing_is_done_twice(experiment: Experiment, store: Store, trained: list[int]) -> None:
    assert not compare_and_write(experiment, store=store, only=["random"])
    assert len(trained) == 2 * 2 * 2
    table = (experiment.out / "table.md").read_text()
    assert f"| prior | {MISSING} | {MISSING} |" in table
    assert not compare_and_write(experiment, store=store)
    assert len(trained) == 3 * 2 * 2 * 2
    files = {file: file.read_bytes() for file in experiment.out.rglob("*") if file.is_file()}
    assert not compare_and_write(experiment, store=Store(store.root.parent / "another"))
    assert len(trained) == 3 * 2 * 2 * 2, "the results are there, whatever has become of the cache"
    assert files == {file: file.read_bytes() for file in experiment.out.rglob("*") if file.is_file()}


def test_equal_sets_of_two_methods_are_both_judged(experiment: Experiment, store: Store) -> None:
    """As two contenders of equal settings make, where their seconds are equal too."""
    first = next(one for one in experiment.contenders if one.label == "random")
    few = replace(experiment, contenders=(first,), distillation_seeds=(0,))
    compare_and_write(few, store=store)
    twin = replace(first, label="twin")
    for ipc in experiment.ipcs:
        shutil.copytree(experiment.folder(first, 0, ipc), experiment.folder(twin, 0, ipc))
    both = tuple(replace(one, methods=("random", "twin")) for one in few.evaluations)
    compare_and_write(replace(few, contenders=(first, twin), evaluations=both), store=store)
    records = read_records(experiment.out / "results.json")
    assert sorted((one.trial.label, one.ipc) for one in records if one.trial) == [
        ("random", 1),
        ("random", 2),
        ("twin", 1),
        ("twin", 2),
    ]


def test_the_experiment_alone_writes_sets_and_results(experiment: Experiment, store: Store) -> None:
    shown: list[Summary] = []
    summary = grid.compare(experiment, store=store, only=["random"], show=shown.append)
    assert {path.name for path in experiment.out.iterdir() if path.name[0] != "."} == {"sets", "results.json"}
    assert [len(one.panels[0].cells) for one in shown] == [1, 1, 2, 2], "two seeds, one IPC after the other"
    assert shown[-1] == summary


def test_an_interrupted_grid_goes_on(
    experiment: Experiment, store: Store, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.evaluation import records_file

    kept: list[object] = []

    def killed(*words: Any) -> None:
        if len(kept) == 5:
            raise KeyboardInterrupt
        kept.append(words)
        write(*words)

    write = records_file.write_record
    monkeypatch.setattr(grid, "write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        compare_and_write(experiment, store=store)
    monkeypatch.undo()
    assert len(read_records(experiment.out / "results.json")) == 5
    table = (experiment.out / "table.md").read_text()
    assert "(n = " in table, "tables are written as results come in"
    assert MISSING in table
    assert not compare_and_write(experiment, store=store)
    assert len(read_records(experiment.out / "results.json")) == 12


def test_an_evaluation_may_take_a_part_of_the_grid(
    world: Path, store: Store, tmp_path: Path, trained: list[int]
) -> None:
    text = FILE.format(world=world, out=tmp_path / "out").replace("distillation_seeds = 2", "distillation_seeds = 1")
    part = '[evaluations.part]\nrecipe = "quick"\nnetworks = ["convnet3-w8"]\nset = {steps = 2}\nipc = 2\nseeds = [5]'
    text = text.replace("[[published]]", f'{part}\nmethods = ["random", "d3hr"]\n[[published]]', 1)
    experiment = read_experiment(written(tmp_path, text))
    assert not compare_and_write(experiment, store=store)
    assert sorted(trained) == [0] * 6 + [1] * 6 + [5] * 2
    _, panel = panels(experiment)
    assert panel.cells.keys() == {("random", 2), ("d3hr", 2)}
    rows = (tmp_path / "out" / "table.md").read_text().partition("part, convnet3-w8")[2].partition("## What")[0]
    assert "| random |" in rows
    assert "| prior |" not in rows


def test_paired_runs_train_once_by_the_seed_of_each_set(world: Path, store: Store, tmp_path: Path) -> None:
    text = FILE.format(world=world, out=tmp_path / "out").replace("\nseeds = 2\ndist", '\nseeds = "paired"\ndist')
    experiment = read_experiment(written(tmp_path, text))
    assert not compare_and_write(experiment, store=store)
    (panel,) = panels(experiment)
    assert {tuple(sorted(cell.accuracies)) for cell in panel.cells.values()} == {((0, 0), (1, 1))}
    gap = paired(panel.cells["d3hr", 1], panel.cells["random", 1])
    assert gap is not None
    assert gap.pairs == 2


def test_a_method_is_distilled_at_the_ipcs_at_which_it_is_judged(world: Path, store: Store, tmp_path: Path) -> None:
    text = FILE.format(world=world, out=tmp_path / "out")
    text = text.replace("set = {steps = 3}", 'set = {steps = 3}\nipc = 2\nmethods = ["random", "d3hr"]')
    own = '[evaluations.own]\nrecipe = "quick"\nnetworks = ["convnet3-w8"]\nset = {steps = 2}\nmethods = ["prior"]\n'
    experiment = read_experiment(written(tmp_path, text.replace("[[published]]", f"{own}[[published]]", 1)))
    assert not compare_and_write(experiment, store=store)
    sets = {str(path.parent.relative_to(tmp_path / "out/sets")) for path in tmp_path.glob("out/sets/*/*/*/images")}
    assert {one for one in sets if "seed-0" in one} == {
        "random/seed-0/ipc-002",
        "d3hr/seed-0/ipc-002",
        "prior/seed-0/ipc-001",
        "prior/seed-0/ipc-002",
    }


def test_a_method_that_fails_leaves_the_others_alone(
    experiment: Experiment, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.methods.d3hr import method

    def broken(*words: Any) -> None:
        raise AttarError("its moments are not finite")

    monkeypatch.setattr(method.D3HR, "start", broken)
    failures = compare_and_write(experiment, store=store)
    assert list(failures) == [f"distilling d3hr, seed {seed}: its moments are not finite" for seed in (0, 1)]
    table = (experiment.out / "table.md").read_text()
    assert f"| d3hr | {MISSING} | {MISSING} |" in table
    assert "n = 4" in table
    monkeypatch.undo()
    assert not compare_and_write(experiment, store=store)
    assert MISSING not in (experiment.out / "table.md").read_text()


def test_a_network_that_fails_leaves_the_others_alone(
    world: Path, store: Store, tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.evaluation import evaluator

    def broken(self: Any, seed: int, *rest: Any) -> Any:
        if self.network == "convnet3-w8":
            raise AttarError("too thin")
        return run(self, seed, *rest)

    run = evaluator.Students.run
    monkeypatch.setattr(evaluator.Students, "run", broken)
    text = FILE.format(world=world, out=tmp_path / "out")
    text = text.replace("networks = [", 'networks = ["convnet3-w8", ').replace("ipc = [1, 2]", "ipc = 1")
    failures = compare_and_write(read_experiment(written(tmp_path, text)), only=["random"], store=store)
    assert list(failures) == [f"evaluating random, seed {seed}, IPC 1, short, convnet3-w8: too thin" for seed in (0, 1)]
    assert len(read_records(tmp_path / "out" / "results.json")) == 2
    assert len(trained) == 4


def test_what_fails_after_the_last_network_names_the_item(
    world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.evaluation.run import evaluate_sets

    def broken(*words: Any, **named: Any) -> Any:
        yield from evaluate_sets(*words, **named)
        raise AttarError("no room left")

    monkeypatch.setattr("attar.experiments.compare.evaluate_sets", broken)
    text = FILE.format(world=world, out=tmp_path / "out").replace("ipc = [1, 2]", "ipc = 1")
    text = text.replace("distillation_seeds = 2", "distillation_seeds = 1")
    failures = compare_and_write(read_experiment(written(tmp_path, text)), only=["random"], store=store)
    assert list(failures) == ["evaluating random, seed 0, IPC 1, short: no room left"]
    assert len(read_records(tmp_path / "out" / "results.json")) == 1


@pytest.mark.parametrize("field", ["seeds", "distillation_seeds"])
def test_seeds_that_no_record_holds_are_refused(field: str, world: Path, tmp_path: Path) -> None:
    text = FILE.format(world=world, out=tmp_path / "out").replace(f"\n{field} = 2", f"\n{field} = [{2**60}]")
    with pytest.raises(AttarError, match=f"{field} {2**60}: must be a whole number from"):
        read_experiment(written(tmp_path, text))


def test_a_missing_teacher_is_found_out_before_any_work(world: Path, store: Store, tmp_path: Path) -> None:
    text = FILE.format(world=world, out=tmp_path / "out").replace("ipc = [1, 2]", "ipc = 1")
    text = text.replace('recipe = "quick"', 'recipe = "rded-soft-cifar"\nteacher = "nobody"')
    text = text.replace("set = {steps = 3}", "set = {epochs = 1}")
    experiment = read_experiment(written(tmp_path, text))
    assert not compare_and_write(experiment, only=["random"], store=store, dry_run=True)
    with pytest.raises(AttarError, match="teacher = nobody: there is no such file or folder"):
        compare_and_write(experiment, only=["random"], store=store)
    assert not (tmp_path / "out").exists()


def test_the_folder_of_a_teacher_may_have_a_colon(world: Path, tmp_path: Path) -> None:
    """As for the other commands: what stands before a colon is a network only where no folder is called so."""
    text = FILE.format(world=world, out=tmp_path / "out").replace(
        "[methods.random]", f'[methods.rded]\nset = {{teacher = "{tmp_path}/a:b"}}\n[methods.random]'
    )
    experiment = read_experiment(written(tmp_path, text))
    with pytest.raises(AttarError, match="a:b: there is no such file or folder"):
        grid.check_places(experiment)
    (tmp_path / "a:b").mkdir()
    grid.check_places(experiment)


def test_a_dry_run_tells_what_refinement_takes(
    world: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from attar.methods.refine import Refinement

    monkeypatch.setattr(Refinement, "seconds", lambda self, job, n: 3600.0 * n)
    text = FILE.format(world=world, out=tmp_path / "out")
    text = text.replace("[methods.d3hr]", '[methods.refined]\nmethod = "d3hr"\nset = {refine = true}\n\n[methods.d3hr]')
    said: list[str] = []
    experiment = read_experiment(written(tmp_path, text))
    assert not compare_and_write(experiment, only=["refined"], store=store, say=said.append, dry_run=True)
    everything = next(line for line in "\n".join(said).splitlines() if line.startswith("All sets"))
    assert everything.endswith("; of refinement the time alone")
    assert "FLOPs, 18.0 h" in everything, "an hour an image, of 1 + 2 images of each of three classes and two seeds"


def test_other_terms_are_not_mixed(experiment: Experiment, world: Path, store: Store, tmp_path: Path) -> None:
    compare_and_write(experiment, store=store, only=["random"])
    text = FILE.format(world=world, out=experiment.out).replace("steps = 3", "steps = 4")
    other = read_experiment(written(tmp_path, text))
    (panel,) = panels(other)
    assert not panel.cells


def test_the_command_fails_if_anything_does(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(job: Job, *words: Any, say: Any, **named: Any) -> None:
        say("it looks well")
        if not job.dry:
            raise AttarError("no luck")

    monkeypatch.setenv("ATTAR_CACHE", str(tmp_path / "cache"))
    file = written(tmp_path, FILE.format(world=world, out=tmp_path / "out"))
    assert attar(monkeypatch, "compare", file, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "d3hr, seed 1: 12 images of 3 classes: " in told
    assert re.search(r"\n  d3hr +2 +3 +12 ", told), "three groups, twelve latents"
    assert "24 trainings left" in told
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(grid, "distill_sets", broken)
    assert attar(monkeypatch, "compare", file) == 1
    assert "6 failed:\n  distilling random, seed 0: no luck" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('title = "', 'titel = "', "the file: no key 'titel' (did you mean 'title' or 'tile'?)"),
        ("ipc = [1, 2]", "ipc = [0]", "ipc = [0]: whole numbers of 1 or more"),
        ("ipc = [1, 2]", "", "ipc is missing"),
        ("seeds = 2\ndist", "seeds = 0\ndist", "seeds = 0: at least 1"),
        ("seeds = 2\ndist", 'seeds = "pair"\ndist', "seeds = 'pair': give a number, a list of seeds, or \"paired\""),
        ('device = "cpu"', 'device = "cpu"\ntile = 0', "`tile` 0"),
        ('device = "cpu"', 'device = "cpu"\nseed = 3', "no key 'seed'"),
        ('device = "cpu"', 'device = "cpu"\ntest = "held-out"', "needs hold_out = true"),
        ('device = "cpu"', 'device = "cpu"\nreferences = ["rondom"]', "no method 'rondom' (did you mean 'random'?)"),
        ("[methods.prior]\n", "[methods.prior]\nprompt_ = 3\n", "[methods.prior]: no key 'prompt_'"),
        ("[methods.prior]\n", '[methods.prior]\nmethod = "pryor"\n', "no method 'pryor' (did you mean 'prior'?)"),
        ("[methods.prior]\n", '[methods."../prior"]\n', "a label is of letters, digits"),
        ("subsets", "subset", "d3hr has no field 'subset' (did you mean 'subsets'?)"),
        ('"sampler.steps" = 5', '"sampler.steps" = "x"', "d3hr.sampler.steps = 'x'"),
        ('recipe = "quick"', 'recipe = "quik"', "no recipe 'quik'"),
        ('recipe = "quick"', 'recipe = "rded-soft"', "learns from soft labels: name a teacher"),
        ('recipe = "quick"', 'recipe = "quick"\nteacher = "x"', "has no use for a teacher"),
        ("set = {steps = 3}", "set = {step = 3}", "no field 'step'"),
        ("set = {steps = 3}", "set = {steps = 3}\nnetwork = 3", "[evaluations.short]: no key 'network'"),
        ("set = {steps = 3}", "set = {steps = 3}\nipc = 5", "[evaluations.short] ipc: no IPC '5'; there are: 1, 2"),
        ("set = {steps = 3}", 'set = {steps = 3}\nmethods = "d4m"', "[evaluations.short] methods: no method 'd4m'"),
        ("set = {steps = 3}", "set = {steps = 3}\nseeds = 0", "[evaluations.short] seeds = 0: at least 1"),
        ('networks = ["convnet3-w16"]', 'networks = ["convnet33"]', "no network is called 'convnet33'"),
        ('networks = ["convnet3-w16"]', "", "networks is missing"),
        ("{1 = [41.0, 0.5], 10 = 50}", "{one = 41}", "accuracy of d3hr, IPC one"),
        ("{1 = [41.0, 0.5], 10 = 50}", "{1 = [41, 1, 2]}", "accuracy of d3hr, IPC 1"),
        ('source = "Kim', 'sorce = "Kim', "[[published]]: no key 'sorce'"),
        ('source = "Kim', 'evaluation = "long"\nsource = "Kim', "no evaluation 'long'"),
        ("[methods.random]", "[planned]\nimages = 5\n[methods.random]", "[planned] classes"),
        ('title = "', "title = ", "experiment.toml"),
    ],
)
def test_a_wrong_word_is_a_clear_error(world: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    text = FILE.format(world=world, out=tmp_path / "out")
    assert old in text
    file = written(tmp_path, text.replace(old, new))
    with pytest.raises(AttarError, match=re.escape(said)) as raised:
        read_experiment(file)
    assert str(file) in str(raised.value)


def test_an_unknown_method_to_run_is_an_error(experiment: Experiment) -> None:
    with pytest.raises(AttarError, match=r"`only` rando \(did you mean 'random'\?\): .* has the methods random, prior"):
        compare_and_write(experiment, only=["rando"])


def test_all_that_is_wrong_with_the_data_is_told_before_any_work(world: Path, store: Store, tmp_path: Path) -> None:
    text = FILE.format(world=world, out=tmp_path / "out").replace("ipc = [1, 2]", "ipc = [1, 9]")
    text = text.replace("[methods.prior]\n", '[methods.prior]\nclasses = ["dog"]\n')
    with pytest.raises(AttarError, match=r"random: `ipc` 9: more real images.*\n.*dog"):
        compare_and_write(read_experiment(written(tmp_path, text)), store=store)
    assert not (tmp_path / "out").exists()


def test_sets_without_a_tenth_are_tested_on_it_where_no_other_images_are_named(
    world: Path, store: Store, tmp_path: Path
) -> None:
    shutil.copytree(world / "data" / "train", tmp_path / "alone" / "train")
    text = FILE.format(world=world, out=tmp_path / "out").replace(f"{world}/data@train", f"{tmp_path}/alone@train")
    file = tmp_path / "held.toml"
    file.write_text(text.replace('device = "cpu"', 'device = "cpu"\nhold_out = true'))
    with pytest.raises(AttarError, match='name the test images with `test`, such as test = "held-out", the tenth'):
        compare_and_write(read_experiment(file), store=store, say=lambda _: None)
    assert not (tmp_path / "out" / "sets").exists()
