"""Sparse, dense and combined label sets of the same images, and what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._learn_data import DENSE, STROKES, read_learn_data, read_pairs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks._learn_data import LearnData
    from benchmarks._reproduce_papers import LabelSet

    Arrays = dict[str, NDArray[Any]]

#: Images that are labelled completely; all others of the train set have strokes. So
#: there are four images with strokes to one that is complete on `glas`.
N_DENSE = 4

#: Each class has so many pixels in the complete label maps, 1 % of the smallest image,
#: and a stroke in the others: else a network would never see it.
LEAST_PX = 500

#: Width of the strokes of all sets.
STROKE_PX = 3

#: A line in any direction crosses so many pixel edges per length, on average.
EDGES_PER_PX = 4 / math.pi

#: Draws of images before it is given up that all classes are in both parts.
ATTEMPTS = 10_000


@dataclass(frozen=True, eq=False)
class LabelSets:
    """The images of a set, each with strokes or with complete labels.

    Attributes
    ----------
    data
        Train images with strokes, all of them, and test images with truth.
    complete
        Complete label maps of all train images.
    dense
        Names of the images whose complete label maps are used. No other image's are,
        and of these the strokes are not.
    """

    data: LearnData
    complete: Arrays
    dense: tuple[str, ...]

    def sparse_labels(self) -> Arrays:
        """Return the strokes on the images that are not dense."""
        return {k: v for k, v in self.data.labels.items() if k not in self.dense}

    def dense_labels(self) -> Arrays:
        """Return the complete label maps of the dense images."""
        return {name: self.complete[name] for name in self.dense}

    def of(self, labels: LabelSet) -> tuple[Arrays, Arrays]:
        """Return the sparse and the dense label maps of a label set; one may be empty.

        Of the combined set both are: four patches to one are drawn from the sparse.
        """
        sparse = {} if labels == "dense" else self.sparse_labels()
        return sparse, {} if labels == "sparse" else self.dense_labels()

    def effort(self) -> dict[str, Any]:
        """Return what was annotated in both parts, as JSON values.

        Lengths of what an annotator draws are in pixels of the images: along strokes,
        and along the borders between classes of complete label maps.
        """
        return {
            "sparse_images": len(self.sparse_labels()),
            "dense_images": len(self.dense),
            "stroke_px": stroke_length(self.sparse_labels()),
            "outline_px": outline_length(self.dense_labels()),
            "sparse_shares": class_shares(self.sparse_labels(), self.data.classes),
            "dense_shares": class_shares(self.dense_labels(), self.data.classes),
        }


def read_label_sets(folder: Path, seed: int) -> LabelSets:
    """Read a set and draw the images that are labelled completely.

    Raises
    ------
    SparseSegError
        If the set is not there or a file of it cannot be read.
    RuntimeError
        If there is no draw that leaves all classes in both parts.
    """
    data = read_learn_data(folder, STROKES[folder.name])
    _, complete = read_pairs(folder / "train", DENSE)
    random = np.random.default_rng(seed)
    for _ in range(ATTEMPTS):
        drawn = sorted(random.permutation(list(complete))[:N_DENSE].tolist())
        sets = LabelSets(data, complete, tuple(drawn))
        if _has_all_classes(sets):
            return sets
    raise RuntimeError(f"{folder.name}: no {N_DENSE} images leave all classes in both")


def _has_all_classes(sets: LabelSets) -> bool:
    values = sets.data.classes.values
    pixels = _counts(sets.dense_labels(), values)
    strokes = _counts(sets.sparse_labels(), values)
    return bool((pixels >= LEAST_PX).all() and (strokes > 0).all())


def _counts(labels: Mapping[str, NDArray[Any]], values: Any) -> NDArray[np.int64]:
    """Return the pixels of each class value."""
    total = sum(
        np.bincount(each.ravel(), minlength=max(values) + 1) for each in labels.values()
    )
    return np.asarray(total)[list(values)]


def class_shares(labels: Mapping[str, NDArray[Any]], classes: Any) -> dict[str, float]:
    """Return the share of each class, by name, of the annotated pixels."""
    counts = _counts(labels, classes.values)
    shares = (counts / counts.sum()).tolist()
    return dict(zip(classes.names, shares, strict=True))


def stroke_length(labels: Mapping[str, NDArray[Any]]) -> float:
    """Return the length of all strokes, in pixels."""
    return sum(int((each != 0).sum()) for each in labels.values()) / STROKE_PX


def outline_length(labels: Mapping[str, NDArray[Any]]) -> float:
    """Return the length of the borders between classes, in pixels.

    The edges between pixels of different classes are counted, which are more than the
    length of a border by ``EDGES_PER_PX`` (Crofton's formula of two directions).
    """
    edges = sum(
        int((each[1:] != each[:-1]).sum()) + int((each[:, 1:] != each[:, :-1]).sum())
        for each in labels.values()
    )
    return edges / EDGES_PER_PX
