"""The class table of a window: changed here, and brought to all who must know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine.messages import UseClasses
from napari_sparseseg.errors import LabelError, LayerError
from napari_sparseseg.gui.class_colors import give_classes
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.notify import telling
from napari_sparseseg.gui.painted_classes import erase, values_of, with_values
from napari_sparseseg.gui.parts import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_sparseseg.annotations.classes import LabelClass
    from napari_sparseseg.gui.annotations import Annotations
    from napari_sparseseg.gui.mirror import Mirror
    from napari_sparseseg.gui.state import State
    from napari_sparseseg.gui.training_run import TrainingRun

#: Classes to begin with. Background is a class like any other.
FIRST_CLASSES = ClassTable().add("background").add("structure")


class ClassControl(QObject):
    """Changes the class table of the state.

    Parameters
    ----------
    state
        Has the table, and the class that is painted.
    annotations
        The label layers that show its colours.
    mirror
        Keeps it on disk.
    run
        Of which some changes end the training.
    send
        Takes a request to the engine.

    Signals
    -------
    changed()
        The table is another one.
    """

    changed = Signal()

    def __init__(
        self,
        state: State,
        annotations: Annotations,
        mirror: Mirror,
        run: TrainingRun,
        send: Callable[[object], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._state = state
        self._annotations = annotations
        self._mirror = mirror
        self._run = run
        self._send = send
        self._deleted: dict[int, LabelClass] = {}
        self._is_refused = False
        #: Names of the files of the list that have a class value.
        self.files_with: Callable[[int], list[str]] = lambda value: []
        if not len(state.classes):
            self.use(FIRST_CLASSES)

    # What the user wishes.

    @telling()
    def add(self, name: str) -> None:
        """Add a class; it becomes the one that is painted."""
        classes = self._state.classes.add(name)
        self.use(classes)
        self.select(classes.values[-1])

    @telling()
    def rename(self, value: int, name: str) -> None:
        """Give a class another name."""
        self.use(self._state.classes.renamed(value, name))

    @telling()
    def recolour(self, value: int, color: tuple[int, int, int]) -> None:
        """Give a class another colour."""
        self.use(self._state.classes.recolored(value, color))

    @telling()
    def delete(self, value: int) -> None:
        """Delete a class and erase its strokes, which each layer can undo."""
        classes = self._state.classes
        gone = classes.by_value(value)
        named = self.files_with(value)
        if named:
            raise LabelError(
                f"The class '{gone.name}' is labelled in {counted(len(named), 'file')} "
                f"of the list, {named[0]} among them; take them out of the list first.",
                value=value,
            )
        left = set(self._annotations.counts()) & {*classes.values} - {value}
        if self._run.goes_on and len(left) < 2:
            self._run.stop()
            show_warning(
                f"Without the class '{gone.name}' there is nothing left to tell "
                "apart, so the training is stopped; paint another class and press "
                "Train."
            )
        for pair in self._annotations.pairs:
            erase(pair.labels, value)
        # The engine must have labels without the class before it may forget it.
        self._annotations.flush()
        self._deleted[value] = gone
        self.use(classes.removed(value))
        if self._state.selected == value:
            values = self._state.classes.values
            self.select(values[0] if values else 0)

    @telling()
    def select(self, value: int) -> None:
        """Paint this class from now on."""
        self._state.selected = value
        for labels in self._layers():
            self._let_paint(labels)

    # What label layers bring along.

    def adopt(self, labels: Labels) -> None:
        """Take over the classes of a label layer, and give it those of now.

        Once something is painted, only those that are new; the user is told where a
        value means another class.
        """
        brought = labels.metadata.get(CLASSES_KEY)
        if brought is not None:
            with telling():
                table = ClassTable.from_json(brought)
                painted = bool(self._state.counts)
                self.use(self._state.classes.merged(table) if painted else table)
        self._take_in(values_of(labels))
        give_classes(labels, self._state.classes)
        with telling():
            self._let_paint(labels)

    def adopt_file(self, classes: ClassTable | None, values: set[int]) -> None:
        """Take over the classes of labels in a file; each value gets one."""
        if classes is not None and not self._state.counts:
            self.use(classes)
        self._take_in(values)

    def meet(self, values: set[int]) -> None:
        """Make sure that painted values have a class, and that all are on disk."""
        self._keep()
        self._take_in(values)

    def use(self, classes: ClassTable) -> None:
        """Use another table from now on."""
        self._state.classes = classes
        if not self._state.selected and len(classes):
            self._state.selected = classes.values[0]
        self._keep()
        for labels in self._layers():
            give_classes(labels, self._state.classes)
        if self._state.engine == "ready":
            self.send()
        self.changed.emit()

    # What the engine knows.

    def send(self) -> None:
        """Bring the table to the engine."""
        self._is_refused = False
        self._run.use_classes(self._state.classes)
        self._send(UseClasses(classes=self._state.classes.to_json()))

    def note_refusal(self) -> None:
        """Note that the engine has labels with classes that are not in the table."""
        self._is_refused = True

    def send_again(self) -> None:
        """Bring it to the engine if that was refused, and labels are others now."""
        if self._is_refused:
            self.send()

    # Helpers.

    def _layers(self) -> set[Labels]:
        return {pair.labels for pair in self._annotations.pairs}

    def _keep(self) -> None:
        with telling():
            self._mirror.use_classes(self._state.classes)

    def _take_in(self, values: set[int]) -> None:
        classes = with_values(self._state.classes, values, self._deleted)
        if classes != self._state.classes:
            self.use(classes)

    def _let_paint(self, labels: Labels) -> None:
        """Let the brush paint the selected class.

        Raises
        ------
        LayerError
            If the layer cannot hold its value.
        """
        highest = int(np.iinfo(labels.dtype).max)
        if self._state.selected > highest:
            raise LayerError(
                f"The label layer '{labels.name}' holds values up to {highest}, but "
                f"the class to paint has {self._state.selected}; press New labels for "
                "a layer that holds it.",
                highest=highest,
            )
        labels.selected_label = self._state.selected
