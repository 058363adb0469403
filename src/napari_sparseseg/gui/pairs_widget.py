"""Which image and labels are worked on, and the list that the training learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QItemSelectionModel, Signal
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QMenu,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_sparseseg.gui.fields_widget import FieldsWidget
from napari_sparseseg.gui.layer_combo import LayerCombo
from napari_sparseseg.gui.pairs_model import IMAGE, KIND, TICK, PairsModel
from napari_sparseseg.gui.parts import (
    WARNING,
    WheelGuard,
    allow,
    fit_height,
    lay_out_table,
    listen,
    note,
    push_button,
    say,
)
from napari_sparseseg.gui.reading_widget import ReadingWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtCore import QModelIndex

    from napari_sparseseg.gui.state import Kind, State

_NEW = "Make an empty Labels layer that fits the image, to paint strokes into"
_ADD = "Let the training learn from this image and these labels, too"
_REMOVE = "Take the picked image out of the list; no layer and no file is deleted"
_FOLDER = (
    "Add all images of a folder, with labels of the same name and an ending: tile.png "
    "and tile_labels.png, or _mask; or in folders named images and labels. Files can "
    "be dropped here, too"
)
_PREVIOUS = "Go to the image before, or plane of a volume (Alt+Left); it is shown alone"
_NEXT = "Go to the next image, or annotated plane of a volume (Alt+Right), shown alone"
#: Keys that napari leaves free, and how far they go in the list.
STEP_KEYS = {"Alt-Left": -1, "Alt-Right": 1}
#: What the user may choose, and what it is for.
KINDS: dict[Kind | None, str] = {
    "sparse": "Sparse: strokes",
    "dense": "Dense: labelled completely",
    None: "As proposed",
}
#: Fewest and most rows that are seen without scrolling.
ROWS_SEEN = (1, 5)
_NO_IMAGE = "Open an image first."


class PairsWidget(QWidget):
    """Two combos that follow the layer list, and the list of the training.

    Signals
    -------
    image_chosen, labels_chosen
        Name of the layer that is worked on now, empty where there is none.
    new_labels_pressed
        A new Labels layer is wished for, to fit the chosen image.
    field_wished
        A field shall be cut out of the slide: micrometres per pixel, None: as usual.
    field_cancelled
        It shall not be.
    pair_added
        (image, labels) to learn from.
    pair_removed
        Its place in ``state.pairs``.
    pair_ticked
        (place in ``state.pairs``, whether the training shall learn from it).
    row_chosen
        Place in ``state.pairs`` of the image to be worked on, and shown alone.
    step_wished
        1: the next image is; -1: the one before.
    kind_wished
        (place in ``state.pairs``, ``"sparse"``, ``"dense"`` or None).
    files_wished
        List of files and folders to be added to the list.
    reading_cancelled
        No more of them shall be read.
    """

    image_chosen = Signal(str)
    labels_chosen = Signal(str)
    new_labels_pressed = Signal()
    field_wished = Signal(object)
    field_cancelled = Signal()
    pair_added = Signal(str, str)
    pair_removed = Signal(int)
    pair_ticked = Signal(int, bool)
    row_chosen = Signal(int)
    step_wished = Signal(int)
    kind_wished = Signal(int, object)
    files_wished = Signal(list)
    reading_cancelled = Signal()

    def __init__(self, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._chosen: list[int] = []
        self.images = LayerCombo("no image is open")
        self.images.setToolTip("Image that is painted and predicted")
        self.labels = LayerCombo("no labels yet")
        self.labels.setToolTip("Labels layer that your strokes are in")
        self.new_button = push_button("New labels", _NEW, self.new_labels_pressed.emit)
        self.fields = FieldsWidget(state)
        self.model = PairsModel(state, self)
        self.table = QTableView()
        self.table.setModel(self.model)
        lay_out_table(self.table, IMAGE)
        self.rows = QItemSelectionModel(self.model, self)
        self.table.setSelectionModel(self.rows)
        self.previous_button = push_button("◀", _PREVIOUS, self._go_back)
        self.next_button = push_button("▶", _NEXT, self._go_on)
        self.folder_button = push_button("Add folder…", _FOLDER, self._add_folder)
        self.add_button = push_button("Add pair", _ADD, self._add)
        self.remove_button = push_button("Remove", _REMOVE, self._remove)
        self.reading = ReadingWidget(state)
        self.problem = note()
        self._lay_out()

        self.images.chosen.connect(self.image_chosen)
        self.labels.chosen.connect(self.labels_chosen)
        self.images.currentTextChanged.connect(self._show)
        self.labels.currentTextChanged.connect(self._show)
        self.fields.wished.connect(self.field_wished)
        self.fields.cancelled.connect(self.field_cancelled)
        self.reading.cancelled.connect(self.reading_cancelled)
        self.model.ticked.connect(self.pair_ticked)
        self.rows.currentRowChanged.connect(self._show)
        self.table.clicked.connect(self._on_clicked)
        self.table.activated.connect(self._on_clicked)
        listen(self, state.events.pairs, self._on_pairs)
        listen(self, state.events.why_no_step, self._show)
        self._show()

    @property
    def image(self) -> str:
        """Name of the chosen image layer, empty where there is none."""
        return self.images.currentText()

    @property
    def labels_name(self) -> str:
        """Name of the chosen Labels layer, empty where there is none."""
        return self.labels.currentText()

    def set_layers(self, images: Sequence[str], labels: Sequence[str]) -> None:
        """Offer the layers of the viewer.

        What was chosen stays, also under a new name. Where nothing was chosen, or it
        is gone, the first one is, and a signal says so.
        """
        self.images.set_names(images)
        self.labels.set_names(labels)
        self._show()

    def choose(self, image: str, labels: str) -> None:
        """Choose layers by name, without a signal."""
        self.images.choose(image)
        self.labels.choose(labels)
        self._show()

    def _lay_out(self) -> None:
        guard = WheelGuard(self)
        guard.watch(self.images, self.labels)
        with_button = QHBoxLayout()
        with_button.addWidget(self.labels)
        with_button.addWidget(self.new_button)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Image", self.images)
        form.addRow("Labels", with_button)
        form.addRow("Slide", self.fields)
        buttons = QHBoxLayout()
        buttons.setSpacing(4)
        for button in (self.previous_button, self.next_button):
            button.setFixedWidth(button.fontMetrics().height() * 2)
            buttons.addWidget(button)
        for button in (self.folder_button, self.add_button, self.remove_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.table)
        layout.addWidget(self.reading)
        layout.addWidget(self.problem)
        layout.addLayout(buttons)

    def _show(self) -> None:
        allow(self.new_button, _NEW, unless="" if self.image else _NO_IMAGE)
        allow(self.add_button, _ADD, unless=self._why_not_add())
        steps = (self.previous_button, _PREVIOUS), (self.next_button, _NEXT)
        for (button, tip), why in zip(steps, self._state.why_no_step, strict=True):
            allow(button, tip, unless=why)
        picked = self.rows.currentIndex().isValid()
        allow(
            self.remove_button,
            _REMOVE,
            unless="" if picked else "Pick an image in the list first.",
        )
        fewest, most = ROWS_SEEN
        fit_height(self.table, min(max(len(self._state.pairs), fewest), most))
        problems = [pair for pair in self._state.pairs if pair.problem]
        words = [f"{pair.image}: {pair.problem}" for pair in problems[:1]]
        if len(problems) > 1:
            words.append(f" ({len(problems)} are marked so.)")
        say(self.problem, "".join(words), WARNING)

    def _on_pairs(self) -> None:
        """Show the list, and pick in it what is worked on."""
        chosen = [row for row, pair in enumerate(self._state.pairs) if pair.is_chosen]
        # Rows that come or go take the pick away.
        if chosen != self._chosen or not self.rows.currentIndex().isValid():
            self._chosen = chosen
            for row in chosen:
                index = self.model.index(row, IMAGE)
                self.rows.setCurrentIndex(
                    index,
                    QItemSelectionModel.SelectionFlag.ClearAndSelect
                    | QItemSelectionModel.SelectionFlag.Rows,
                )
                self.table.scrollTo(index)
        self._show()

    def _why_not_add(self) -> str:
        if not self.image:
            return _NO_IMAGE
        if not self.labels_name:
            return "Press New labels first."
        chosen = (self.image, self.labels_name)
        if chosen in [(pair.image, pair.labels) for pair in self._state.pairs]:
            return "This image with these labels is in the list already."
        return ""

    def kind_menu(self, row: int) -> QMenu:
        """Return the menu in which the kind of an image is chosen."""
        menu = QMenu(self)
        pair = self._state.pairs[row]
        now = pair.kind if pair.is_kind_chosen else None
        for kind, words in KINDS.items():
            action = menu.addAction(words)
            assert action is not None
            action.setCheckable(True)
            action.setChecked(kind == now)
            action.triggered.connect(
                lambda _=False, kind=kind: self.kind_wished.emit(row, kind)
            )
        return menu

    def _on_clicked(self, index: QModelIndex) -> None:
        if index.column() == KIND:
            menu = self.kind_menu(index.row())
            menu.exec(QCursor.pos())
            menu.deleteLater()
        elif index.column() != TICK:
            self.row_chosen.emit(index.row())

    def _go_back(self) -> None:
        self.step_wished.emit(-1)

    def _go_on(self) -> None:
        self.step_wished.emit(1)

    def _add_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Add a folder of images")
        if path:
            self.files_wished.emit([path])

    def _add(self) -> None:
        self.pair_added.emit(self.image, self.labels_name)

    def _remove(self) -> None:
        self.pair_removed.emit(self.rows.currentIndex().row())
