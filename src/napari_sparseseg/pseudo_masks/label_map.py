"""From the masks of single boxes to one label map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sparseseg.annotations.strokes import MAX_CLASS_VALUE, fit_labels
from napari_sparseseg.errors import LabelError, OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box


@dataclass(frozen=True, eq=False)
class BoxMask:
    """What a method says about the pixels of one box.

    Parameters
    ----------
    box
        The box, inside of its image and not empty; height h and width w.
    foreground
        (h, w) bool: pixels called the box's class.
    localization
        (h, w) float32 in [0, 1]: how strongly each pixel is taken for the class.
    undecided
        (h, w) bool: pixels called neither foreground nor background; None = all that
        is not foreground is background.

    Raises
    ------
    LabelError
        If the size of one of them is not that of the box.
    """

    box: Box
    foreground: NDArray[np.bool_]
    localization: NDArray[np.float32]
    undecided: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check the sizes."""
        arrays: tuple[NDArray[Any] | None, ...]
        arrays = self.foreground, self.localization, self.undecided
        for array in arrays:
            if array is not None and array.shape != self.box.shape:
                raise LabelError(
                    f"A mask of shape {array.shape} was given for the box {self.box}, "
                    f"whose shape is {self.box.shape}; give one value a pixel.",
                    shape=array.shape,
                    box=self.box,
                )

    @property
    def background(self) -> NDArray[np.bool_]:
        """(h, w) bool: pixels called background."""
        if self.undecided is None:
            return ~self.foreground
        return ~(self.foreground | self.undecided)


@dataclass(frozen=True, eq=False)
class PseudoMask:
    """The pseudo-masks of all boxes on one plane, or on the planes of a volume.

    Attributes
    ----------
    labels
        (..., y, x) uint8 or uint16: a class value, or 0 where ignored.
    localization
        (..., y, x) float32 in [0, 1]: at each pixel the localisation map of the
        smallest box that covers it; 0 outside all boxes.
    """

    labels: NDArray[np.uint8] | NDArray[np.uint16]
    localization: NDArray[np.float32]


def merge_masks(
    masks: Sequence[BoxMask],
    image_shape: Sequence[int],
    background: int = 0,
    *,
    background_inside: bool = False,
) -> PseudoMask:
    """Merge the masks of boxes into one label map.

    A pixel takes the class of the smallest box that calls it foreground (of boxes of
    the same area, the first). Where no box does but some cover it, it is ignored (Fan
    et al. 2022; the rule of the smallest box is ours). Outside of all boxes it is
    background.

    Parameters
    ----------
    masks
        All on the same plane, in any order; none is allowed.
    image_shape
        (y, x) of the plane.
    background
        The class value of background; 0 = ignored outside of boxes too.
    background_inside
        Whether pixels that every box covering them calls background are background, as
        in Khoreva et al. 2017, and not ignored. A mask without foreground says nothing.

    Raises
    ------
    LabelError
        If masks lie on several planes, or a box leaves the plane.
    OptionError
        If *background* is no class value and not 0.
    """
    if not 0 <= background <= MAX_CLASS_VALUE:
        raise OptionError(
            f"The background is {background}; give a class value from 1 to "
            f"{MAX_CLASS_VALUE}, or 0 to ignore all that lies outside of boxes.",
            background=background,
        )
    height, width = image_shape
    _check_boxes([mask.box for mask in masks], (height, width))
    highest = max([background, *(mask.box.class_value for mask in masks)])
    unmasked = np.full((height, width), background, np.min_scalar_type(highest))
    labels = fit_labels(unmasked, highest)
    localization = np.zeros((height, width), np.float32)
    for mask in masks:
        inside = labels[mask.box.slices]
        # Where nothing was found, nothing is known.
        is_told = background_inside and mask.foreground.any()
        inside[~mask.background if is_told else ...] = 0
    # Of boxes of one area the first comes last, over the others.
    for mask in sorted(masks, key=lambda mask: mask.box.area)[::-1]:
        labels[mask.box.slices][mask.foreground] = mask.box.class_value
        localization[mask.box.slices] = mask.localization
    return PseudoMask(labels, localization)


def _check_boxes(boxes: Sequence[Box], image_shape: tuple[int, int]) -> None:
    planes = sorted({box.plane for box in boxes})
    if len(planes) > 1:
        raise LabelError(
            f"The boxes lie on {len(planes)} planes, {list(planes[0])} and others; "
            "merge the masks of each plane by themselves.",
            planes=planes,
        )
    for box in boxes:
        if box.clipped(image_shape) != box:
            raise LabelError(
                f"The box {box} leaves its image of shape {image_shape}; clip boxes "
                "to the image first.",
                box=box,
                shape=image_shape,
            )
