"""The classes of boxes: those of the dock "Label & train" where it is open."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.gui.class_control import FIRST_CLASSES
from napari_sparseseg.gui.label_and_train import LabelAndTrain
from napari_sparseseg.gui.painted_classes import with_values
from napari_sparseseg.gui.parts import listen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.components import ViewerModel

    from napari_sparseseg.annotations.classes import ClassTable


def find_training(viewer: ViewerModel) -> LabelAndTrain | None:
    """Return the open dock "Label & train" of a viewer, None where there is none."""
    # Models of viewers have no window, and windows before napari 0.6.2 no list.
    docks = getattr(getattr(viewer, "window", None), "dock_widgets", {})
    for widget in docks.values():
        if isinstance(widget, LabelAndTrain) and not widget.controller.is_closed:
            return widget
    return None


class BoxClasses(QObject):
    """The class table, shared with a training as soon as there is one.

    Parameters
    ----------
    viewer
        In whose window the training is looked for.

    Signals
    -------
    changed(renamed)
        The table is another one; names of before by those of now.
    """

    changed = Signal(dict)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.table = FIRST_CLASSES
        self._viewer = viewer
        self._training: ref[LabelAndTrain] | None = None

    @property
    def training(self) -> LabelAndTrain | None:
        """The dock whose table this is, None where it is our own."""
        dock = self._training() if self._training is not None else None
        if dock is None or not isalive(dock) or dock.controller.is_closed:  # type: ignore[no-untyped-call]
            return None
        return dock

    def look_for_training(self, used: Iterable[str]) -> None:
        """Share the table of a training that was opened meanwhile.

        Where nothing is painted there yet, it gets the table of here; otherwise the
        classes that boxes have are added to it.

        Parameters
        ----------
        used
            Names of the classes of boxes.
        """
        dock = find_training(self._viewer)
        if dock is None or dock is self.training:
            return
        missing = [name for name in used if name not in dock.state.classes.names]
        if missing and not dock.state.counts:
            dock.controller.classes.use(self.table)
        for name in missing:
            if name not in dock.state.classes.names:
                dock.controller.classes.add(name)
        self._training = ref(dock)
        listen(self, dock.state.events.classes, self._on_shared)
        self._take(dock.state.classes, renamed=False)

    def add(self, name: str) -> None:
        """Add a class.

        Raises
        ------
        ClassTableError
            If the name is taken or empty.
        """
        training = self.training
        table = self.table.add(name)
        if training is None:
            self._take(table)
        else:
            training.controller.classes.add(name)

    def use(self, table: ClassTable) -> None:
        """Use the table that a layer brings, unless it is a training's."""
        if self.training is None:
            self._take(table, renamed=False)

    def meet(self, values: set[int], brought: ClassTable) -> None:
        """See that painted values have a class, with the names that labels bring.

        Raises
        ------
        ClassTableError
            If they are no class values, or rather numbers of objects.
        """
        names = {each.value: each for each in brought}
        table = with_values(self.table, values, names)
        training = self.training
        if training is None:
            self._take(table)
        elif table != self.table:
            training.controller.classes.use(table)

    def _on_shared(self, table: ClassTable) -> None:
        if self.training is not None:
            self._take(table)

    def _take(self, table: ClassTable, renamed: bool = True) -> None:
        if table == self.table:
            return
        names = dict(table.named_values)
        before, self.table = self.table, table
        self.changed.emit(
            {
                name: names[value]
                for value, name in before.named_values
                if value in names
            }
            if renamed
            else {}
        )
