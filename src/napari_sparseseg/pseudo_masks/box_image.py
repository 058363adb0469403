"""An image with its boxes, as every method of making pseudo-masks takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sparseseg.errors import ImageError, LabelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box


@dataclass(frozen=True, eq=False)
class BoxImage:
    """One plane of an image, and the boxes drawn on it.

    Attributes
    ----------
    name
        Unique among the images given together.
    pixels
        (C, y, x) float32 in [0, 1]. All methods take a C of 1 or 3.
    boxes
        Inside of the plane, none of them empty, all on the same plane: see
        :func:`~napari_sparseseg.annotations.boxes.fit_boxes`. There may be none.

    Raises
    ------
    ImageError
        If the pixels have another shape or type, are not in [0, 1], or are none.
    LabelError
        If a box is empty, leaves the plane, or lies on another one than the first.
    """

    name: str
    pixels: NDArray[np.float32]
    boxes: tuple[Box, ...]

    def __post_init__(self) -> None:
        """Check pixels and boxes."""
        pixels = self.pixels
        if pixels.ndim != 3 or pixels.dtype != np.float32 or not pixels.size:
            raise ImageError(
                f"{self.name} has pixels of shape {pixels.shape} and type "
                f"{pixels.dtype}; expected is (channels, y, x) of type float32 with at "
                "least one pixel.",
                shape=pixels.shape,
                dtype=str(pixels.dtype),
            )
        # NaN fails every comparison.
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ImageError(
                f"{self.name} has pixels outside of [0, 1]; apply a normalisation "
                "first.",
                name=self.name,
            )
        for box in self.boxes:
            if not box.area or box.clipped(self.shape) != box:
                raise LabelError(
                    f"{self.name}: the box {box} is empty or leaves the image of shape "
                    f"{self.shape}; clip boxes to the image and skip empty ones first.",
                    box=box,
                    shape=self.shape,
                )
            if box.plane != self.boxes[0].plane:
                raise LabelError(
                    f"{self.name}: the box {box} lies on another plane than the box "
                    f"{self.boxes[0]}; give the boxes of each plane by themselves.",
                    box=box,
                )

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        height, width = self.pixels.shape[1:]
        return height, width

    def in_8_bits(self, region: Box | None = None) -> NDArray[np.uint8]:
        """Give the pixels, or those of a region, as uint8, 255 for 1.

        Returns
        -------
        ndarray
            (y, x) of one channel, otherwise (y, x, C).
        """
        pixels = self.pixels
        if region is not None:
            pixels = pixels[(slice(None), *region.slices)]
        steps: NDArray[np.uint8] = (pixels * 255 + 0.5).astype(np.uint8)
        if len(steps) == 1:
            plane: NDArray[np.uint8] = steps[0]
            return plane
        return np.ascontiguousarray(steps.transpose(1, 2, 0))
