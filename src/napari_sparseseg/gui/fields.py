"""Fields of slides as layers: where they come from, and where they lie."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_sparseseg.gui.image_layers import path_of
from napari_sparseseg.gui.layer_keys import FIELD_KEY, SOURCE_KEY
from napari_sparseseg.gui.planes import (
    PlaneKey,
    level_shape,
    n_levels,
    part_placement,
    plane_grid,
    read_plane,
    um_per_px,
)
from napari_sparseseg.io.geometry import Field
from napari_sparseseg.io.slide_fields import FieldPlan, level_for, read_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari.layers import Layer
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FieldOrigin:
    """Which part of which slide a field is.

    Attributes
    ----------
    slide
        Name of the layer of the slide when the field was made.
    path
        Of the slide's file or folder; empty where it was never in one.
    series
        Which of several images in there, empty where there is but one.
    field
        Where the field lies, in pixels of the slide's finest level.
    shape
        (y, x) in its own pixels.
    um_per_px
        Side of its pixels in micrometres, None where not known.
    """

    slide: str
    path: str
    series: str
    field: Field
    shape: tuple[int, int]
    um_per_px: float | None

    def to_json(self) -> dict[str, Any]:
        """Return it in plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FieldOrigin:
        """Return what `to_json` gave.

        Raises
        ------
        ValueError, LookupError, TypeError
            If *data* are something else.
        """
        y, x = map(float, data["field"]["offset_px"])
        height, width = map(int, data["shape"])
        um = data["um_per_px"]
        step = float(data["field"]["step_px"])
        if not (step > 0 and height > 0 and width > 0):
            raise ValueError(f"a field of {height} x {width} pixels of {step}")
        return cls(
            str(data["slide"]),
            str(data["path"]),
            str(data["series"]),
            Field((y, x), step),
            (height, width),
            None if um is None else float(um),
        )

    @property
    def plan(self) -> FieldPlan:
        """What is read of the slide."""
        return FieldPlan(self.field, self.shape)


def origin_of(layer: Layer) -> FieldOrigin | None:
    """Return which part of a slide an image is, None where it is none."""
    found: FieldOrigin | None = layer.metadata.get(FIELD_KEY)
    return found


def slide_shapes(slide: Image) -> list[tuple[int, ...]]:
    """Return (y, x) of the levels of a slide."""
    return [level_shape(slide, level) for level in range(n_levels(slide))]


def is_slide(layer: Layer) -> bool:
    """Tell whether fields can be cut out of a layer: one plane of several levels."""
    return isinstance(layer, Image) and layer.multiscale and plane_grid(layer) == ()


def slide_of(field: Image, layers: Iterable[Layer]) -> Image | None:
    """Return the slide that a field is of, None where it is not open any more."""
    origin = origin_of(field)
    if origin is None:
        return None
    slides = [
        each
        for each in layers
        if is_slide(each)
        and (each.name == origin.slide or path_of(each) == origin.path != "")
    ]
    return max(slides, key=lambda each: each.name == origin.slide, default=None)


def prediction_level(image: Image, um: float | None) -> int:
    """Return the level of an image without labels that is predicted.

    Parameters
    ----------
    image
        Of a slide the coarsest level counts that is no coarser than what was learned
        from; of others the finest.
    um
        Micrometres per pixel of what was learned from, None where not known.
    """
    slide_um = um_per_px(image)
    if um is None or slide_um is None or not is_slide(image):
        return 0
    return level_for(slide_shapes(image), um / slide_um)[0]


def new_origin(slide: Image, plan: FieldPlan, slide_um: float | None) -> FieldOrigin:
    """Say which part of a slide a planned field is.

    Parameters
    ----------
    slide
        The layer.
    plan
        The field.
    slide_um
        Micrometres per pixel of the slide's finest level, None where not known.
    """
    return FieldOrigin(
        slide.name,
        path_of(slide),
        str(slide.metadata.get(SOURCE_KEY, {}).get("series") or ""),
        plan.field,
        plan.shape,
        None if slide_um is None else slide_um * plan.field.step_px,
    )


def field_pixels(slide: Image, origin: FieldOrigin) -> NDArray[Any]:
    """Read a field; takes as long as decoding that part of the slide.

    Raises
    ------
    SparseSegError
        If the slide cannot be read.
    """
    levels = [_Level(slide, level) for level in range(n_levels(slide))]
    return read_field(levels, origin.plan)


def field_layer(
    slide: Image, origin: FieldOrigin, pixels: NDArray[Any], name: str
) -> Image:
    """Return a field as a layer that lies where it is on the slide."""
    layer = Image(
        pixels,
        name=name,
        rgb=slide.rgb,
        metadata={FIELD_KEY: origin},
        **part_placement(slide, origin.field),
    )
    if not slide.rgb:
        layer.colormap = slide.colormap
        layer.contrast_limits = slide.contrast_limits
    return layer


def new_name(slide: str, layers: Iterable[Layer]) -> str:
    """Return the name of the next field of a slide: ``SLIDE field 1``."""
    taken = {layer.name for layer in layers}
    number = 1
    while f"{slide} field {number}" in taken:
        number += 1
    return f"{slide} field {number}"


class _Level:
    """A level of a layer that is read by slices, and says so when it cannot be."""

    def __init__(self, slide: Image, level: int) -> None:
        self._slide, self._level = slide, level
        colours = (3,) if slide.rgb else ()
        self.shape = (*level_shape(slide, level), *colours)
        self.ndim = len(self.shape)
        self.dtype = slide.dtype

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[Any]:
        (y0, y1, _), (x0, x1, _) = (
            each.indices(size) for each, size in zip(key, self.shape, strict=False)
        )
        return read_plane(self._slide, PlaneKey(), self._level, (y0, x0, y1, x1))
