"""Experiments run with their tables and charts written beside the results: `attar compare`, `tune`, `waterfall`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attar.core.arguments import checked
from attar.core.engine import LOCAL, Engine
from attar.core.progress import Progress, Say, quiet, silent
from attar.core.store import Store
from attar.evaluation.conditions import Conditions
from attar.experiments import compare as comparison
from attar.experiments import tune as tuning
from attar.experiments import waterfall as evaluations
from attar.experiments.settings import Tuning
from attar.experiments.spec import Experiment
from attar.experiments.tuned import Tuned
from attar.experiments.waterfall_steps import RecipeStep
from attar.report.charts import write_charts, write_tuned_chart, write_waterfall_chart
from attar.report.tables import (
    tuned_markdown,
    waterfall_markdown,
    write_tables,
    write_tuned_table,
    write_waterfall_tables,
)


@checked
def compare_and_write(
    experiment: Experiment,
    *,
    only: Sequence[str] = (),
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    dry_run: bool = False,
    engine: Engine = LOCAL,
) -> tuple[str, ...]:
    """Runs what is missing of an experiment; its tables are written after each result, its charts at the end.

    Returns:
        What failed, a line each.

    Raises:
        AttarError: as `attar.experiments.compare.compare`.
    """
    summary = comparison.compare(
        experiment,
        only=only,
        store=store,
        progress=progress,
        say=say,
        show=write_tables,
        dry_run=dry_run,
        engine=engine,
    )
    if not dry_run:
        write_tables(summary)
        write_charts(summary)
        say(f"wrote {experiment.out / 'table.md'}, table.csv, table.tex, ipc.png and cost.png")
    return summary.failures


@checked
def tune_and_write(
    wanted: Tuning,
    *,
    store: Store | None = None,
    progress: Progress = silent,
    say: Say = quiet,
    dry_run: bool = False,
    engine: Engine = LOCAL,
) -> Tuned:
    """Runs what is missing of a tuning; its table and chart are written after each rung.

    Raises:
        AttarError: as `attar.experiments.tune.tune`.
    """

    def show(tuned: Tuned) -> None:
        write_tuned_table(tuned)
        write_tuned_chart(tuned)

    tuned = tuning.tune(wanted, store=store, progress=progress, say=say, show=show, dry_run=dry_run, engine=engine)
    if not dry_run:
        say(f"\n{tuned_markdown(tuned)}")
        say(f"wrote {wanted.out}/tuned.md, tuned.json, tuned.png and results.json")
    return tuned


@checked
def waterfall_and_write(
    folder: Path,
    steps: Sequence[RecipeStep],
    conditions: Conditions,
    out: Path,
    *,
    progress: Progress,
    say: Say,
    dry_run: bool = False,
) -> None:
    """Evaluates a set step by step; writes the tables and the chart at the end.

    Raises:
        AttarError: as `attar.experiments.waterfall.waterfall`.
    """
    result = evaluations.waterfall(folder, steps, conditions, out, progress=progress, say=say, dry_run=dry_run)
    if result is not None:
        write_waterfall_tables(result.bars, out)
        write_waterfall_chart(result, out)
        table = waterfall_markdown(result.bars)
        say(f"\n{table}\nwrote {out}/waterfall.md, .csv, .json, .png, and results.json for `attar report`")
