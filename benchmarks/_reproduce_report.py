"""The report of the comparisons: every number and every order in it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import _reproduce_plots as plots
from benchmarks._learn_data import STROKES
from benchmarks._machine import sentence
from benchmarks._reproduce_boxes import columns, read_boxes
from benchmarks._reproduce_decoders import TASK
from benchmarks._reproduce_papers import (
    ABDULHAMID,
    ABDULHAMID_CLAIMS,
    BOKHORST,
    BOKHORST_CLAIMS,
    FAN_CLAIMS,
)
from benchmarks._reproduce_report_balancing import balancing_section, cell_scores
from benchmarks._reproduce_report_boxes import boxes_section
from benchmarks._reproduce_report_decoders import decoder_scores, decoder_section
from benchmarks._reproduce_tables import order_sentences
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.io.atomic import write_text_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks._reproduce_boxes import Column

    Record = dict[str, Any]

INTRODUCTION = """\
# The comparisons of the papers, made again

The methods of this project come from three papers. Here are the comparisons that these
papers draw, made again with this project on other, smaller sets of images. What can be
compared is therefore the **order** of the methods, not the height of the numbers. The
head start is off everywhere: the papers compare networks.

- *How to read the tables.* Numbers are means over seeds, with the smallest and the
  largest below. Two methods are **told apart** when the mean of their difference, seed
  by seed, is larger than its spread (largest minus smallest difference); otherwise they
  *cannot be told apart*. Methods that are the same would still be told apart by chance
  in about one of twelve comparisons of three seeds. The papers give one number a method
  and no spread.
- *Nothing here is written by hand but the descriptions*: numbers, and all words on the
  order of methods, come from the runs listed [at the end](#how-it-was-run). What was
  not run says so. `make reproduce` runs all of it again; `make reproduce-smoke` tries
  it in minutes."""


def write_report(
    docs: Path, content: Record, plans: dict[str, dict[str, Record]], boxes: Path
) -> Path:
    """Write the report with its pictures; return its path.

    Parameters
    ----------
    docs
        Folder of ``reproduction.md``, made where it is not there.
    content
        All runs.
    plans
        How the trainings of each part are done on each set; runs done otherwise are
        left out.
    boxes
        Results of the benchmark of boxes, which need not be there.
    """
    runs = {
        part: sorted(
            (run for run in content[part] if run["plan"] == of_sets[run["set"]]),
            key=lambda run: run["seed"],
        )
        for part, of_sets in plans.items()
    }
    by_set = {
        name: [run for run in runs["balancing"] if run["set"] == name]
        for name in STROKES
    }
    folder = docs / plots.PICTURES
    if runs["balancing"]:
        there = {name: mine for name, mine in by_set.items() if mine}
        cells = {name: cell_scores(mine) for name, mine in there.items()}
        plots.plot_cells(folder / "balancing.png", cells, BOKHORST)
        plots.plot_balancing_curves(folder / "balancing-curves.png", there)
        for name, mine in there.items():
            if pictured := [run for run in mine if "picture" in run]:
                classes = ClassTable.from_json(pictured[0]["classes"])
                plots.plot_maps(folder / f"balancing-{name}.png", pictured, classes)
    if runs["decoders"]:
        plots.plot_decoders(folder / "decoders.png", runs["decoders"], ABDULHAMID)
    results = read_boxes(boxes)
    kinds = [] if results is None else columns(results)
    parts = [
        INTRODUCTION,
        *in_short(by_set, kinds, runs["decoders"]),
        *balancing_section(by_set, plans["balancing"]),
        *boxes_section(results, kinds),
        *decoder_section(runs["decoders"], plans["decoders"][TASK]),
        *how_it_was_run(content, runs, results),
    ]
    path = docs / "reproduction.md"
    docs.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, "\n\n".join(parts))
    return path


def in_short(
    by_set: dict[str, list[Record]], kinds: Sequence[Column], decoders: list[Record]
) -> list[str]:
    """Count for each paper where its order was found again."""
    lines = [
        f"- Balancing (Bokhorst 2018), "
        f"{order_sentences(name, BOKHORST_CLAIMS, cell_scores(runs))[0]}"
        for name, runs in by_set.items()
    ]
    lines += [
        f"- Boxes (Fan 2022), {order_sentences(kind.title, FAN_CLAIMS, kind.runs)[0]}"
        for kind in kinds
        if not kind.learned_too_little
    ]
    validation = order_sentences(
        TASK, ABDULHAMID_CLAIMS, decoder_scores(decoders, "validation")
    )
    lines.append(f"- Decoders (Abdulhamid), {validation[0]}")
    return ["## In short", "\n".join(lines)]


def how_it_was_run(
    content: Record, runs: dict[str, list[Record]], results: Record | None
) -> list[str]:
    """Name machine, versions, commands, seeds and times."""
    lines = [f"- {sentence(content['machine'])}; device {content['device']}."]
    for part, mine in runs.items():
        if not mine:
            lines.append(f"- {part}: not run.")
            continue
        hours = sum(run["seconds"] for run in mine) / 3600
        seeds = ", ".join(map(str, sorted({run["seed"] for run in mine})))
        side_by_side = max(run["workers"] for run in mine)
        commands = "; ".join(
            f"`{c}`" for c in dict.fromkeys(r["command"] for r in mine)
        )
        lines.append(
            f"- {part}: {len(mine)} trainings, seeds {seeds}, {hours:.1f} hours in "
            f"all, up to {side_by_side} side by side; {commands}."
        )
        if len(sources := {run["source"] for run in mine}) > 1:
            lines.append(f"- CAUTION: {part} of {len(sources)} states of the source.")
    if results is not None:
        made = [*results["masks"], *results["networks"]]
        commands = "; ".join(
            f"`{c}`" for c in dict.fromkeys(r["command"] for r in made)
        )
        lines.append(f"- boxes: {sentence(results['machine'])}; {commands}.")
    return ["## How it was run", "\n".join(lines)]
