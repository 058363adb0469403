"""The report's section on balancing and label sets."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks._learn_data import STROKES
from benchmarks._reproduce_papers import (
    BALANCINGS,
    BOKHORST,
    BOKHORST_CLAIMS,
    LABEL_SETS,
    cell_name,
)
from benchmarks._reproduce_plots import PICTURES
from benchmarks._reproduce_tables import (
    claims_table,
    markdown_table,
    order_sentences,
    score_cell,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks._reproduce_compare import Runs

    Record = dict[str, Any]

SETS = (
    "`sparse`: strokes on the images that are not `dense`. `dense`: {n} images of the "
    "train set, labelled completely; the strokes on them, and the complete labels of "
    "all other images, are not used. `combined`: both, and one patch in five comes "
    "from a dense image (4 : 1). Which images are dense is drawn anew for each seed, "
    "so that all classes are in both parts. The test images are of other patients and "
    "labelled completely. The strokes are simulated: 3 pixels wide, {shares}, and of "
    "one length for all classes of an image that are large enough. To label an image "
    "completely costs about the length of the borders between its classes:"
)


def cell_scores(runs: Iterable[Record]) -> dict[str, Runs]:
    """Return the overall Dice by cell and seed, over the classes in the truth."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        name = cell_name(run["labels"], run["balancing"])
        found.setdefault(name, {})[run["seed"]] = run["present_dice"]
    return {**found}


def balancing_section(
    by_set: dict[str, list[Record]], plans: dict[str, Record]
) -> list[str]:
    """Compare balancings and label sets."""
    everything = [run for runs in by_set.values() for run in runs]
    parts = [
        "## Balancing and label sets (Bokhorst 2018, table 2)",
        training_text(plans),
    ]
    if not everything:
        return [*parts, "Not run."]
    dense = everything[0]["effort"]["dense_images"]
    shares = " and ".join(
        f"{labels.removeprefix('strokes_').removesuffix('pct')} % of the pixels of "
        f"`{name}`"
        for name, labels in STROKES.items()
    )
    parts += [SETS.format(n=dense, shares=shares), effort_table(by_set)]
    parts.append(f"![Overall Dice of the nine trainings]({PICTURES}/balancing.png)")
    for name, runs in by_set.items():
        parts.append(f"### {name}")
        if not runs:
            parts.append("Not run.")
            continue
        parts += [dice_table(runs), share_table(runs)]
        parts.append(
            "\n".join(order_sentences(name, BOKHORST_CLAIMS, cell_scores(runs)))
        )
        if any("picture" in run for run in runs):
            parts.append(
                f"![A test image of {name}: truth and predictions]"
                f"({PICTURES}/balancing-{name}.png)"
            )
            parts.append(
                "*The test image with the most classes, seed "
                f"{min(run['seed'] for run in runs if 'picture' in run)}: label maps "
                "alone, since the images may not be copied.*"
            )
    scores = {name: cell_scores(runs) for name, runs in by_set.items()}
    parts += [
        "### The paper's differences, one by one",
        claims_table(BOKHORST_CLAIMS, scores),
        "### While they learn",
        f"![Dice on what is held out]({PICTURES}/balancing-curves.png)",
        "*Dice on held-out strokes (of `dense`: a held-out image), mean over seeds. It "
        "chooses the moment of a network that is tested, within its noise. A class of "
        "which only held-out labels would be left is learned instead; where that "
        "leaves nothing held out, there is no curve, and the last moment is tested.*",
    ]
    return parts


def training_text(plans: dict[str, Record]) -> str:
    """Say how the networks of the balancing are trained, and how the paper did."""
    light = (
        "a U-Net of 4 levels, 16 filters on the first and group normalisation (paper: "
        "5, 32, none)"
    )
    plan = next(iter(plans.values()))
    network = light if plan["preset"] == "light" else "the U-Net of the paper"
    steps = " and ".join(f"{each['steps']} (`{k}`)" for k, each in plans.items())
    scales = " and ".join(f"{each['scale']:g} (`{k}`)" for k, each in plans.items())
    return (
        f"Every training: {network}; {steps} steps of {plan['batch']} patches of up to "
        f"{plan['patch_px']} x {plan['patch_px']} pixels, of images whose sides are "
        f"{scales} times what they are; Adam, learning rate "
        f"{plan['learning_rate']:g}, {plan['schedule']} (paper: up to 225,000 steps of "
        "8 patches of 384 x 384 at 1 um, 1e-5, halved when the validation score stands "
        "still). An image is drawn, then a patch of it with a label, as drawing by "
        "class would balance by itself. Trainings of one seed start from the same "
        "weights; with the same label set they see the same mini-batches."
    )


def effort_table(by_set: dict[str, list[Record]]) -> str:
    """Lay what was annotated with strokes beside what was annotated completely."""
    rows = []
    for name, runs in by_set.items():
        efforts = list({run["seed"]: run["effort"] for run in runs}.values())
        if not efforts:
            continue
        strokes = mean(each["stroke_px"] for each in efforts)
        outlines = mean(each["outline_px"] for each in efforts)
        rows.append(
            [
                name,
                str(efforts[0]["sparse_images"]),
                f"{strokes:,.0f}",
                str(efforts[0]["dense_images"]),
                f"{outlines:,.0f}",
                f"{outlines / strokes:.2f}",
            ]
        )
    return markdown_table(
        [
            "set",
            "sparse images",
            "length of strokes (px)",
            "dense images",
            "length of borders (px)",
            "borders / strokes",
        ],
        rows,
    )


def dice_table(runs: list[Record]) -> str:
    """Dice by class and overall of the nine cells."""
    cells = [(labels, way) for labels in LABEL_SETS for way in BALANCINGS]
    of_cell = {
        cell: [run for run in runs if (run["labels"], run["balancing"]) == cell]
        for cell in cells
    }
    rows = [
        [name, *(class_cell(of_cell[cell], name) for cell in cells)]
        for name in runs[0]["dice"]
    ]
    for title, key in (
        ("**overall**", "present_dice"),
        ("pixel accuracy", "pixel_accuracy"),
    ):
        scores = ([run[key] for run in of_cell[cell]] for cell in cells)
        rows.append([title, *map(score_cell, scores)])
    rows.append(["seeds", *(str(len(of_cell[cell])) for cell in cells)])
    rows.append(
        ["paper, overall", *(f"{BOKHORST[cell_name(*cell)]:.2f}" for cell in cells)]
    )
    return "\n\n".join(
        [
            "Dice on the test images, over all their pixels. Overall is the mean over "
            "the classes that the test images have. The paper's numbers are of 13 "
            "tissue classes in other images.",
            markdown_table(
                ["class", *(f"{labels}<br>{way}" for labels, way in cells)], rows
            ),
        ]
    )


def class_cell(runs: list[Record], name: str) -> str:
    """Write the Dice of a class, if the test images have it."""
    if runs and not runs[0]["in_truth"][name]:
        return "not in the test images"
    return score_cell([run["dice"][name] for run in runs])


def share_table(runs: list[Record]) -> str:
    """Shares of the classes among the annotated pixels, as in the paper's table 1."""
    efforts = list({run["seed"]: run["effort"] for run in runs}.values())
    kinds = ("sparse_shares", "dense_shares")
    rows, extremes = [], []
    for name in efforts[0]["sparse_shares"]:
        rows.append(
            [name, *(f"{mean(each[k][name] for each in efforts):.1%}" for k in kinds)]
        )
    for kind in kinds:
        shares = [
            mean(each[kind][name] for each in efforts) for name in efforts[0][kind]
        ]
        extremes.append(f"{max(shares) / min(shares):.1f}")
    rows.append(["most / least", *extremes])
    return "\n\n".join(
        [
            "What there is to balance: shares of the classes among the annotated "
            "pixels, mean over seeds.",
            markdown_table(["class", "sparse", "dense"], rows),
        ]
    )
