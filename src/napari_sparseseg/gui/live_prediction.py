"""The live loop: what to predict next, and what to do with the tiles that come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_sparseseg.engine.messages import (
    CancelPrediction,
    Predict,
    Predicted,
    TileDone,
)
from napari_sparseseg.errors import SparseSegError
from napari_sparseseg.gui.notify import telling

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image

    from napari_sparseseg.gui.prediction_target import PredictionTarget
    from napari_sparseseg.gui.state import State

#: Strokes, steps and movements of the camera are waited for so long.
DEBOUNCE_MS = 100


class LivePrediction(QObject):
    """Asks the engine for predictions of what is seen, and writes them as they come.

    Parameters
    ----------
    state
        Says whether predictions are wanted, and is told of their progress.
    send
        Takes a request to the engine.
    target
        Returns what is to be predicted now: the chosen image, the plane that is seen;
        None where there is nothing, and a SparseSegError where that cannot be.
    """

    _pixels_ready = Signal()

    def __init__(
        self,
        state: State,
        send: Callable[[object], None],
        target: Callable[[], PredictionTarget | None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._state = state
        self._send = send
        self._find_target = target
        self._generation = 0
        self._target: PredictionTarget | None = None
        self._has_model = False
        self._told = ""
        self._waits = False
        self._pixels_ready.connect(
            self._on_pixels_ready, Qt.ConnectionType.QueuedConnection
        )
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DEBOUNCE_MS)
        self._timer.timeout.connect(self._on_time)

    def model_changed(self) -> None:
        """Predict anew, since something was learned."""
        self._has_model = True
        if self._target is not None:
            self._target.mark_stale()
        if self._state.live == "live":
            self._on_time()

    def view_changed(self) -> None:
        """Predict what is seen now, unless that is shown or on its way."""
        if self._state.live != "live" or not self._has_model:
            return
        try:
            target = self._find_target()
        except SparseSegError:
            self._timer.start()  # Which tells why.
            return
        if target is None:
            return
        target.look()
        coming = (
            self._state.progress is not None
            and self._target is not None
            and target.is_same_plane(self._target)
            and not target.is_large
        )
        if not coming and not target.is_fresh():
            self._timer.start()

    def forget_model(self) -> None:
        """Ask for nothing until there is a model again."""
        self._has_model = False
        self.cancel()

    def forget_image(self, image: Image) -> None:
        """Give up what is asked of an image: it is gone, or has other pixels."""
        self._told = ""
        if self._target is not None and self._target.layer.image is image:
            self.cancel()
            self._target = None

    def ask_soon(self) -> None:
        """Predict what is seen once it stands still, if that is wanted."""
        if self._state.live == "live" and self._has_model:
            self._timer.start()

    def ask(self) -> None:
        """Predict what is seen now, once its pixels are there.

        Raises
        ------
        SparseSegError
            If the image cannot be read or seen, or a file cannot be written.
        """
        target = self._find_target() if self._has_model else None
        self._waits = target is not None and not target.has_pixels(
            self._pixels_ready.emit
        )
        if target is None or self._waits:
            return
        view = target.asked()
        confidence = target.confidence_file()
        request = Predict(
            generation=self._generation + 1,
            pixels=str(target.pixels_file()),
            labels=str(target.labels_file()),
            confidence=None if confidence is None else str(confidence),
            region=view if target.is_large else None,
            view=view,
            um_per_px=target.um_per_px,
        )
        target.look()
        if not target.has_all_seen():
            self._state.status = (
                "Of what is seen only the middle is predicted live; zoom in for more."
            )
        self._target = target
        self._generation = request.generation
        self._state.progress = 0.0
        self._send(request)

    def cancel(self) -> None:
        """Give up what runs."""
        self._timer.stop()
        self._waits = False
        if self._state.progress is not None:
            self._generation += 1
            self._state.progress = None
            self._send(CancelPrediction())

    @telling()
    def _on_pixels_ready(self) -> None:
        waited, self._waits = self._waits, False
        if self._state.live == "live":
            self.view_changed()
        elif waited:
            self.ask()

    @telling()
    def _on_time(self) -> None:
        try:
            self.ask()
        except SparseSegError as error:
            # Once: it would be the same at each movement of the camera.
            told = {self._told, *(pair.problem for pair in self._state.pairs)}
            self._told = str(error)
            if self._told not in told:
                show_error(self._told)
        else:
            self._told = ""

    def on_tile(self, event: TileDone) -> None:
        """Show a tile, unless it answers an earlier request."""
        if event.generation != self._generation or self._target is None:
            return
        self._target.show(event.region)
        self._state.progress = event.share

    def on_predicted(self, event: Predicted) -> None:
        """Note that a prediction is complete."""
        if event.generation == self._generation:
            self._state.progress = None
