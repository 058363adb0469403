"""The tables of the benchmark of boxes."""

from __future__ import annotations

from statistics import mean, median
from typing import TYPE_CHECKING, Any

from benchmarks._boxes_masks import ROWS
from benchmarks._boxes_networks import FULL, NETWORKS
from benchmarks._report import middle, new_section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._report import Section

    Record = dict[str, Any]

FULL_TITLE = "complete labels (ceiling)"

#: Not scored beside the classes that have boxes.
BACKGROUND = "background"


def sections(content: Record) -> list[Section]:
    """Return the tables of all runs."""
    made = content["masks"], content["networks"]
    sets = list(dict.fromkeys(run["set"] for runs in made for run in runs))
    found = []
    for name in sets:
        masks, networks = ([run for run in runs if run["set"] == name] for runs in made)
        if masks:
            found.append(mask_section(content, name, masks))
        kinds = dict.fromkeys(training_of(run) for run in networks)
        found += [
            network_section(name, kind, [r for r in networks if training_of(r) == kind])
            for kind in kinds
        ]
    if content["crf"]:
        found.append(crf_section(content))
    return found


def mask_section(content: Record, name: str, runs: Sequence[Record]) -> Section:
    """Dice in the boxes by row and class, with time and memory."""
    classes = list(next(iter(runs[0]["rows"].values()))["dice"])
    backbone = content["backbone"] or "that of the device"
    section = new_section(
        f"{name}, {runs[0]['n_slices']} slices, {content['device']}, backbone "
        f"{backbone} (weights {content['weights']}): Dice of the pseudo-masks in the "
        "boxes, mean over boxes; median over seeds, and the range",
        [
            "method",
            "seeds",
            *classes,
            "mean",
            "mining (s)",
            "masks (s)",
            "peak\nmemory (GB)",
            "on the\nGPU (GB)",
        ],
    )
    for row, what in ROWS.items():
        of_row = [run for run in runs if row in run["rows"]]
        if not of_row:
            section.table.add_row(what.title, "not run")
            continue
        scored = [run["rows"][row] for run in of_row]
        dice = [[mean(each["dice"][key]) for key in classes] for each in scored]
        section.table.add_row(
            what.title,
            str(len(of_row)),
            *map(middle, zip(*dice, strict=True)),
            middle([mean(each) for each in dice]),
            middle([run["train_s"] or None for run in of_row], 1),
            middle([each["mask_s"] for each in scored], 1),
            middle([run["peak_bytes"] / 1e9 for run in of_row], 2),
            middle([gigabytes(run["gpu_peak_bytes"]) for run in of_row], 2),
        )
    return section


def training_of(run: Record) -> tuple[int, str, str]:
    """Return how a network was trained; only such runs are compared."""
    return run["steps"], run["preset"], run["recipe"]


def network_section(
    name: str, kind: tuple[int, str, str], runs: Sequence[Record]
) -> Section:
    """Dice on the test slices by row, network and class."""
    steps, preset, recipe = kind
    classes = [key for key in runs[0]["dice"] if key != BACKGROUND]
    networks = [key for key in NETWORKS if any(r["network"] == key for r in runs)]
    section = new_section(
        f"{name}: Dice on the test slices, over all their pixels, of {preset} networks "
        f"that learned the masks in {steps} steps (recipe {recipe}); median over "
        "seeds, and the range",
        [
            "masks",
            *(
                f"{NETWORKS[network].title}\n{what}"
                for network in networks
                for what in (*classes, "mean", "s")
            ),
        ],
    )
    titles = {row: what.title for row, what in ROWS.items()} | {FULL: FULL_TITLE}
    for row, title in titles.items():
        cells: list[str] = []
        for network in networks:
            of_row = [r for r in runs if (r["row"], r["network"]) == (row, network)]
            # A class that is never found has no Dice where the truth lacks it, too.
            dice = [[run["dice"][key] or 0.0 for key in classes] for run in of_row]
            cells += (
                middle([each[place] for each in dice]) for place in range(len(classes))
            )
            cells.append(middle([mean(each) for each in dice]))
            cells.append(middle([run["learned_s"] for run in of_row], 0))
        section.table.add_row(title, *cells)
    return section


def crf_section(content: Record) -> Section:
    """Seconds of both backends."""
    section = new_section(
        "Dense CRF, 5 iterations, a generated CT slice and noisy probabilities: "
        f"milliseconds, torch on {content['device']}, pydensecrf on the CPU; medians "
        "of runs in turn and range",
        [
            "pixels",
            "classes",
            "torch",
            "pydensecrf",
            "torch / pydensecrf",
            "same\nlabels",
        ],
    )
    for case in content["crf"]:
        seconds = case["seconds"]
        ours, theirs = seconds["torch"], seconds.get("pydensecrf")
        section.table.add_row(
            f"{case['side']} x {case['side']}",
            str(case["classes"]),
            middle([1e3 * each for each in ours], 1),
            middle([1e3 * each for each in theirs], 1) if theirs else "not installed",
            f"{median(ours) / median(theirs):.2f}" if theirs else "-",
            f"{case['same_labels']:.2%}" if theirs else "-",
        )
    return section


def gigabytes(size: int | None) -> float | None:
    """Return bytes in gigabytes."""
    return None if size is None else size / 1e9
