"""The report's section on the decoders on VGG16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks._reproduce_compare import difference
from benchmarks._reproduce_decoders import ROWS, TASK, VARIATIONS
from benchmarks._reproduce_papers import (
    ABDULHAMID,
    ABDULHAMID_CLAIMS,
    ABDULHAMID_FINAL,
    ABDULHAMID_FINAL_CLAIMS,
)
from benchmarks._reproduce_plots import PICTURES
from benchmarks._reproduce_tables import (
    claims_table,
    difference_cell,
    markdown_table,
    order_sentences,
    score_cell,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks._reproduce_compare import Runs

    Record = dict[str, Any]

#: The paper's final network.
FINAL = "vgg-fcn"


def decoder_scores(runs: Iterable[Record], part: str) -> dict[str, Runs]:
    """Return the losses on a part of the set by row and seed."""
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        found.setdefault(run["row"], {})[run["seed"]] = run["loss"][part]
    return {**found}


def decoder_section(runs: list[Record], plan: Record) -> list[str]:
    """Compare the decoders on VGG16."""
    parts = ["## Decoders on VGG16 (Abdulhamid, tables 1 and 2)"]
    if not runs:
        return [*parts, "Not run."]
    parts.append(
        "The loss, the lower the better, is the cross-entropy, mean over the pixels of "
        "an image, then over images, at full resolution; chance is 0.693 with 2 "
        f"classes and 1.099 with 3. Complete labels of `{TASK}`, 2 classes (paper: 3 "
        f"classes, 158 pictures); {len(runs[0]['validation_images'])} train images, "
        "drawn anew for each seed, are for validation, and the test images are of "
        f"other patients. First weights of VGG16: {weights_text(plan)} (paper: those "
        f"published); all layers learn. {plan['steps']} steps of {plan['batch']} whole "
        f"images, whose sides are {plan['scale']:g} times what they are, mirrored "
        "about x, about y or not; Adam, learning rate "
        f"{plan['learning_rate']:g}, times 0.96 after each tenth of the training "
        "(paper: after each of 5-10 epochs of images of 1128 x 720). What is scored is "
        "the moment with the best Dice on the validation images, within its noise."
    )
    rows = [decoder_row(row, [r for r in runs if r["row"] == row]) for row in ROWS]
    parts.append(
        markdown_table(
            [
                "network",
                "paper, validation",
                "train",
                "validation",
                "test",
                "Dice, test",
                "s a step",
                "seeds",
            ],
            rows,
        )
    )
    parts.append(f"![Losses of the decoders]({PICTURES}/decoders.png)")
    validation = decoder_scores(runs, "validation")
    parts += [
        "\n".join(
            order_sentences(
                "Loss on the validation images", ABDULHAMID_CLAIMS, validation
            )
        ),
        claims_table(ABDULHAMID_CLAIMS, {"validation": validation}),
        final_text(runs),
        variations_text(validation),
    ]
    return parts


def weights_text(plan: Record) -> str:
    """Say what the encoder starts from."""
    return {"none": "drawn", "imagenet": "ImageNet", "file": "of a file"}[
        plan["encoder_weights"]
    ]


def decoder_row(row: str, runs: list[Record]) -> list[str]:
    """Write the losses of a network."""
    paper = f"{ABDULHAMID[row]:.3f}" if row in ABDULHAMID else "-"
    return [
        ROWS[row].title,
        paper,
        *(score_cell([r["loss"][part] for r in runs]) for part in ABDULHAMID_FINAL),
        score_cell([r["dice"]["test"] for r in runs]),
        score_cell([r["learned_s"] / r["plan"]["steps"] for r in runs], 2),
        str(len(runs)),
    ]


def final_text(runs: list[Record]) -> str:
    """Compare train, validation and test of the final network."""
    final: dict[str, Runs] = {
        part: decoder_scores(runs, part).get(FINAL, {}) for part in ABDULHAMID_FINAL
    }
    published = ", ".join(f"{k} {v:.3f}" for k, v in ABDULHAMID_FINAL.items())
    said = order_sentences(
        f"`{FINAL}` (paper: {published})", ABDULHAMID_FINAL_CLAIMS, final
    )
    return "\n".join(said)


def variations_text(validation: dict[str, Runs]) -> str:
    """Compare what was added to the final network with the final network."""
    lines = []
    for row, what in VARIATIONS.items():
        found = difference(validation.get(row, {}), validation.get(FINAL, {}))
        if found is None:
            lines.append(f"- {what.title}: not run.")
            continue
        clear = "told apart" if found.is_clear else "cannot be told apart"
        if found.spread is None:
            clear = "of one run each"
        lines.append(f"- {what.title}: {difference_cell(found)}, {clear}.")
    head = (
        f"Against `{FINAL}` with cross-entropy alone, on the validation images (the "
        "paper: dropout and L2 did not prove very useful; of the mixes of L1 and L2 it "
        "gives no numbers):"
    )
    return "\n".join([head, "", *lines])
