"""The methods that are compared, and how one of them is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from benchmarks._learn_convpaint import run_convpaint
from benchmarks._learn_data import DENSE
from benchmarks._learn_forest import run_forest
from benchmarks._learn_ours import run_ours
from benchmarks._machine import in_fresh_process

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from napari_sparseseg.learning.balancing import Balancing


@dataclass(frozen=True, slots=True)
class Method:
    """A row of the tables.

    Attributes
    ----------
    title
        What the row is called.
    kind
        Which function runs it.
    balance, dense
        Of this project: balancing, and whether it learns from complete labels.
    max_samples
        Of the forest: share of the annotated pixels that a tree sees.
    scalings
        Of convpaint: factors of its feature pyramid.
    """

    title: str
    kind: Literal["ours", "forest", "convpaint"]
    balance: Balancing = "none"
    dense: bool = False
    max_samples: float | None = None
    scalings: tuple[int, ...] = (1,)


METHODS = {
    "none": Method("strokes, no balancing", "ours"),
    "instance": Method("strokes, instance balancing", "ours", "instance"),
    "mini-batch": Method("strokes, mini-batch balancing", "ours", "mini-batch"),
    "dense": Method("complete labels (ceiling)", "ours", dense=True),
    "forest": Method(
        "scikit-image + forest, as its example", "forest", max_samples=0.05
    ),
    "forest-all": Method("scikit-image + forest, all strokes a tree", "forest"),
    "convpaint": Method("convpaint gaussian, as it comes", "convpaint"),
    "convpaint-pyramid": Method(
        "convpaint gaussian, at 1, 1/2, 1/4, 1/8", "convpaint", scalings=(1, 2, 4, 8)
    ),
}


def can_run(name: str, args: argparse.Namespace) -> bool:
    """Tell whether what a method needs is there."""
    return METHODS[name].kind != "convpaint" or args.convpaint_python is not None


def run(
    method: Method, folder: Path, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Run one method with one seed in a process of its own."""
    if method.kind == "forest":
        return in_fresh_process(
            run_forest, folder, args.labels, seed, method.max_samples
        )
    if method.kind == "convpaint":
        return in_fresh_process(
            run_convpaint, folder, args.labels, args.convpaint_python, method.scalings
        )
    labels = DENSE if method.dense else args.labels
    marks = list(args.marks)
    return in_fresh_process(
        run_ours, folder, labels, method.balance, marks, seed, args.device
    )
