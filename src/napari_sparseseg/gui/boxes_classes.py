"""The classes of boxes: those of the dock "Label and train" where it is open."""

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
    from collections.abc import Callable, Iterable, Mapping

    from napari.components import ViewerModel

    from napari_sparseseg.annotations.classes import ClassTable


def find_training(viewer: ViewerModel) -> LabelAndTrain | None:
    """Return the open dock "Label and train" of a viewer, None where there is none."""
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
    used
        Gives the names of the classes that boxes have; they stay in the table.

    Attributes
    ----------
    table
        The table.
    deleted
        Names of classes that the user has deleted; boxes do not bring them back.

    Signals
    -------
    changed(renamed, values)
        The table is another one: names of now by those of before, and values of now by
        those of before, each of classes that are in both.
    shared()
        There is a training, whose table this is.
    """

    changed = Signal(object, object)
    shared = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        used: Callable[[], Iterable[str]],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.table = FIRST_CLASSES
        self.deleted: frozenset[str] = frozenset()
        self._viewer = viewer
        self._used = used
        self._training: ref[LabelAndTrain] | None = None

    @property
    def training(self) -> LabelAndTrain | None:
        """The dock whose table this is, None where it is our own."""
        dock = self._training() if self._training is not None else None
        if dock is None or not isalive(dock) or dock.controller.is_closed:  # type: ignore[no-untyped-call]
            return None
        return dock

    def look_for_training(self) -> None:
        """Share the table of a training that was opened meanwhile.

        Where nothing is painted there yet, it gets the table of here; otherwise the
        classes that boxes have are added to it.
        """
        dock = find_training(self._viewer)
        if dock is None or dock is self.training:
            return
        missing = self._missing(dock.state.classes)
        annotations = dock.controller.annotations
        # Strokes are counted later.
        is_painted = any(map(annotations.files, annotations.pairs))
        if missing and not is_painted:
            dock.controller.classes.use(self.table)
        for name in missing:
            if name not in dock.state.classes.names:
                dock.controller.classes.add(name)
        self._training = ref(dock)
        listen(self, dock.state.events.classes, self._on_shared)
        self._take(dock.state.classes)
        self.shared.emit()

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
            for name in self._missing(table):
                table = table.add(name)
            self._take(table)

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

    def _missing(self, table: ClassTable) -> list[str]:
        known = {"", *table.names, *self.deleted}
        return [name for name in self._used() if name not in known]

    def _on_shared(self, table: ClassTable) -> None:
        """Take what the training has made of the table: perhaps quite another one."""
        training = self.training
        if training is None:
            return
        before, now = dict(self.table.named_values), dict(table.named_values)
        others = [value for value in before if before[value] != now.get(value)]
        if before.keys() == now.keys() and len(others) == 1:
            self._take(table, {before[others[0]]: now[others[0]]})
            return
        if len(before) == len(now) + 1 and now.items() <= before.items():
            self.deleted |= {before[others[0]]}
        missing = self._missing(table)
        if missing:
            # The training tells of the table with it, and so on until none is missing.
            training.controller.classes.add(missing[0])
            return
        self._take(table)

    def _take(
        self, table: ClassTable, renamed: Mapping[str, str] | None = None
    ) -> None:
        if table == self.table:
            return
        renamed = renamed or {}
        before, self.table = self.table, table
        self.deleted -= {*table.names}
        now = {name: value for value, name in table.named_values}
        values = {
            value: now[renamed.get(name, name)]
            for value, name in before.named_values
            if renamed.get(name, name) in now
        }
        self.changed.emit(renamed, values)
