"""The report's section on boxes."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks._boxes_networks import FULL
from benchmarks._reproduce_boxes import LEAST_DICE, TITLES
from benchmarks._reproduce_papers import FAN, FAN_CLAIMS, FAN_UNET
from benchmarks._reproduce_tables import markdown_table, order_sentences, score_cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._reproduce_boxes import Column

    Record = dict[str, Any]


def boxes_section(results: Record | None, kinds: Sequence[Column]) -> list[str]:
    """Compare the methods that make masks of boxes."""
    parts = ["## Boxes instead of masks (Fan 2022, tables 1 and 2)"]
    if results is None:
        parts.append("Not run: there are no results of `benchmarks.boxes` here.")
        return parts
    parts.append(
        "The paper scores a DeepLabV3 on ResNet-50 that learned the masks of 3762 CT "
        "slices of liver tumours (LiTS) on 1669 test slices. Here are the Dice of the "
        "tumours of sets of 24 CT slices, from `benchmarks.boxes`: of the masks "
        "themselves inside the boxes, and of networks that learned them, on test "
        f"slices. All networks start from {weights_text(results)}."
    )
    rows = []
    for row, title in TITLES.items():
        paper = f"{FAN[row]:.3f}" if row in FAN else "-"
        if row == FULL:
            paper = f"{FAN[row]:.3f}<br><sub>U-Net {FAN_UNET:.3f}</sub>"
        cells = (
            "-"
            if row == FULL and not kind.is_network
            else score_cell(kind.runs.get(row, {}).values())
            for kind in kinds
        )
        rows.append([title, paper, *cells])
    heads = ["masks by", "paper, test slices", *(kind.title for kind in kinds)]
    parts.append(markdown_table(heads, rows))
    for kind in kinds:
        if kind.learned_too_little:
            parts.append(too_little_text(kind))
        else:
            said = order_sentences(kind.title, FAN_CLAIMS, kind.runs, TITLES)
            parts.append("\n".join(said))
    return parts


def weights_text(results: Record) -> str:
    """Say where the weights of backbones come from."""
    return (
        "random weights"
        if results["weights"] == "none"
        else f"{results['weights']} weights"
    )


def too_little_text(kind: Column) -> str:
    """Say why networks are not compared."""
    full = kind.runs.get(FULL)
    if not full:
        return (
            f"{kind.title}: none learned the complete labels, so it is not known "
            "whether they learned enough to be compared."
        )
    return (
        f"{kind.title}: even complete labels lead to a Dice of "
        f"{mean(full.values()):.3f} only, below {LEAST_DICE}; these networks learned "
        "too little for their order to say anything, and are not compared."
    )
