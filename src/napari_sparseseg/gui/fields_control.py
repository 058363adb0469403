"""Cuts fields out of slides: a rectangle that the user drags becomes an image."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.errors import ImageError, LayerError, SparseSegError
from napari_sparseseg.gui.fields import (
    field_layer,
    field_pixels,
    is_slide,
    new_name,
    new_origin,
    origin_of,
    slide_of,
    slide_shapes,
)
from napari_sparseseg.gui.fields_drag import RectangleDrag
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.planes import shows_planes, um_per_px
from napari_sparseseg.io.slide_fields import (
    LARGEST_SIDE,
    SMALLEST_SIDE,
    field_step,
    plan_field,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_sparseseg.gui.fields import FieldOrigin
    from napari_sparseseg.gui.pair_control import PairControl
    from napari_sparseseg.gui.state import State
    from napari_sparseseg.io.slide_fields import Rectangle


class FieldsControl(QObject):
    """Waits for a rectangle, reads its pixels in a thread, and adds them as a layer.

    Parameters
    ----------
    viewer
        The napari viewer.
    state
        Told what goes on, and why nothing can.
    pairs
        Know the chosen image: a slide, or a field of one.
    learned_um
        Returns micrometres per pixel of what is learned from, None where not known.

    Attributes
    ----------
    drag
        The rectangle that is waited for.

    Signals
    -------
    made(image)
        A field is in the viewer.
    """

    made = Signal(object)

    _read = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        state: State,
        pairs: PairControl,
        learned_um: Callable[[], float | None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._state = state
        self._pairs = pairs
        self._learned_um = learned_um
        self.drag = RectangleDrag(viewer, self)
        self._slide: Image | None = None
        self._step = 1.0
        self._coming: Future[NDArray[Any]] | None = None
        self._origin: FieldOrigin | None = None
        self._reader = ThreadPoolExecutor(max_workers=1)
        self.drag.dragged.connect(self._on_dragged)
        self.drag.given_up.connect(self.cancel)
        self._read.connect(self._on_read)
        pairs.chosen.connect(self._judge)
        viewer.layers.events.inserted.connect(self._judge)
        viewer.layers.events.removed.connect(self._judge)
        self._judge()

    @telling()
    def start(self, wished_um: float | None = None) -> None:
        """Wait for a rectangle on the chosen slide, or on that of the chosen field.

        Parameters
        ----------
        wished_um
            Micrometres per pixel; None: those of what is learned from already, else
            those of the level nearest to 0.5.
        """
        slide = self._chosen_slide()
        if slide is None:
            raise LayerError(self._why_not())
        if not shows_planes(self._viewer):
            raise LayerError(
                "A field is drawn on the slide in 2D with its axes in order; go back "
                "to that view first."
            )
        self.cancel()
        size = um_per_px(slide)
        wished = wished_um or self._learned_um()
        self._slide, self._step = slide, field_step(slide_shapes(slide), size, wished)
        self.drag.start(slide)
        self._state.is_cutting = True
        at = (
            "with the slide's own pixels, whose size is not known (to give it, open "
            "the slide again)"
            if size is None
            else f"at {self._step * size:.3g} µm per pixel"
        )
        self._state.status = (
            f"Drag a rectangle on '{slide.name}' for a field {at}: {SMALLEST_SIDE} to "
            f"{LARGEST_SIDE:,} pixels a side. Esc cancels."
        )

    @telling()
    def cancel(self) -> None:
        """Wait no more, neither for a rectangle nor for its pixels."""
        if self._state.is_cutting:
            self._end()
            self._state.status = "No field was made."

    def forget(self, layer: Layer) -> None:
        """Give up what is waited for where its layer was deleted."""
        if self._state.is_cutting and layer in (self._slide, self.drag.layer):
            self.cancel()

    def close(self) -> None:
        """End: nothing is followed any more."""
        self._end()
        self._reader.shutdown(cancel_futures=True)
        self._viewer.layers.events.inserted.disconnect(self._judge)
        self._viewer.layers.events.removed.disconnect(self._judge)

    @telling()
    def _judge(self, _event: object = None) -> None:
        self._state.cannot_cut = self._why_not()

    def _chosen_slide(self) -> Image | None:
        image = self._pairs.image
        if image is None or image not in self._viewer.layers:
            return None
        return image if is_slide(image) else slide_of(image, self._viewer.layers)

    def _why_not(self) -> str:
        image = self._pairs.image
        if image is None:
            return "Open a slide first."
        if self._chosen_slide() is not None:
            return ""
        origin = origin_of(image)
        if origin is not None:
            return f"The slide '{origin.slide}' is closed; open it again."
        if image.multiscale:
            return f"'{image.name}' has several planes; press New labels and paint."
        return f"'{image.name}' can be painted whole; press New labels."

    @telling()
    def _on_dragged(self, corners: Rectangle) -> None:
        slide = self._slide
        if slide is None:
            return
        try:
            plan = plan_field(slide_shapes(slide), corners, self._step, slide.name)
        except ImageError as error:
            self.drag.again()
            show_warning(str(error))
            return
        self.drag.stop()
        self._origin = new_origin(slide, plan, um_per_px(slide))
        height, width = plan.shape
        self._state.status = f"Reading a field of {height} x {width} pixels …"
        # Decoding takes seconds where the slide has no level of that resolution.
        self._coming = self._reader.submit(field_pixels, slide, self._origin)
        self._coming.add_done_callback(self._tell)

    def _tell(self, done: Future[NDArray[Any]]) -> None:
        if not done.cancelled():
            self._read.emit(done)

    @telling()
    def _on_read(self, done: Future[NDArray[Any]]) -> None:
        if done is not self._coming:
            return
        slide, origin = self._slide, self._origin
        assert slide is not None
        assert origin is not None
        self._end()
        try:
            pixels = done.result()
        except SparseSegError as error:
            self._state.status = "No field was made."
            raise error
        name = new_name(slide.name, self._viewer.layers)
        field = field_layer(slide, origin, pixels, name)
        self._viewer.add_layer(field)
        self.made.emit(field)
        self._state.status = _words_on(origin, name)

    def _end(self) -> None:
        self.drag.stop()
        if self._coming is not None:
            self._coming.cancel()
        self._coming = self._origin = self._slide = None
        self._state.is_cutting = False


def _words_on(origin: FieldOrigin, name: str) -> str:
    height, width = origin.shape
    if origin.um_per_px is None:
        return (
            f"'{name}' has {height} x {width} of the slide's own pixels, whose size is "
            "not known. Paint on it."
        )
    return (
        f"'{name}' has {height} x {width} pixels of {origin.um_per_px:.3g} µm. Paint "
        "on it."
    )
