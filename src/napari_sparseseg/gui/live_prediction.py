"""The live loop: what to predict next, and what to do with the tiles that come back."""

from __future__ import annotations

import logging
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

    from napari_sparseseg.gui.prediction_target import Part, PredictionTarget
    from napari_sparseseg.gui.seen_targets import SeenTargets
    from napari_sparseseg.gui.state import State

#: Strokes, steps and movements of the camera are waited for so long.
DEBOUNCE_MS = 100

#: What is seen beside the chosen image waits for the camera to stand still.
STILL_MS = 300

logger = logging.getLogger(__name__)


class LivePrediction(QObject):
    """Asks the engine for predictions of what is seen, and writes them as they come.

    First of the chosen image; when that is done, of what else is seen, one image after
    the other, in the background. A new model begins all of it anew.

    Parameters
    ----------
    state
        Says whether predictions are wanted, and is told of their progress.
    send
        Takes a request to the engine.
    targets
        What is to be predicted now. That of the chosen image raises a SparseSegError
        where it cannot be.
    """

    _pixels_ready = Signal()

    def __init__(
        self,
        state: State,
        send: Callable[[object], None],
        targets: SeenTargets,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._state = state
        self._send = send
        self._targets = targets
        self._generation = 0
        self._target: PredictionTarget | None = None
        # What runs in the background, None where that is not so.
        self._filling: Part | None = None
        # What was predicted in the background, or cannot be, since it was asked for.
        self._tried: set[Part] = set()
        self._last: Image | None = None
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
        self._still = QTimer(self)
        self._still.setSingleShot(True)
        self._still.setInterval(STILL_MS)
        self._still.timeout.connect(self._on_still)

    def model_changed(self) -> None:
        """Predict anew, since something was learned."""
        self._has_model = True
        self._targets.mark_stale()
        if self._state.live == "live":
            if self._filling is not None:
                self._give_up()
            self._on_time()

    def view_changed(self) -> None:
        """Predict what is seen now, unless that is shown or on its way."""
        if self._state.live != "live" or not self._has_model:
            return
        self._still.start()
        try:
            target = self._targets.chosen()
        except SparseSegError:
            self._timer.start()  # Which tells why.
            return
        if target is None:
            return
        target.look()
        coming = (
            self._runs
            and self._filling is None
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
        self._tried = {part for part in self._tried if part.layer.image is not image}
        if self._last is image:
            self._last = None
        if self._target is not None and self._target.layer.image is image:
            self.cancel()
            self._target = None
            self._fill_soon()

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
        self._waits = False
        self._tried.clear()
        target = self._targets.chosen() if self._has_model else None
        if target is None:
            self._fill()
            return
        self._waits = not target.has_pixels(self._pixels_ready.emit)
        if self._waits:
            return
        self._request(target)
        target.look()
        if not target.has_all_seen():
            self._state.status = (
                f"Of what is seen of '{target.layer.image.name}' only the middle is "
                "predicted live; zoom in for more."
            )

    def cancel(self) -> None:
        """Give up what runs."""
        self._timer.stop()
        self._still.stop()
        self._waits = False
        self._give_up()

    def fails(self, generation: int | None) -> bool:
        """Give up what cannot be predicted.

        Parameters
        ----------
        generation
            Number of the request; None where that is not known.

        Returns
        -------
        bool
            Whether the user is waiting for it: not for what was superseded, nor for
            what is predicted in the background.
        """
        if generation not in (None, self._generation):
            return False
        if self._filling is not None:
            self._end()
            self._fill()
            return False
        self.cancel()
        self._fill_soon()
        return True

    def on_tile(self, event: TileDone) -> None:
        """Show a tile, unless it answers an earlier request."""
        if event.generation != self._generation or self._target is None:
            return
        self._target.show(event.region)
        self._state.progress = event.share

    def on_predicted(self, event: Predicted) -> None:
        """Note that a prediction is complete, and go on with what else is seen."""
        if event.generation == self._generation:
            self._end()
            self._fill()

    @property
    def _runs(self) -> bool:
        return self._state.progress is not None

    def _request(self, target: PredictionTarget) -> None:
        view = target.asked()
        confidence = target.confidence_file()
        request = Predict(
            generation=self._generation + 1,
            pixels=str(target.pixels_file()),
            labels=str(target.labels_file()),
            confidence=None if confidence is None else str(confidence),
            region=view if target.is_large else None,
            view=view,
            in_background=target.in_background,
            um_per_px=target.um_per_px,
        )
        self._target = target
        self._filling = target.part() if target.in_background else None
        self._generation = request.generation
        self._state.predicting = target.layer.image.name
        self._state.progress = 0.0
        self._send(request)

    def _give_up(self) -> None:
        if self._runs:
            self._generation += 1
            self._filling = None
            self._state.progress = None
            self._send(CancelPrediction())

    def _end(self) -> None:
        if self._filling is not None:
            self._tried.add(self._filling)
        self._filling = None
        self._state.progress = None

    def _fill_soon(self) -> None:
        if self._state.live == "live":
            self._still.start()

    def _fill(self) -> None:
        """Predict what is seen beside the chosen image, if that is not under way.

        What is on its way in the background goes on while it is still wanted.
        """
        busy = self._waits or (self._runs and self._filling is None)
        if busy or not self._has_model:
            return
        seen = self._targets.others(self._last)
        for target in seen:
            target.look()
        if self._filling is not None:
            if self._filling in [target.part() for target in seen]:
                return
            self._give_up()
        for target in seen:
            is_done = target.is_fresh() or target.part() in self._tried
            if not is_done and self._is_asked(target):
                return

    def _is_asked(self, target: PredictionTarget) -> bool:
        """Predict something in the background; tell whether that is worth a wait."""
        try:
            if target.has_pixels(self._pixels_ready.emit):
                self._request(target)
                self._last = target.layer.image
        except SparseSegError as error:
            # The user is told when he chooses the image.
            logger.info("not predicted in the background: %s", type(error).__name__)
            self._tried.add(target.part())
            return False
        return True

    @telling()
    def _on_pixels_ready(self) -> None:
        waited, self._waits = self._waits, False
        if self._state.live == "live":
            self.view_changed()
        elif waited:
            self.ask()
        elif self._state.live == "once":
            self._fill()

    @telling()
    def _on_still(self) -> None:
        self._fill()

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
            self._fill_soon()
        else:
            self._told = ""
