"""Plots and pictures of the report, as PNG files."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks._reproduce_papers import BALANCINGS, LABEL_SETS, cell_name
from benchmarks._reproduce_training import from_png
from napari_sparseseg.io.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from benchmarks._reproduce_compare import Runs
    from napari_sparseseg.annotations.classes import ClassTable

    Record = dict[str, Any]

#: The folder of plots and pictures, beside the report.
PICTURES = "reproduction"

DPI = 110

#: Of the three balancings.
COLOURS = ("tab:gray", "tab:orange", "tab:blue")

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def save(figure: Figure, path: Path) -> None:
    """Write a figure, all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(
        path,
        lambda to: figure.savefig(
            to, format="png", dpi=DPI, metadata={"Software": None}
        ),
    )


def plot_cells(
    path: Path, panels: Mapping[str, Mapping[str, Runs]], published: Mapping[str, float]
) -> None:
    """Draw the overall Dice of each cell of a table: a dot a run, a line their mean.

    Parameters
    ----------
    path
        PNG file.
    panels
        Runs by cell, for each set.
    published
        Dice by cell, for a panel of its own.
    """
    everything = {**panels, "paper, 13 tissue classes": in_one_run(published)}
    with mpl.rc_context(STYLE):
        figure = Figure((3 * len(everything), 2.8), layout="constrained")
        row = figure.subplots(1, len(everything), squeeze=False)[0]
        for axes, (title, runs) in zip(row, everything.items(), strict=True):
            draw_cells(axes, runs)
            axes.set_title(title)
        row[0].set_ylabel("Dice on test images")
        row[0].legend(handles=balancing_patches(), frameon=False)
    save(figure, path)


def in_one_run(scores: Mapping[str, float]) -> dict[str, Runs]:
    """Return published scores as the runs of one seed."""
    return {name: {0: score} for name, score in scores.items()}


def draw_cells(axes: Axes, runs: Mapping[str, Runs]) -> None:
    """Draw the nine cells, three label sets of three balancings."""
    for group, labels in enumerate(LABEL_SETS):
        for place, balancing in enumerate(BALANCINGS):
            scores = list(runs.get(cell_name(labels, balancing), {}).values())
            if scores:
                draw_runs(axes, group * 4 + place, scores, COLOURS[place])
    axes.set_xticks([1, 5, 9], LABEL_SETS)


def draw_runs(axes: Axes, x: float, scores: Sequence[float], colour: str) -> None:
    """Draw a dot a run and a line at their mean."""
    axes.plot([x] * len(scores), scores, "o", color=colour, markersize=4, alpha=0.7)
    axes.plot([x - 0.35, x + 0.35], [mean(scores)] * 2, color=colour)


def balancing_patches() -> list[Patch]:
    """Return what colours mean, for a legend."""
    return [
        Patch(color=colour, label=name)
        for name, colour in zip(BALANCINGS, COLOURS, strict=True)
    ]


def plot_balancing_curves(path: Path, runs_of_sets: Mapping[str, list[Record]]) -> None:
    """Draw the Dice on what is held out by step: a panel a set and label set."""
    with mpl.rc_context(STYLE):
        figure = Figure((9, 2.5 * len(runs_of_sets)), layout="constrained")
        grid = figure.subplots(len(runs_of_sets), len(LABEL_SETS), squeeze=False)
        for row, (name, runs) in zip(grid, runs_of_sets.items(), strict=True):
            for axes, labels in zip(row, LABEL_SETS, strict=True):
                for balancing, colour in zip(BALANCINGS, COLOURS, strict=True):
                    mine = [
                        [(step, dice) for step, _, dice in run["curve"]]
                        for run in runs
                        if (run["labels"], run["balancing"]) == (labels, balancing)
                    ]
                    draw_curve(axes, mine, colour)
                axes.set_title(f"{name}, {labels}")
            row[0].set_ylabel("Dice on what is held out")
        for axes in grid[-1]:
            axes.set_xlabel("steps")
        grid[0][0].legend(handles=balancing_patches(), frameon=False)
    save(figure, path)


def draw_curve(
    axes: Axes,
    curves: Sequence[Sequence[tuple[int, float | None]]],
    colour: str,
    label: str | None = None,
) -> None:
    """Draw the mean of curves of the same steps, where each has a value."""
    points = [
        (column[0][0], mean(values))
        for column in zip(*curves, strict=True)
        if len(values := [value for _, value in column if value is not None])
        == len(curves)
    ]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, label=label)


def plot_maps(path: Path, runs: Sequence[Record], classes: ClassTable) -> None:
    """Draw the truth of a test image and what each cell predicts.

    Parameters
    ----------
    path
        PNG file.
    runs
        Those of a set that keep a picture, at least one.
    classes
        For colours and legend.
    """
    by_cell = {cell_name(run["labels"], run["balancing"]): run for run in runs}
    truth = from_png(runs[0]["truth"])
    height, width = truth.shape
    with mpl.rc_context(STYLE):
        figure = Figure((9, 6.6 * height / width + 1), layout="constrained")
        grid = figure.subplots(3, 4)
        for axes in grid.flat:
            axes.set_axis_off()
        show_map(grid[0][0], truth, classes, "truth")
        for row, labels in zip(grid, LABEL_SETS, strict=True):
            for axes, balancing in zip(row[1:], BALANCINGS, strict=True):
                name = cell_name(labels, balancing)
                if name in by_cell:
                    predicted = from_png(by_cell[name]["picture"])
                    show_map(axes, predicted, classes, name)
                else:
                    axes.set_title(f"{name}: not run")
        grid[1][0].legend(
            handles=class_patches(classes), loc="upper left", frameon=False
        )
    save(figure, path)


def show_map(
    axes: Axes, labels: NDArray[np.uint8], classes: ClassTable, title: str
) -> None:
    """Draw a label map in the colours of its classes; what is not annotated is grey."""
    lookup = np.full((256, 3), 128, np.uint8)
    for each in classes:
        lookup[each.value] = each.color
    axes.imshow(lookup[labels], interpolation="nearest")
    axes.set_title(title)


def class_patches(classes: ClassTable) -> list[Patch]:
    """Return what colours mean, for a legend."""
    return [
        Patch(
            facecolor="#{:02x}{:02x}{:02x}".format(*each.color),
            edgecolor="black",
            linewidth=0.5,
            label=each.name,
        )
        for each in classes
    ]


def plot_decoders(
    path: Path, runs: Sequence[Record], published: Mapping[str, float]
) -> None:
    """Draw the losses of each decoder beside the paper's, and how they fell.

    Parameters
    ----------
    path
        PNG file.
    runs
        Of the rows that *published* has.
    published
        Loss on validation images by row, in the order of the panels.
    """
    parts = {"train": "tab:green", "validation": "tab:blue", "test": "tab:red"}
    with mpl.rc_context(STYLE):
        figure = Figure((9, 2.8), layout="constrained")
        paper, ours, curves = figure.subplots(1, 3)
        for place, (row, loss) in enumerate(published.items()):
            mine = [run for run in runs if run["row"] == row]
            draw_runs(paper, place, [loss], parts["validation"])
            for shift, (part, colour) in enumerate(parts.items()):
                losses = [run["loss"][part] for run in mine]
                if losses:
                    draw_runs(ours, place * 4 + shift, losses, colour)
            steps = [[(step, loss) for step, loss, _ in run["curve"]] for run in mine]
            draw_curve(curves, steps, f"C{place}", row)
        paper.set_xticks(range(len(published)), published, rotation=20)
        ours.set_xticks(
            [4 * place + 1 for place in range(len(published))], published, rotation=20
        )
        paper.set_ylabel("cross-entropy")
        curves.set_xlabel("steps")
        for axes, title in (
            (paper, "paper, validation"),
            (ours, "here"),
            (curves, "here, of the mini-batches"),
        ):
            axes.set_title(title)
        ours.legend(
            handles=[Patch(color=c, label=name) for name, c in parts.items()],
            frameon=False,
        )
        curves.legend(frameon=False)
    save(figure, path)
