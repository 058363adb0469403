"""Sample images with strokes or boxes, all at hand without a download."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_sparseseg.annotations.boxes import Box
from napari_sparseseg.annotations.classes import ClassTable, LabelClass
from napari_sparseseg.annotations.strokes import check_label_map
from napari_sparseseg.errors import LabelError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Labels = NDArray[np.uint8] | NDArray[np.uint16]
    Mask = NDArray[np.bool_]
    Path = list[tuple[int, int]]

STROKE_WIDTH_PX: Final = 3
MIN_STROKES: Final = 6


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with strokes.

    Parameters
    ----------
    name
        Short name, fit for a file.
    image
        (y, x, 3) uint8, red, green and blue.
    labels
        (y, x) uint8: the strokes; 0 = not annotated.
    classes
        The classes of `labels` and `truth`.
    truth
        (y, x) uint8 with a class for every pixel, or None where nobody knows it.
    um_per_px
        Size of a pixel in µm, or None where it is not known.
    description
        What the image shows, in a sentence or two.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: ClassTable
    truth: NDArray[np.uint8] | None
    um_per_px: float | None
    description: str


@dataclass(frozen=True, eq=False)
class BoxSample:
    """A CT slice with boxes.

    Parameters
    ----------
    name
        Short name, fit for a file.
    image
        (y, x) int16, Hounsfield units.
    boxes
        Around the objects, tight: a box starts with the first pixel of its object.
    classes
        The classes of `boxes` and `truth`; the first is what lies around the objects.
    truth
        (y, x) uint8 with a class for every pixel.
    um_per_px
        Size of a pixel in µm.
    window
        (centre, width) of the intensities to show, in Hounsfield units.
    description
        What the image shows, in a sentence or two.
    """

    name: str
    image: NDArray[np.int16]
    boxes: tuple[Box, ...]
    classes: ClassTable
    truth: NDArray[np.uint8]
    um_per_px: float
    window: tuple[float, float]
    description: str


def tissue_phantom(seed: int = 0, shape: tuple[int, int] = (512, 512)) -> Sample:
    """Generate a section of glandular tissue with its exact truth.

    Haematoxylin and eosin: glands are rings of epithelium around a lumen, in a fibrous
    stroma with aggregates of lymphocytes. Another seed gives another section, with
    another strength of stain: learn from one and test on another.

    Parameters
    ----------
    seed
        0 or more. The same seed gives the same sample.
    shape
        (y, x), at least 128 each.

    Returns
    -------
    Sample
        Four classes, each present in the truth and in the strokes, which cover about
        1 % of the pixels.

    Raises
    ------
    OptionError
        If `shape` is too small or `seed` is negative.
    """
    from napari_sparseseg import phantom

    _check_shape("A tissue phantom", shape, phantom.MIN_SIDE_PX)
    image, truth = phantom.render(shape, _generator(seed))
    classes = ClassTable(
        (
            LabelClass(phantom.BACKGROUND, "background", (0, 200, 120)),
            LabelClass(phantom.STROMA, "stroma", (255, 225, 0)),
            LabelClass(phantom.EPITHELIUM, "gland epithelium", (0, 220, 255)),
            LabelClass(phantom.LYMPHOCYTES, "lymphocytes", (255, 90, 0)),
        )
    )
    return Sample(
        name=f"tissue_phantom_{seed}",
        image=image,
        labels=simulate_strokes(truth, seed=seed).astype(np.uint8, copy=False),
        classes=classes,
        truth=truth,
        um_per_px=phantom.UM_PER_PX,
        description=(
            "A generated picture of glandular tissue in haematoxylin and eosin: "
            "glands around their lumina, fibrous stroma, aggregates of lymphocytes, "
            "and glass beyond the edge. Every pixel's class is known."
        ),
    )


def abdomen_phantom(seed: int = 0, shape: tuple[int, int] = (320, 320)) -> BoxSample:
    """Generate an axial CT slice of an abdomen with boxes and its exact truth.

    Contrast medium in the portal venous phase: in the liver lie two to four darker
    tumours. Spleen, kidneys, stomach, bowel, spine and vessels are there, too, and are
    background like fat and air. Another seed gives another patient.

    Parameters
    ----------
    seed
        0 or more. The same seed gives the same sample.
    shape
        (y, x), at least 128 each; the body fills the slice at any size.

    Returns
    -------
    BoxSample
        Classes background, liver and liver tumour; one box around the liver with its
        tumours, and one around each tumour, those of the largest first.

    Raises
    ------
    OptionError
        If `shape` is too small or `seed` is negative.
    """
    from napari_sparseseg import abdomen

    _check_shape("An abdomen phantom", shape, abdomen.MIN_SIDE_PX)
    image, organs = abdomen.render(shape, _generator(seed))
    classes = ClassTable(
        (
            LabelClass(1, "background", (120, 120, 120)),
            LabelClass(2, "liver", (0, 200, 255)),
            LabelClass(3, "liver tumour", (255, 200, 0)),
        )
    )
    tumours = organs == abdomen.TUMOUR
    liver = tumours | (organs == abdomen.LIVER)
    truth = np.where(tumours, 3, np.where(liver, 2, 1)).astype(np.uint8)
    boxes = [*_boxes_around(liver, 2), *_boxes_around(tumours, 3)]
    return BoxSample(
        name=f"abdomen_phantom_{seed}",
        image=image,
        boxes=tuple(sorted(boxes, key=lambda box: -box.area)),
        classes=classes,
        truth=truth,
        um_per_px=1000 * abdomen.mm_per_px(shape),
        window=(40.0, 400.0),
        description=(
            "A generated CT slice of an abdomen in the portal venous phase, with "
            "tumours of the liver. Every pixel's class is known."
        ),
    )


def _boxes_around(mask: Mask, class_value: int) -> Iterator[Box]:
    """Put a box around each piece; pixels that touch at a corner are of one piece."""
    from scipy.ndimage import find_objects, label

    pieces, _ = label(mask, np.ones((3, 3)))
    for rows, columns in find_objects(pieces):
        yield Box(rows.start, columns.start, rows.stop, columns.stop, class_value)


def immunohistochemistry() -> Sample:
    """Load the colonic glands of scikit-image, with strokes drawn by hand.

    The image lies in scikit-image's own package (`skimage.data.immunohistochemistry`,
    512 x 512): FHL2 in brown (DAB), nuclei in blue (haematoxylin), from the Center for
    Microscopy and Molecular Imaging, no known copyright restrictions. The strokes are
    polylines in ``sample_data/immunohistochemistry.json``.

    Returns
    -------
    Sample
        Four classes with ten strokes or more each; no truth and no pixel size.
    """
    from skimage import data

    # scikit-image has no type hints.
    tile = data.immunohistochemistry()  # type: ignore[no-untyped-call]
    image = np.asarray(tile, np.uint8)
    drawn = _read_json("immunohistochemistry.json")
    labels = np.zeros(image.shape[:2], np.uint8)
    for stroke in drawn.pop("strokes"):
        _draw_polyline(labels, stroke["yx"], stroke["value"])
    return Sample(
        name="immunohistochemistry",
        image=image,
        labels=labels,
        classes=ClassTable.from_json(drawn),
        truth=None,
        um_per_px=None,
        description=(
            "Colonic glands: FHL2 protein in brown (DAB), nuclei in blue "
            "(haematoxylin). The epithelium includes its own nuclei; the nuclei of "
            "the stroma are a class of their own."
        ),
    )


def simulate_strokes(
    truth: ArrayLike,
    *,
    share: float = 0.01,
    width_px: int = STROKE_WIDTH_PX,
    seed: int = 0,
) -> Labels:
    """Paint sparse strokes as an annotator would, from a known truth.

    Every class gets the same amount of paint, in several smooth curves that keep
    inside the class and, as long as there is room, do not touch each other.

    Parameters
    ----------
    truth
        (y, x) integers, 0 = not annotated; no stroke is painted there.
    share
        Painted share of all pixels, above 0, at most 1. A class too small for its part
        is painted as far as possible, and the whole is less.
    width_px
        Width of the round brush.
    seed
        0 or more. The same arguments give the same strokes.

    Returns
    -------
    ndarray
        (y, x) uint8 or uint16, 0 = not annotated.

    Raises
    ------
    LabelError
        If `truth` is not a label map or has no class.
    OptionError
        If `share`, `width_px` or `seed` is out of range.
    """
    if not 0 < share <= 1:
        raise OptionError(
            f"The share of painted pixels is {share}; give a number above 0 and "
            "not above 1, for example 0.01.",
            share=share,
        )
    if width_px < 1:
        raise OptionError(
            f"The width of the strokes is {width_px} pixels; give 1 or more.",
            width_px=width_px,
        )
    regions = check_label_map(truth, name="truth")
    values = [int(value) for value in np.unique(regions) if value]
    if not values:
        raise LabelError(
            "The truth has no class, only 0 (not annotated); "
            "give one with class values from 1."
        )
    paint_px = share * regions.size / len(values)
    strokes = np.zeros_like(regions)
    for value in values:
        # Strokes of one class must not depend on which other classes there are.
        rng = _generator(seed, value)
        strokes[_paint_region(regions == value, paint_px, width_px, rng)] = value
    return strokes


def _check_shape(what: str, shape: Sequence[int], least: int) -> None:
    if len(shape) != 2 or min(shape) < least:
        raise OptionError(
            f"{what} of shape {tuple(shape)} was asked for, but it needs "
            f"(y, x) with at least {least} pixels each; "
            "ask for a larger one and crop it.",
            shape=tuple(shape),
        )


def _generator(seed: int, *more: int) -> np.random.Generator:
    if seed < 0:
        raise OptionError(f"The seed is {seed}; give 0 or a larger number.", seed=seed)
    return np.random.default_rng((seed, *more))


def _read_json(name: str) -> Any:
    folder = resources.files("napari_sparseseg") / "sample_data"
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _brush(width_px: int) -> Mask:
    """Pixels whose centre lies within half the width of the brush's centre."""
    offset = np.arange(width_px) - (width_px - 1) / 2
    brush: Mask = offset[:, None] ** 2 + offset**2 <= (width_px / 2) ** 2
    return brush


def _stamp(picture: NDArray[Any], yx: tuple[int, int], brush: Mask, value: int) -> None:
    top, left = (at - side // 2 for at, side in zip(yx, brush.shape, strict=True))
    rows, cols = np.nonzero(brush)
    rows, cols = rows + top, cols + left
    inside = (rows >= 0) & (rows < picture.shape[0])
    inside &= (cols >= 0) & (cols < picture.shape[1])
    picture[rows[inside], cols[inside]] = value


def _draw_polyline(labels: Labels, yx: list[list[int]], value: int) -> None:
    brush = _brush(STROKE_WIDTH_PX)
    for start, end in pairwise(yx):
        steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
        for row, col in np.rint(np.linspace(start, end, steps + 1)):
            _stamp(labels, (int(row), int(col)), brush, value)


def _paint_region(
    region: Mask, paint_px: float, width_px: int, rng: np.random.Generator
) -> Mask:
    """Paint about `paint_px` pixels of `region` in curves."""
    from scipy.ndimage import binary_erosion

    brush = _brush(width_px)
    # Where the whole brush fits; a region thinner than the brush clips it instead.
    fits = binary_erosion(region, brush)
    fits = fits if fits.any() else region
    painted = np.zeros_like(region)
    free = fits.copy()
    spaced = True
    length = _stroke_length(paint_px, width_px)
    while np.count_nonzero(painted) < paint_px:
        if not free.any():
            if not spaced:
                break
            free, spaced = fits & ~painted, False
            continue
        path = _longest_walk(free, round(length * rng.uniform(0.7, 1.3)), rng)
        for yx in _until(path, painted, paint_px):
            _stamp(painted, yx, brush, True)
            painted &= region
        gap = np.ones((2 * width_px + 1,) * 2, np.bool_)
        for yx in path:
            _stamp(free, yx, gap if spaced else brush, False)
    return painted


def _stroke_length(paint_px: float, width_px: int) -> int:
    """Length in px such that there are six strokes or more, none very long."""
    count = max(MIN_STROKES, round(paint_px / width_px / 60))
    # Both round ends, and slanting steps, paint more than length times width.
    return max(1, round(0.85 * (paint_px / count / width_px - width_px + 1)))


def _until(path: Path, painted: Mask, paint_px: float) -> Iterator[tuple[int, int]]:
    for yx in path:
        if np.count_nonzero(painted) >= paint_px:
            return
        yield yx


def _longest_walk(free: Mask, length: int, rng: np.random.Generator) -> Path:
    """Try a few starts, since a walk in a narrow place soon ends."""
    spots = np.argwhere(free)
    best: Path = []
    for row, col in spots[rng.integers(len(spots), size=4)]:
        path = _walk(free, (int(row), int(col)), length, rng)
        if len(path) > len(best):
            best = path
        if len(best) == length:
            break
    return best


def _walk(
    free: Mask, start: tuple[int, int], length: int, rng: np.random.Generator
) -> Path:
    """Go up to `length` pixels with slowly changing curvature, keeping to `free`."""
    path = [start]
    at = np.array(start, np.float64)
    heading, bend = rng.uniform(0, 2 * np.pi), 0.0
    while len(path) < length:
        bend = 0.9 * bend + rng.normal(0, 0.03)
        turns = [bend, 0.3, -0.3, 0.6, -0.6, 0.9, -0.9]
        for turn in turns:
            step = np.array([np.sin(heading + turn), np.cos(heading + turn)])
            # Looking ahead makes it turn before the border, not at it.
            if _is_free(free, at + step) and _is_free(free, at + 4 * step):
                break
        else:
            return path
        heading += turn
        at = at + step
        path.append((round(float(at[0])), round(float(at[1]))))
    return path


def _is_free(free: Mask, yx: NDArray[np.float64]) -> bool:
    row, col = round(float(yx[0])), round(float(yx[1]))
    inside = 0 <= row < free.shape[0] and 0 <= col < free.shape[1]
    return inside and bool(free[row, col])
