"""Pseudo-masks by every method, and how well they fit the truth inside the boxes."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks._boxes_data import WINDOW, BoxData, read_train, write_masks
from benchmarks._learn_ours import import_all
from benchmarks._machine import peak_memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.networks.network_names import BackboneName
    from napari_sparseseg.pseudo_masks.api import Preparation
    from napari_sparseseg.pseudo_masks.method_names import Method
    from napari_sparseseg.pseudo_masks.methods import MinedNetwork

    Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the tables.

    Attributes
    ----------
    title
        What the row is called.
    method
        How its masks are made.
    crf
        Whether a dense CRF refines them; None = as the method has it.
    """

    title: str
    method: Method
    crf: bool | None = None


ROWS = {
    "box": Row("box", "box"),
    "ellipse": Row("ellipse in the box", "ellipse"),
    "grabcut": Row("GrabCut", "grabcut"),
    "sdi-box": Row("SDI-box, with its CRF", "sdi-box"),
    "crf-box": Row("WSSL (crf-box)", "crf-box"),
    "cam": Row("CAM", "cam", crf=False),
    "cam+crf": Row("CAM + CRF", "cam", crf=True),
    "acol": Row("ACoL", "acol", crf=False),
    "acol+crf": Row("ACoL + CRF", "acol", crf=True),
}


@dataclass(frozen=True, slots=True)
class MaskWishes:
    """What all methods are asked for.

    Attributes
    ----------
    device
        ``"cpu"`` or ``"cuda"``.
    backbone, weights
        Of region mining; see ``PseudoMaskWishes`` of the project.
    epochs
        None = those of the method.
    slices
        How many slices have boxes; None = all.
    """

    device: str
    backbone: BackboneName | None
    weights: Literal["none", "imagenet"]
    epochs: int | None
    slices: int | None


def make_masks(
    folder: Path, method: Method, seed: int, wishes: MaskWishes, files: dict[str, Path]
) -> dict[str, Any]:
    """Make the pseudo-masks of all rows of a method; what is mined is mined once.

    Parameters
    ----------
    folder
        Of the set.
    method, seed, wishes
        How.
    files
        By row, where its label maps are to be kept.

    Returns
    -------
    dict
        JSON values: ``train_s``, seconds of mining; ``peak_bytes`` of the process and
        ``gpu_peak_bytes`` of torch, None without a GPU; for each row ``mask_s``, the
        seconds beyond ``train_s``, and ``dice``, for each class that of every box.
    """
    import_all()
    data = read_train(folder, wishes.slices)
    preparation = prepared(data, method, seed, wishes)
    mined: MinedNetwork | None = None
    train_s = 0.0
    rows: dict[str, Any] = {}
    for name, path in files.items():
        labels, mined, learned_s, seconds = labels_of(
            preparation, ROWS[name].crf, mined
        )
        train_s += learned_s
        rows[name] = {
            "mask_s": seconds - learned_s,
            "dice": dice_of_boxes(labels, data),
        }
        write_masks(path, labels)
    return {
        "n_slices": len(data.images),
        "train_s": train_s,
        "peak_bytes": peak_memory(),
        "gpu_peak_bytes": gpu_peak_memory(wishes.device),
        "rows": rows,
    }


def prepared(
    data: BoxData, method: Method, seed: int, wishes: MaskWishes
) -> Preparation:
    """Get all ready that is the same for the rows of a method."""
    from napari_sparseseg.pseudo_masks.api import prepare

    return prepare(
        data.images,
        data.boxes,
        method=method,
        classes=data.classes,
        window=WINDOW,
        backbone=wishes.backbone,
        weights=wishes.weights,
        epochs=wishes.epochs,
        seed=seed,
        device=wishes.device,
    )


def labels_of(
    preparation: Preparation, crf: bool | None, mined: MinedNetwork | None
) -> tuple[Arrays, MinedNetwork | None, float, float]:
    """Make label maps.

    Returns
    -------
    tuple
        The label maps by image, the mined network, the seconds until it was there,
        and all seconds.
    """
    from napari_sparseseg.pseudo_masks.methods import (
        ImageDone,
        MiningDone,
        iter_pseudo_masks,
    )

    options = dataclasses.replace(preparation.options, crf=crf)
    labels: Arrays = {}
    learned_s = 0.0
    started = time.perf_counter()
    for event in iter_pseudo_masks(preparation.images, options, mined):
        if isinstance(event, MiningDone):
            mined, learned_s = event.mined, time.perf_counter() - started
        elif isinstance(event, ImageDone):
            labels[event.name] = event.result.labels
    return labels, mined, learned_s, time.perf_counter() - started


def dice_of_boxes(
    labels: Mapping[str, NDArray[Any]], data: BoxData
) -> dict[str, list[float]]:
    """Give by class the Dice of every box, over the pixels in it.

    Ignored pixels count as not of the class.
    """
    dice: dict[str, list[float]] = {}
    for name, mask in labels.items():
        for box in data.boxes[name]:
            of_class = data.classes.by_value(box.class_value).name
            found = dice_of_box(mask, data.truth[name], box)
            dice.setdefault(of_class, []).append(found)
    return dice


def dice_of_box(
    mask: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]], box: Box
) -> float:
    """Give the Dice of the class of a box, in the box."""
    found, real = (each[box.slices] == box.class_value for each in (mask, truth))
    both = np.count_nonzero(found) + np.count_nonzero(real)
    return 2 * np.count_nonzero(found & real) / both if both else 1.0


def gpu_peak_memory(device: str) -> int | None:
    """Return the most bytes torch held on a GPU so far, None on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated() if device == "cuda" else None
