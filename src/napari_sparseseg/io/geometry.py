"""Where the pixels of an image lie, and how large they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from napari_sparseseg.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Unit = Literal["um", "mm", "px"]

#: Micrometres per unit of length.
UM_PER_UNIT = {"um": 1.0, "mm": 1000.0}


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of an image lie in space.

    Attributes
    ----------
    axes
        Names of the axes but for channels: ``("y", "x")`` or ``("z", "y", "x")``.
    spacing
        Distance of neighbouring pixels along each axis, in *unit*.
    unit
        ``"px"`` where the file does not say; *spacing* is then 1.
    origin
        Place of the centre of the first pixel, in *unit*. Of a volume of a patient its
        components towards superior, posterior and left: ITK's origin the other way
        round, whatever the directions of the axes.
    direction
        Rows are the directions of the axes z, y, x in a patient: components towards
        left, posterior and superior (LPS, as DICOM and ITK have it). None: not known,
        or no patient.

    Raises
    ------
    ImageError
        If the numbers do not fit the axes, or a spacing is no positive number.
    """

    axes: tuple[str, ...]
    spacing: tuple[float, ...]
    unit: Unit = "px"
    origin: tuple[float, ...] = field(default=())
    direction: tuple[tuple[float, float, float], ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what is no geometry; an origin that is not given is 0."""
        if not self.origin:
            object.__setattr__(self, "origin", (0.0,) * len(self.axes))
        if not len(self.axes) == len(self.spacing) == len(self.origin):
            raise ImageError(
                f"the image has the axes {', '.join(self.axes)}, but the pixel sizes "
                f"{self.spacing} and the origin {self.origin}; expected one an axis.",
                axes=self.axes,
            )
        if not all(0 < each < math.inf for each in self.spacing):
            raise ImageError(
                f"the pixel sizes are {self.spacing}; expected numbers above 0.",
                spacing=self.spacing,
            )

    @property
    def um_per_px(self) -> float | None:
        """Side of a pixel in the plane (y, x) in micrometres, None where not known.

        Of pixels that are no squares the geometric mean.
        """
        if self.unit == "px":
            return None
        return math.sqrt(self.spacing[-1] * self.spacing[-2]) * UM_PER_UNIT[self.unit]

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4): indices (z, y, x, 1) to places towards left, posterior, superior.

        In *unit*. Where no direction is known the axes are taken as those of an image
        that is seen from the feet, as most slices are.
        """
        affine = np.eye(4)
        rows = np.asarray(self.direction or np.eye(3)[::-1])
        affine[:3, :3] = rows.T * self.spacing
        affine[:3, 3] = self.origin[::-1]
        return affine

    def lengths(self, unit: Literal["um", "mm"]) -> Geometry:
        """Return the same in another unit of length; unchanged where none is known."""
        if self.unit == "px":
            return self
        factor = UM_PER_UNIT[self.unit] / UM_PER_UNIT[unit]
        return replace(
            self,
            spacing=tuple(each * factor for each in self.spacing),
            origin=tuple(each * factor for each in self.origin),
            unit=unit,
        )

    def with_um_per_px(self, um_per_px: float) -> Geometry:
        """Give the same with square pixels of a known side.

        Parameters
        ----------
        um_per_px
            Micrometres. Where the unit was not known, other axes get the same spacing.

        Raises
        ------
        ImageError
            If it is no positive number.
        """
        unit: Unit = "um" if self.unit == "px" else self.unit
        side = um_per_px / UM_PER_UNIT[unit]
        others = self.spacing[:-2]
        if self.unit == "px":
            others = (side,) * len(others)
        return replace(self, spacing=(*others, side, side), unit=unit)


class Grid(NamedTuple):
    """The pixels of an image: how many along each axis but channels, and where."""

    shape: tuple[int, ...]
    geometry: Geometry


@dataclass(frozen=True)
class Field:
    """A part of a slide that is an image of its own.

    Attributes
    ----------
    offset_px
        (y, x) of its upper left corner, in pixels of the slide's finest level.
    step_px
        Side of its pixels, in pixels of the slide's finest level.
    """

    offset_px: tuple[float, float] = (0.0, 0.0)
    step_px: float = 1.0

    def on_slide(self, part: Field) -> Field:
        """Return where a part of this field lies on the slide.

        Parameters
        ----------
        part
            Where it lies on this field, in pixels of this field.
        """
        y, x = (
            start + inner * self.step_px
            for start, inner in zip(self.offset_px, part.offset_px, strict=True)
        )
        return Field((y, x), part.step_px * self.step_px)


WHOLE_SLIDE = Field()
"""Of an image whose pixels are those of the slide."""
