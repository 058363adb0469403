"""What the papers measured, and the order of methods that follows from it.

Bokhorst 2018: "Learning from sparsely annotated data for semantic segmentation in
histopathology images", table 2. Fan 2022: boxes to masks of liver tumours by ACoL,
tables 1 and 2. Abdulhamid: "Semantic segmentation with histological image data", tables
1 and 2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from benchmarks._reproduce_compare import Claim

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_sparseseg.learning.balancing import Balancing

LabelSet = Literal["sparse", "dense", "combined"]

LABEL_SETS: tuple[LabelSet, ...] = ("sparse", "dense", "combined")

#: As in the columns of Bokhorst 2018, table 2.
BALANCINGS: tuple[Balancing, ...] = ("none", "instance", "mini-batch")


def cell_name(labels: str, balancing: str) -> str:
    """Call a column of Bokhorst 2018, table 2, by its labels and balancing."""
    return f"{labels}, {balancing}"


#: Overall Dice of Bokhorst 2018, table 2.
BOKHORST = {
    cell_name(labels, balancing): dice
    for labels, row in (
        ("sparse", (0.61, 0.62, 0.65)),
        ("dense", (0.68, 0.68, 0.68)),
        ("combined", (0.62, 0.68, 0.67)),
    )
    for balancing, dice in zip(BALANCINGS, row, strict=True)
}

#: Dice of the tumour on the test slices: Fan 2022, tables 1 and 2. Keys are rows of the
#: benchmark of boxes; "full" of DeepLabV3.
FAN = {
    "box": 0.563,
    "cam+crf": 0.617,
    "sdi-box": 0.626,
    "crf-box": 0.632,
    "acol+crf": 0.658,
    "full": 0.711,
}

#: Of the U-Net that learned complete labels: Fan 2022, table 1.
FAN_UNET = 0.702

#: Loss on the validation images: Abdulhamid, table 1.
ABDULHAMID = {
    "vgg-fcn-1": 0.849,
    "vgg-fcn-2": 0.774,
    "vgg-fcn-3": 0.748,
    "vgg-fcn": 0.697,
}

#: Loss of the final network: Abdulhamid, table 2.
ABDULHAMID_FINAL = {"train": 0.563, "validation": 0.697, "test": 0.685}


def claims_of(
    published: Mapping[str, float], pairs: Iterable[tuple[str, str]]
) -> list[Claim]:
    """Return the published difference of each pair."""
    return [
        Claim(first, second, published[first] - published[second])
        for first, second in pairs
    ]


BOKHORST_CLAIMS = claims_of(
    BOKHORST,
    [
        *(
            (cell_name(labels, first), cell_name(labels, second))
            for labels in LABEL_SETS
            for first, second in (
                ("instance", "none"),
                ("mini-batch", "none"),
                ("mini-batch", "instance"),
            )
        ),
        ("dense, none", "sparse, none"),
        ("dense, none", "sparse, mini-batch"),
        ("combined, instance", "sparse, mini-batch"),
        ("combined, instance", "dense, none"),
    ],
)

FAN_CLAIMS = claims_of(
    FAN,
    [
        ("cam+crf", "box"),
        ("acol+crf", "box"),
        ("acol+crf", "cam+crf"),
        ("acol+crf", "sdi-box"),
        ("acol+crf", "crf-box"),
        ("crf-box", "sdi-box"),
        ("full", "acol+crf"),
    ],
)

ABDULHAMID_CLAIMS = claims_of(ABDULHAMID, pairwise(ABDULHAMID))

ABDULHAMID_FINAL_CLAIMS = claims_of(
    ABDULHAMID_FINAL,
    [("validation", "train"), ("test", "train"), ("validation", "test")],
)
