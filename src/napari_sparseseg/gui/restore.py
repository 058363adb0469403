"""After a crash of napari its strokes are offered again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from napari_sparseseg.gui import session_folder
from napari_sparseseg.gui.class_colors import class_colormap
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.parts import agrees
from napari_sparseseg.gui.session_folder import (
    find_crashed,
    is_named,
    last_change,
    leave,
    release,
    remove,
    remove_empty,
    restore,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel
    from qtpy.QtWidgets import QAbstractButton, QWidget


def offer_restore(
    viewer: ViewerModel,
    parent: QWidget,
    keep: Callable[[list[Labels]], bool],
    go_on_in: Callable[[Path], object],
) -> QMessageBox | None:
    """Ask whether the strokes that a crash left behind shall be opened.

    Parameters
    ----------
    viewer
        Where they are opened.
    parent
        Of the question.
    keep
        Takes the layers that were opened, and tells whether their strokes are on disk
        in this session. Until then those of before are offered again.
    go_on_in
        Takes the folder that they were in.

    Returns
    -------
    QMessageBox or None
        The question, which does not block; None where there is nothing to restore.
    """
    remove_empty()
    folders = find_crashed()
    if not folders:
        return None
    newest = folders[0]
    when = datetime.fromtimestamp(last_change(newest)).strftime("%d %B, %H:%M")
    box = QMessageBox(parent)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setModal(False)
    box.setWindowTitle("Strokes of before")
    box.setIcon(QMessageBox.Icon.Question)
    box.setText(f"napari ended unexpectedly. Your strokes of {when} were kept.")
    box.setInformativeText("Open them again?")
    opened = box.addButton("Open", QMessageBox.ButtonRole.AcceptRole)
    left = box.addButton("Do not ask again", QMessageBox.ButtonRole.DestructiveRole)
    deleted = box.addButton("Delete them…", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton("Later", QMessageBox.ButtonRole.RejectRole)

    def answer(button: QAbstractButton) -> None:
        with telling():
            # The question does not block: it may have been opened otherwise.
            if session_folder.is_in_use(newest):
                return
            if button is opened and keep(open_session(viewer, newest)):
                release(newest)
                go_on_in(newest)
            if button is left:
                release(newest)
            if button is deleted and _agrees(parent, when):
                (leave if is_named(newest) else remove)(newest)

    box.buttonClicked.connect(answer)
    box.show()
    return box


def _agrees(parent: QWidget, when: str) -> bool:
    question = f"Delete the strokes of {when}? They cannot be brought back."
    return agrees(parent, "Delete strokes", question)


def open_session(viewer: ViewerModel, folder: Path) -> list[Labels]:
    """Add the label layers of a session to the viewer; its files stay as they are.

    Raises
    ------
    OutputError
        If they cannot be read.
    """
    session = restore(folder)
    layers = [
        Labels(
            each.data,
            name=each.name,
            colormap=class_colormap(session.classes),
            metadata={CLASSES_KEY: session.classes.to_json()},
            opacity=1.0,
            **each.placement,
        )
        for each in session.labels
        if each.present
    ]
    for layer in layers:
        viewer.add_layer(layer)
    return layers
