"""An image and the boxes drawn on it, with all that has become of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from napari_sparseseg.errors import LayerError
from napari_sparseseg.gui.boxes_layer import read_boxes
from napari_sparseseg.gui.boxes_proposals import ProposalLayers
from napari_sparseseg.gui.boxes_results import FOREGROUND, BoxResults
from napari_sparseseg.gui.boxes_state import BoxRow
from napari_sparseseg.gui.planes import PlaneKey, labels_level, level_shape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import LayerList
    from napari.layers import Image, Labels, Shapes

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.annotations.classes import ClassTable
    from napari_sparseseg.gui.boxes_layer import DrawnBox

_NUMBERS = itertools.count()


class BoxSheet:
    """Boxes of one Shapes layer on one image.

    Parameters
    ----------
    layers
        Of the viewer.
    image, shapes
        The layers.
    classes
        The class table.

    Attributes
    ----------
    level
        Of a multiscale image, in whose pixels boxes and masks are.
    drawn
        One entry for each shape.
    results
        The masks.
    layers
        What shows them.
    problem
        Why the boxes do not fit the image; empty where they do.
    """

    def __init__(
        self, layers: LayerList, image: Image, shapes: Shapes, classes: ClassTable
    ) -> None:
        self.image = image
        self.shapes = shapes
        self.level = labels_level(image)
        height, width = level_shape(image, self.level)[-2:]
        self.results = BoxResults((height, width))
        self.layers = ProposalLayers(layers, image, classes)
        self.drawn: tuple[DrawnBox, ...] = ()
        self.problem = ""
        self._number = next(_NUMBERS)

    def read(self, classes: ClassTable) -> set[tuple[int, ...]]:
        """Read the boxes of now, and forget the masks of those that are gone.

        Returns
        -------
        set of tuple
            Planes on which masks are gone.
        """
        try:
            self.drawn, self.problem = read_boxes(self.shapes, self.image, classes), ""
        except LayerError as error:
            self.drawn, self.problem = (), str(error)
        return self.results.keep_only(self.boxes())

    def boxes(self, places: Iterable[int] | None = None) -> list[Box]:
        """Return the boxes that can be used; of all shapes, or of those at *places*."""
        chosen = range(len(self.drawn)) if places is None else places
        boxes = [self.drawn[place].box for place in chosen]
        return [box for box in boxes if box is not None]

    def rows(self, classes: ClassTable) -> tuple[BoxRow, ...]:
        """Return what the dock lists."""
        return tuple(self._row(drawn, classes) for drawn in self.drawn)

    def name_of(self, plane: tuple[int, ...]) -> str:
        """Return the name of a plane in the engine."""
        return f"{self._number} {plane}"

    def show(
        self, planes: Iterable[tuple[int, ...]], labels: Labels | None, with_map: bool
    ) -> None:
        """Show the masks of planes, and their localisation maps where wished for.

        Proposed masks are shown above the labels that they may be accepted into.
        """
        shown = self.layers
        if shown.masks is None or (with_map and shown.map is None):
            # What the user has deleted comes back whole.
            planes = {*planes, *self.results.planes}
        for plane in sorted(planes):
            proposed = self.results.proposed(plane)
            if proposed.any() or self.layers.masks is not None:
                self.layers.show(PlaneKey(plane), proposed)
            if proposed.any():
                self.layers.lift(labels, self.shapes)
            if with_map:
                localization = self.results.localization(plane)
                self.layers.show_map(PlaneKey(plane), localization)

    def _row(self, drawn: DrawnBox, classes: ClassTable) -> BoxRow:
        known = drawn.class_name in classes.names
        value = classes.by_name(drawn.class_name).value if known else 0
        if drawn.box is None:
            return BoxRow(
                value, drawn.class_name, status="skipped", problem=drawn.problem
            )
        made = self.results.get(drawn.box)
        return BoxRow(
            value,
            drawn.class_name,
            _place(drawn.box),
            "drawn" if made is None else "accepted" if made.accepted else "proposed",
            0.0 if made is None else float((made.mask == FOREGROUND).mean()),
        )


def _place(box: Box) -> str:
    height, width = box.shape
    plane = f"plane {', '.join(map(str, box.plane))}, " if box.plane else ""
    return f"{plane}{height} x {width} px"
