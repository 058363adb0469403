"""Masks are asked of the engine, and taken from it."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, Qt, Signal

from napari_sparseseg.annotations.boxes import boxes_to_json
from napari_sparseseg.engine import messages
from napari_sparseseg.errors import OutputError, SparseSegError
from napari_sparseseg.gui.boxes_results import MadeMask
from napari_sparseseg.gui.boxes_state import LEARNING
from napari_sparseseg.gui.boxes_written import with_value
from napari_sparseseg.gui.log import log_file
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import counted
from napari_sparseseg.gui.plane_files import PREFIX
from napari_sparseseg.gui.planes import PlaneKey
from napari_sparseseg.pseudo_masks.method_names import IN_ROUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sparseseg.annotations.boxes import Box
    from napari_sparseseg.gui.boxes_sheet import BoxSheet
    from napari_sparseseg.gui.boxes_state import BoxesState
    from napari_sparseseg.gui.plane_files import PlaneFiles

LEARN_FIRST = "This method learns from all boxes together; press Generate for all."


@dataclass(frozen=True, eq=False)
class _Request:
    """Masks that are asked for."""

    sheet: BoxSheet
    boxes: tuple[Box, ...]
    settings: messages.MaskSettings
    reuse: bool

    @property
    def planes(self) -> list[tuple[int, ...]]:
        return sorted({box.plane for box in self.boxes})


@dataclass(frozen=True, eq=False)
class _Learned:
    """What the engine has learned last."""

    sheet: BoxSheet
    boxes: frozenset[Box]
    settings: messages.MaskSettings


class MaskMaking(QObject):
    """Brings boxes to the engine, and their masks back.

    Parameters
    ----------
    state
        Told of the progress.
    send
        Takes a request to the engine.
    files
        Through which the pixels go.

    Signals
    -------
    made(sheet, box)
        The mask of a box is there, or is another one.
    ended()
        Nothing runs any more.
    """

    made = Signal(object, object)
    ended = Signal()

    _pixels_ready = Signal()

    def __init__(
        self,
        state: BoxesState,
        send: Callable[[object], None],
        files: PlaneFiles,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._state = state
        self._send = send
        self._files = files
        self._folder: Path | None = None
        self._numbers = itertools.count(1)
        self._pending = 0
        self._ids: dict[tuple[BoxSheet, Box], int] = {}
        #: Of boxes whose localisation map the engine has.
        self._known: set[int] = set()
        self._settings: dict[Path, messages.MaskSettings] = {}
        self._waiting: _Request | None = None
        self._running: _Request | None = None
        self._learned: _Learned | None = None
        self._began = 0.0
        self._generation = 0
        self._refined = messages.MaskSettings()
        self._pixels_ready.connect(self._go_on, Qt.ConnectionType.QueuedConnection)

    # What is asked for.

    def make(self, sheet: BoxSheet, boxes: Sequence[Box]) -> None:
        """Make the masks of boxes by the settings of now, once the pixels are there."""
        self._give_up()
        settings = self._state.settings
        fits = self._learned is not None and (
            self._learned.sheet is sheet
            and self._learned.settings == without_refinement(settings)
        )
        # All boxes anew are learned anew, unless they are those of before.
        all_of_before = fits and self._learned.boxes == frozenset(boxes)  # type: ignore[union-attr]
        some = fits and len(boxes) < len(sheet.boxes())
        reuse = settings.method not in LEARNING or all_of_before or some
        self._waiting = _Request(sheet, tuple(boxes), settings, reuse)
        self._state.progress = 0.0
        self._say("Reading the image …")
        self._go_on()

    def why_not_some(self, sheet: BoxSheet, boxes: Sequence[Box]) -> str:
        """Say why masks cannot be made of these boxes alone; empty if they can."""
        settings = self._state.settings
        if settings.method not in LEARNING or len(boxes) == len(sheet.boxes()):
            return ""
        learned, wished = self._learned, without_refinement(settings)
        if learned is None or learned.sheet is not sheet or learned.settings != wished:
            return LEARN_FIRST
        if settings.method in IN_ROUNDS and not all(
            box in learned.boxes and self._has_map(sheet, box, wished) for box in boxes
        ):
            return LEARN_FIRST
        return ""

    def _has_map(
        self, sheet: BoxSheet, box: Box, settings: messages.MaskSettings
    ) -> bool:
        """Tell whether the engine has the map of a box that these settings made."""
        made = sheet.results.get(box)
        return (
            self._ids.get((sheet, box)) in self._known
            and made is not None
            and without_refinement(made.settings) == settings
        )

    def cancel(self) -> None:
        """Give up what runs; masks that are there stay."""
        self._give_up()
        self._end("Cancelled; the masks that were ready are kept.")

    def refine(self, sheet: BoxSheet, box: Box) -> None:
        """Make a mask anew by the CRF of now, unless it is of another method."""
        settings = self._state.settings
        number = self._ids.get((sheet, box), 0)
        made = sheet.results.get(box)
        if number not in self._known or made is None or made.accepted:
            return
        if made.settings.method != settings.method:
            return
        self._generation += 1
        self._refined = replace(
            made.settings, crf=settings.crf, crf_options=settings.crf_options
        )
        self._send(
            messages.RefineBox(
                generation=self._generation,
                name=sheet.name_of(box.plane),
                id=number,
                crf=settings.crf,
                crf_options=settings.crf_options,
                mask=str(self._root() / f"preview-{self._generation}.npy"),
            )
        )

    def forget(self, sheet: BoxSheet) -> None:
        """Give up all of a sheet whose layers are gone."""
        if any(each and each.sheet is sheet for each in (self._waiting, self._running)):
            self.cancel()
        if self._learned is not None and self._learned.sheet is sheet:
            self._learned = None
        self.keep_only(sheet, ())

    def keep_only(self, sheet: BoxSheet, boxes: Iterable[Box]) -> None:
        """Have the engine forget what it keeps of all other boxes of a sheet."""
        kept = {(sheet, box) for box in boxes}
        gone: dict[str, list[int]] = {}
        for key in [k for k in self._ids if k[0] is sheet and k not in kept]:
            number = self._ids.pop(key)
            self._known.discard(number)
            gone.setdefault(sheet.name_of(key[1].plane), []).append(number)
        if gone:
            self._send(messages.ForgetMasks(ids=gone))

    def use_values(self, values: Mapping[int, int]) -> None:
        """Know boxes by other class values, by those of before."""

        def known(request: _Request | None) -> _Request | None:
            return request and replace(
                request, boxes=tuple(with_value(box, values) for box in request.boxes)
            )

        self._waiting, self._running = known(self._waiting), known(self._running)
        self._ids = {
            (sheet, with_value(box, values)): number
            for (sheet, box), number in self._ids.items()
        }
        # The network in the engine knows the values of before.
        if any(before != now for before, now in values.items()):
            self._learned = None

    def lose_engine(self) -> None:
        """Note that the engine has ended, and what it has learned is gone."""
        self._known.clear()
        self._learned = None
        self._pending = 0
        self._waiting = None
        self._end("The masks were not finished; press Generate again.")

    def close(self) -> None:
        """Remove all files."""
        self._waiting = self._running = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    # What the engine tells.

    def take(self, event: Any) -> None:
        """Take an event in; kinds that are not of masks are passed."""
        # What was cancelled may have ended before the engine knew.
        is_last = self._pending == 1
        match event:
            case messages.MasksStarted():
                self._tell_notes(event.notes)
            case messages.MasksProgress() if is_last:
                self._on_progress(event)
            case messages.BoxMasked():
                self._on_masked(event)
            case messages.BoxRefined():
                self._on_refined(event)
            case messages.MasksDone():
                self._pending -= 1
                if is_last:
                    self._on_done(event)
            case messages.MasksCancelled():
                self._pending -= 1
            case messages.Failed(request="make-masks"):
                self._pending -= 1
                if is_last:
                    self._on_failed(event)
            case messages.Failed(request="refine-box"):
                self._say(event.message)

    def _on_progress(self, event: messages.MasksProgress) -> None:
        if self._running is None:
            return
        share = event.done / max(1, event.total)
        seconds = self._running.settings.seconds
        if event.what == "learning":
            if seconds is not None:
                share = max(share, (time.monotonic() - self._began) / seconds)
            words = f"Learning from the boxes: step {event.done} of {event.total}"
            if event.loss_a is not None:
                words += f", loss {event.loss_a + (event.loss_b or 0):.2f}"
        else:
            words = f"Masks: {event.done} of {event.total}"
        self._state.progress = min(1.0, share)
        self._say(words)

    def _on_masked(self, event: messages.BoxMasked) -> None:
        found = self._find(event.id)
        if found is None:  # the box has gone meanwhile
            self._send(messages.ForgetMasks(ids={event.name: [event.id]}))
            return
        sheet, box = found
        self._known.add(event.id)
        settings = self._settings.get(Path(event.mask).parent)
        if box not in sheet.boxes() or settings is None:
            return
        mask, localization = _taken(event.mask), _taken(event.localization)
        sheet.results.put(MadeMask(box, mask, localization, settings))
        self.made.emit(sheet, box)

    def _on_refined(self, event: messages.BoxRefined) -> None:
        found = self._find(event.id)
        if found is not None and event.generation == self._generation:
            sheet, box = found
            made = sheet.results.get(box)
            if made is not None and not made.accepted:
                made.mask, made.settings = _taken(event.mask), self._refined
                self.made.emit(sheet, box)

    def _on_done(self, event: messages.MasksDone) -> None:
        done = self._running
        if done is not None and not done.reuse:
            settings = without_refinement(done.settings)
            self._learned = _Learned(done.sheet, frozenset(done.boxes), settings)
        self._tell_notes(event.notes)
        self._end(
            f"{counted(event.boxes, 'mask')} made in {event.seconds:.0f} s; look at "
            "them, then accept."
        )

    def _on_failed(self, event: messages.Failed) -> None:
        details = f" Details: {log_file()}" if event.details else ""
        show_error(event.message + details)
        self._end(event.message)

    # Helpers.

    @telling()
    def _go_on(self) -> None:
        """Send what is asked for as soon as all its pixels are in files."""
        wish = self._waiting
        if wish is None:
            return
        try:
            for plane in wish.planes:
                image, key = wish.sheet.image, PlaneKey(plane)
                if not self._files.prepare(
                    image, key, wish.sheet.level, self._pixels_ready.emit
                ):
                    return
                # Raises what has failed, before the other planes are read.
                self._files.pixels(image, key, wish.sheet.level)
            self._waiting = None
            self._ask(wish)
        except SparseSegError as error:
            self._waiting = None
            show_error(str(error))
            self._end(str(error))
        except Exception:
            self._waiting = None
            self._end("The masks cannot be made.")
            raise

    def _ask(self, wish: _Request) -> None:
        images, sheet = [], wish.sheet
        self._files.release(self)
        for plane in wish.planes:
            boxes = [box for box in wish.boxes if box.plane == plane]
            pixels = self._files.pixels(sheet.image, PlaneKey(plane), sheet.level)
            self._files.hold(self, sheet.image, PlaneKey(plane), sheet.level)
            images.append(
                messages.BoxedImage(
                    name=sheet.name_of(plane),
                    pixels=str(pixels),
                    boxes=[self._drawn(sheet, box) for box in boxes],
                )
            )
        folder = self._root() / str(next(self._numbers))
        folder.mkdir()
        self._settings[folder] = wish.settings
        self._began = time.monotonic()
        self._running = wish
        if not wish.reuse:
            self._learned = None
        self._pending += 1
        self._say("Starting …")
        self._send(
            messages.MakeMasks(
                images=images,
                settings=wish.settings,
                folder=str(folder),
                reuse=wish.reuse,
            )
        )

    def _drawn(self, sheet: BoxSheet, box: Box) -> messages.DrawnBox:
        if (sheet, box) not in self._ids:
            self._ids[sheet, box] = next(self._numbers)
        number = self._ids[sheet, box]
        (plain,) = boxes_to_json([replace(box, plane=())])
        return messages.DrawnBox(id=number, box=plain)

    def _find(self, number: int) -> tuple[BoxSheet, Box] | None:
        for key, each in self._ids.items():
            if each == number:
                return key
        return None

    def _root(self) -> Path:
        """Return the folder of all results; what is left by a crash is removed."""
        if self._folder is None or not self._folder.is_dir():
            try:
                self._folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
            except OSError as error:
                raise OutputError(
                    f"no temporary folder can be made ({error.strerror}); free some "
                    "space, or set TMPDIR to a folder that can be written."
                ) from error
        return self._folder

    def _give_up(self) -> None:
        self._waiting = None
        if self._running is not None:
            self._running = None
            self._send(messages.CancelMasks())

    def _end(self, sentence: str) -> None:
        was_busy = self._state.progress is not None
        self._running = None
        self._state.progress = None
        if was_busy:
            self._say(sentence)
            self.ended.emit()

    def _tell_notes(self, notes: list[str]) -> None:
        if notes:
            show_info(" ".join(notes))

    def _say(self, sentence: str) -> None:
        self._state.status = sentence


def _taken(path: str) -> NDArray[Any]:
    """Return what is in a file, which is not needed any more."""
    array: NDArray[Any] = np.load(path)
    Path(path).unlink()
    return array


def without_refinement(settings: messages.MaskSettings) -> messages.MaskSettings:
    """Return settings by which the same is learned, whatever is done with it then."""
    if settings.method in IN_ROUNDS:  # in which the CRF takes part
        return settings
    return replace(settings, crf=None, crf_options=messages.CrfSettings(), background=0)
