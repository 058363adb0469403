"""The question after a crash, one for all that the same window had open."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_sparseseg.gui import session_folder
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import agrees
from napari_sparseseg.gui.session_boxes import has_boxes
from napari_sparseseg.gui.session_folder import (
    find_crashed,
    has_labels,
    is_named,
    last_change,
    leave,
    left_beside,
    release,
    remove,
    remove_empty,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from qtpy.QtWidgets import QAbstractButton, QWidget

    # Opens the session in a folder, and releases that once all is on disk in the
    # session of now. Until then it is offered again.
    Opener = Callable[[Path], object]

STROKES, BOXES = "strokes", "boxes"

# What is in a session of strokes that has none.
_LIST = "list of images"

# The questions that are open, each with the folders that it is about.
_ASKED: WeakKeyDictionary[QMessageBox, list[Path]] = WeakKeyDictionary()


def offer(
    parent: QWidget, what: str, openers: Mapping[str, Opener]
) -> QMessageBox | None:
    """Ask whether what a crash left behind shall be opened.

    Parameters
    ----------
    parent
        Of the question.
    what
        `STROKES` or `BOXES`: without these nothing is asked.
    openers
        What opens each of them. What the same window has left of the others is opened
        with the same answer.

    Returns
    -------
    QMessageBox or None
        The question, which does not block; None where there is nothing to restore, or
        it is asked already.
    """
    remove_empty()
    crashed = find_crashed(boxes=what == BOXES)
    folders = [each for each in crashed if not _is_asked(each)]
    if not folders:
        return None
    beside = [each for each in left_beside(folders[0]) if _kind(each) in openers]
    # Strokes first: their classes count for boxes, too.
    left = sorted([folders[0], *beside], key=_kind, reverse=True)
    moment = max(map(last_change, left))
    when = datetime.fromtimestamp(moment).strftime("%d %B, %H:%M")
    words = " and ".join(dict.fromkeys(map(_words_on, left)))
    was, it = ("was", "it") if words == _LIST else ("were", "them")
    box = QMessageBox(parent)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setModal(False)
    box.setWindowTitle(f"{words.capitalize()} of before")
    box.setIcon(QMessageBox.Icon.Question)
    box.setText(f"napari ended unexpectedly. Your {words} of {when} {was} kept.")
    box.setInformativeText(f"Open {it} again?")
    opened = box.addButton("Open", QMessageBox.ButtonRole.AcceptRole)
    refused = box.addButton("Do not ask again", QMessageBox.ButtonRole.DestructiveRole)
    deleted = box.addButton(f"Delete {it}…", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton("Later", QMessageBox.ButtonRole.RejectRole)

    def answer(button: QAbstractButton) -> None:
        if button is deleted and not _agrees(parent, words, when):
            return
        # The question does not block: some may have been opened otherwise.
        for folder in [each for each in left if not session_folder.is_in_use(each)]:
            with telling():
                if button is opened:
                    openers[_kind(folder)](folder)
                if button is refused:
                    release(folder)
                if button is deleted:
                    (leave if is_named(folder) else remove)(folder)
        if button in (refused, deleted):
            # What an older crash has left may be what is looked for.
            offer(parent, what, openers)

    box.buttonClicked.connect(answer)
    _ASKED[box] = left
    box.show()
    return box


def _kind(folder: Path) -> str:
    return BOXES if has_boxes(folder) else STROKES


def _words_on(folder: Path) -> str:
    return _kind(folder) if has_boxes(folder) or has_labels(folder) else _LIST


def _is_asked(folder: Path) -> bool:
    return any(
        folder in folders
        for box, folders in _ASKED.items()
        if isalive(box) and box.isVisible()  # type: ignore[no-untyped-call]
    )


def _agrees(parent: QWidget, what: str, when: str) -> bool:
    question = f"Delete the {what} of {when}? This cannot be undone."
    return agrees(parent, f"Delete {what}", question)
