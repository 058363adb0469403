"""The tables of the learning benchmark."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks._learn_methods import METHODS
from benchmarks._report import middle, new_section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._report import Section

    Record = dict[str, Any]


#: Below it are the peers.
LAST_OURS = "dense"

#: Over the classes in truth or prediction, and over those in the truth.
MEANS = ("overall_dice", "present_dice")


def sections(content: Record) -> list[Section]:
    """Return the tables of all runs."""
    found = [dice_section(content), steps_section(content)]
    if len(class_names(content)) > 2:
        found.append(class_section(content))
    return found


def dice_section(content: Record) -> Section:
    """Mean Dice by method and mark."""
    marks = content["marks"]
    section = new_section(
        f"{content['set']}, {content['labels']}, {content['device']}: Dice on the test "
        "images, mean over classes; median over seeds, and the range",
        [
            "method",
            "seeds",
            *map(mark_text, marks),
            "can predict\nafter (s)",
            "predicts the\ntest set in (s)",
        ],
    )
    for name, method in METHODS.items():
        runs = runs_of(content, name)
        if not runs:
            is_missing = name in content["not_installed"]
            text = "not installed" if is_missing else "not run"
            section.table.add_row(method.title, text, end_section=name == LAST_OURS)
            continue
        section.table.add_row(
            method.title,
            str(len(runs)),
            *(middle([dice_at(run, mark) for run in runs]) for mark in marks),
            middle([run["ready_s"] for run in runs], 1),
            middle([predict_seconds(run) for run in runs], 1),
            end_section=name == LAST_OURS,
        )
    return section


def steps_section(content: Record) -> Section:
    """Head and network of this project apart, and what had been done at each mark."""
    marks = content["marks"]
    section = new_section(
        "This project: Dice of the head and of the network, what is shown, steps and "
        "seconds; medians",
        ["method", *map(mark_text, marks)],
    )
    for name, method in METHODS.items():
        runs = runs_of(content, name)
        if method.kind == "ours" and runs:
            cells = ([at_mark(run, mark) for run in runs] for mark in marks)
            section.table.add_row(
                method.title, *map(part_cell, cells), end_section=True
            )
    return section


def class_section(content: Record) -> Section:
    """Dice of every class at the last mark."""
    names = class_names(content)
    last = content["marks"][-1]
    section = new_section(
        f"Dice of each class at {mark_text(last)}; median over seeds, and the range",
        ["method", "mean", "mean of those\nin the truth", *names],
    )
    for name, method in METHODS.items():
        rows = [scores_at(run, last) for run in runs_of(content, name)]
        if rows:
            means = ([row.get(key) for row in rows] for key in MEANS)
            dice = ([row.get("dice", {}).get(key) for row in rows] for key in names)
            section.table.add_row(
                method.title, *(middle(each, 2) for each in (*means, *dice))
            )
    return section


def runs_of(content: Record, name: str) -> list[Record]:
    """Return all runs of a method."""
    return [run for run in content["runs"] if run["method"] == name]


def class_names(content: Record) -> list[str]:
    """Return the names of the classes that were scored."""
    last = content["marks"][-1]
    dice = (scores_at(run, last).get("dice") for run in content["runs"])
    return list(next((each for each in dice if each), {}))


def at_mark(run: Record, mark: float) -> Record:
    """Return what a run of this project kept at a mark."""
    found: Record = next(row for row in run["marks"] if row["mark"] == mark)
    return found


def scores_at(run: Record, mark: float) -> Record:
    """Return the scores of what could predict at a mark, or nothing."""
    if "marks" in run:
        return at_mark(run, mark)
    return run if run["ready_s"] <= mark else {}


def dice_at(run: Record, mark: float) -> float | None:
    """Return the mean Dice of what could predict at a mark."""
    return scores_at(run, mark).get("overall_dice")


def predict_seconds(run: Record) -> float | None:
    """Return the seconds to predict the test set, with the last model."""
    last: Record = run["marks"][-1] if "marks" in run else run
    return last.get("predict_s")


def part_cell(rows: Sequence[Record]) -> str:
    """Write what head and network reached at a mark, and what was shown how often."""
    there = [row for row in rows if "shown" in row]
    if not there:
        return "-"
    parts = (
        f"{part} {middle([row['part_dice'].get(part) for row in there]).split()[0]}"
        for part in ("head", "network")
    )
    shown = Counter(row["shown"] for row in there)
    steps, seconds = (median(row[key] for row in there) for key in ("steps", "seconds"))
    return "\n".join(
        [
            *parts,
            *(f"{what} shown {count}x" for what, count in shown.items()),
            f"{steps:.0f} steps, {seconds:.1f} s",
        ]
    )


def mark_text(mark: float) -> str:
    """Write a mark with its unit."""
    return f"{mark:g} s"
