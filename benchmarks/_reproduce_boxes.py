"""Dice of tumours by method of masks, out of the results of the benchmark of boxes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks._boxes_masks import ROWS
from benchmarks._boxes_networks import FULL, NETWORKS
from benchmarks._boxes_tables import FULL_TITLE, training_of

if TYPE_CHECKING:
    from pathlib import Path

    Record = dict[str, Any]

#: Where not even complete labels lead to this Dice, networks have learned too little
#: for their order to say anything.
LEAST_DICE = 0.3

#: Rows of the tables, in their order.
TITLES = {row: what.title for row, what in ROWS.items()} | {FULL: FULL_TITLE}


@dataclass(frozen=True, slots=True)
class Column:
    """Dice of the tumours of one kind.

    Attributes
    ----------
    title
        What was scored.
    runs
        Dice by row and seed.
    is_network
        Whether networks learned the masks and were scored on test slices, else the
        masks themselves were scored in the boxes.
    """

    title: str
    runs: dict[str, dict[int, float]]
    is_network: bool

    @property
    def learned_too_little(self) -> bool:
        """Whether the order of methods says nothing, or cannot be judged."""
        full = self.runs.get(FULL, {})
        return self.is_network and (not full or mean(full.values()) < LEAST_DICE)


def read_boxes(path: Path) -> Record | None:
    """Return the results of the benchmark of boxes; None where there are none."""
    if not path.exists():
        return None
    content: Record = json.loads(path.read_text(encoding="utf-8"))
    return content


def columns(content: Record) -> list[Column]:
    """Return what was measured of tumours, set by set: masks first, then networks."""
    masks, networks = content["masks"], content["networks"]
    found = []
    for name in dict.fromkeys(run["set"] for run in masks):
        of_set = [run for run in masks if run["set"] == name]
        found.append(Column(f"{name}: masks in the boxes", mask_runs(of_set), False))
        learned = [run for run in networks if run["set"] == name]
        kinds = dict.fromkeys((run["network"], *training_of(run)) for run in learned)
        for network, *training in kinds:
            of_kind = [
                run
                for run in learned
                if (run["network"], *training_of(run)) == (network, *training)
            ]
            title = f"{name}: {NETWORKS[network].title}, {training[0]} steps"
            found.append(Column(title, network_runs(of_kind), True))
    return found


def mask_runs(runs: list[Record]) -> dict[str, dict[int, float]]:
    """Return the mean Dice over the boxes of tumours, by row and seed."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        for row, scores in run["rows"].items():
            dice = scores["dice"][tumour_of(scores["dice"])]
            found.setdefault(row, {})[run["seed"]] = mean(dice)
    return found


def network_runs(runs: list[Record]) -> dict[str, dict[int, float]]:
    """Return the Dice of tumours on the test slices, by row and seed."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        # A class that is never found has no Dice where the truth lacks it, too.
        dice = run["dice"][tumour_of(run["dice"])] or 0.0
        found.setdefault(run["row"], {})[run["seed"]] = dice
    return found


def tumour_of(classes: dict[str, Any]) -> str:
    """Return the class that is a tumour."""
    return next(name for name in classes if "tumour" in name)
