"""Pseudo-masks by many GrabCuts with slightly different boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.errors import ImageError, LabelError, OptionError
from napari_sparseseg.pseudo_masks.label_map import BoxMask

if TYPE_CHECKING:
    from collections.abc import Generator as Parts

    from numpy.random import Generator
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box

_OUTWARDS = np.array([-1, -1, 1, 1])


@dataclass(frozen=True, slots=True)
class GrabCutOptions:
    """How a box is cut out.

    Khoreva et al. 2017 ("Simple Does It", section 3.2, GrabCut+_i) give jitter, margins
    and shares, and about 150 runs.

    Attributes
    ----------
    runs
        GrabCuts a box.
    jitter
        By how much of the box's height or width each edge moves at most.
    least_margin, largest_margin
        How wide the frame around the box is that shows the background: a share of the
        box's height above and below, of its width left and right.
    foreground
        A pixel is foreground if at least this share of the runs says so,
    background
        background if less than this share does, else undecided.
    iterations
        Of each GrabCut.
    working_side
        Boxes are shrunk or enlarged to an area of this many pixels squared before they
        are cut out. OpenCV weighs smoothness by a constant for each pair of pixels, so
        that a smaller box of little contrast comes back empty, and a larger one takes
        long.

    Raises
    ------
    OptionError
        If one of them is out of range.
    """

    runs: int = 10
    jitter: float = 0.05
    least_margin: float = 0.1
    largest_margin: float = 0.6
    foreground: float = 0.7
    background: float = 0.2
    iterations: int = 5
    working_side: int = 200

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("runs", "iterations", "working_side"):
            _check(getattr(self, name) >= 1, self, name, "an integer from 1")
        _check(0 <= self.jitter < 0.5, self, "jitter", "a share from 0 to below 0.5")
        _check(self.least_margin > 0, self, "least_margin", "a share above 0")
        _check(
            self.largest_margin >= self.least_margin,
            self,
            "largest_margin",
            f"a share of at least {self.least_margin}",
        )
        _check(0 < self.foreground <= 1, self, "foreground", "a share above 0, up to 1")
        _check(
            0 <= self.background <= self.foreground,
            self,
            "background",
            f"a share from 0 to {self.foreground}",
        )


def grabcut_in_parts(
    image: NDArray[np.uint8], box: Box, options: GrabCutOptions, generator: Generator
) -> Parts[None, None, BoxMask]:
    """Cut the object out of a box, with a break between the runs.

    Each run moves the edges of the box, takes a frame of random width around it for
    background, and separates both by GrabCut (Rother et al. 2004). A run that has
    nothing to tell them by, since the box covers all there is or all pixels are the
    same, calls the whole box foreground.

    Parameters
    ----------
    image
        (y, x), (y, x, 1) or (y, x, 3) uint8: grey values, of CT those of a window, or
        colours.
    box
        Inside of the image and not empty.
    options
        Runs, jitter, margins, shares.
    generator
        Draws edges and margins, and seeds OpenCV's own generator, which is one for the
        whole process.

    Returns
    -------
    BoxMask
        Its localisation map is the share of runs that call a pixel foreground.

    Raises
    ------
    ImageError
        If the image has another type or number of channels.
    LabelError
        If the box is empty or leaves the image.
    """
    import cv2

    pixels = _three_channels(image)
    if not box.area or box.clipped(pixels.shape[:2]) != box:
        raise LabelError(
            f"The box {box} is empty or leaves the image of shape {image.shape}; clip "
            "boxes to the image and skip empty ones first.",
            box=box,
            shape=image.shape,
        )
    edges = np.array(box.edges, np.float64)
    reach = options.largest_margin + options.jitter
    rows, columns = region = _pixels(_grown(edges, reach), pixels)
    corner = np.array([rows.start, columns.start] * 2)
    # OpenCV names x before y.
    size = columns.stop - columns.start, rows.stop - rows.start
    scale = options.working_side / math.sqrt(box.area)
    width, height = (max(1, round(scale * side)) for side in size)
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized: NDArray[Any] = cv2.resize(
        pixels[region], (width, height), interpolation=way
    )
    resized_edges = (edges - corner) * (
        np.array([height, width] * 2) / (size[::-1] * 2)
    )

    votes = np.zeros((height, width), np.float32)
    for run in range(options.runs):
        if run:
            yield
        votes += _cut_out(resized, resized_edges, options, generator)
    share = np.zeros(pixels.shape[:2], np.float32)
    # Rounded, since interpolation carries a share a little beyond its neighbours.
    share[region] = cv2.resize(votes / options.runs, size).round(4)
    return mask_of_votes(box, share[box.slices].copy(), options)


def mask_of_votes(
    box: Box, share: NDArray[np.float32], options: GrabCutOptions
) -> BoxMask:
    """Make a mask of the share (h, w) of runs that call each pixel foreground."""
    foreground = share >= options.foreground
    undecided = ~foreground & (share >= options.background)
    return BoxMask(box, foreground, share, undecided)


def _cut_out(
    image: NDArray[np.uint8],
    edges: NDArray[np.float64],
    options: GrabCutOptions,
    generator: Generator,
) -> NDArray[np.bool_]:
    """Cut out once, with a jittered box and a random margin; (y, x) bool."""
    import cv2

    jitter = generator.uniform(-options.jitter, options.jitter, 4)
    margin = generator.uniform(options.least_margin, options.largest_margin)
    seed = int(generator.integers(2**31))
    jittered = edges + jitter * _sides(edges)
    inside = _pixels(jittered, image)
    crop = _pixels(_grown(jittered, margin), image)
    seen = image[crop].copy()
    covers_all = _pixels(edges, image) == _pixels(_grown(edges, margin), image)
    if covers_all or inside == crop or (seen == seen[0, 0]).all():
        return np.ones(image.shape[:2], np.bool_)

    mask = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
    mask[inside] = cv2.GC_PR_FGD
    cut = mask[crop].copy()
    cv2.setRNGSeed(seed)
    # OpenCV keeps its colour models in the two arrays.
    models = np.zeros((2, 1, 65))
    mode = cv2.GC_INIT_WITH_MASK
    cv2.grabCut(seen, cut, None, *models, options.iterations, mode)  # type: ignore[call-overload]
    mask[crop] = cut
    foreground: NDArray[np.bool_] = mask == cv2.GC_PR_FGD
    return foreground


def _sides(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give (height, width, height, width)."""
    y0, x0, y1, x1 = edges
    return np.array([y1 - y0, x1 - x0] * 2)


def _grown(edges: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Move each edge outwards by a share of the height or width."""
    return edges + share * _OUTWARDS * _sides(edges)


def _pixels(edges: NDArray[np.float64], image: NDArray[Any]) -> tuple[slice, slice]:
    """Give the nearest pixels in an image, at least one a side."""
    y0, x0, y1, x1 = np.floor(edges + 0.5).astype(int).tolist()
    height, width = image.shape[:2]
    return _span(y0, y1, height), _span(x0, x1, width)


def _span(start: int, stop: int, size: int) -> slice:
    start = min(max(start, 0), size - 1)
    return slice(start, max(min(stop, size), start + 1))


def _three_channels(image: NDArray[Any]) -> NDArray[np.uint8]:
    array = image[..., None] if image.ndim == 2 else image
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.dtype != np.uint8:
        raise ImageError(
            f"GrabCut was given an image of shape {image.shape} and type "
            f"{image.dtype}; expected is (y, x) or (y, x, 3) of type uint8, so apply "
            "an intensity window first.",
            shape=image.shape,
            dtype=str(image.dtype),
        )
    return np.broadcast_to(array, (*array.shape[:2], 3))


def _check(good: bool, options: GrabCutOptions, name: str, expected: str) -> None:
    if not good:
        value = getattr(options, name)
        raise OptionError(
            f"GrabCut has {name} = {value}; give {expected}.", **{name: value}
        )
