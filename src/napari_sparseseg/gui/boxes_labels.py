"""The label layers that masks of boxes are accepted into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import LabelError, LayerError, enumerated
from napari_sparseseg.gui.boxes_written import WrittenLabels
from napari_sparseseg.gui.class_colors import give_classes
from napari_sparseseg.gui.homes import other_home, settle
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.painted_classes import values_of
from napari_sparseseg.gui.planes import check_pair, labels_level

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Image, Labels

    from napari_sparseseg.gui.boxes_classes import BoxClasses


#: Layers that masks of boxes were accepted into, of all windows.
_WITH_MASKS: WeakSet[Labels] = WeakSet()


def has_masks(layer: Labels) -> bool:
    """Tell whether masks of boxes were accepted into a layer."""
    return layer in _WITH_MASKS


class BoxLabels(QObject):
    """Knows which labels have masks, and takes no others than those of the image.

    Parameters
    ----------
    classes
        Of the masks; classes that labels have painted are added to them.

    Signals
    -------
    painted()
        Something was painted or undone in labels that have masks.
    """

    painted = Signal()

    def __init__(self, classes: BoxClasses, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._classes = classes
        self._written: dict[Labels, WrittenLabels] = {}

    def look_at(self, labels: Labels) -> WrittenLabels:
        """Return what masks have written into labels; of others, nothing yet."""
        return self._written.get(labels) or WrittenLabels(labels)

    def open(self, image: Image, labels: Labels) -> WrittenLabels:
        """Return labels that masks of an image may be written into, with its classes.

        Raises
        ------
        LayerError, LabelError, ClassTableError
            If they are of another image, lie elsewhere, or mean something else.
        """
        self._check(image, labels)
        self._share_classes(labels)
        settle(labels, image)
        if labels not in self._written:
            self._written[labels] = WrittenLabels(labels)
            _WITH_MASKS.add(labels)
            self._look_to(labels, "connect")
        return self._written[labels]

    def forget(self, labels: Any) -> WrittenLabels | None:
        """Forget labels that are deleted; return what was written, None if nothing."""
        if labels not in self._written:
            return None
        self._look_to(labels, "disconnect")
        return self._written.pop(labels)

    def forget_gone(self) -> None:
        """Forget masks that were erased, painted over or undone altogether."""
        for written in self._written.values():
            written.forget_gone()

    def use_values(self, values: Mapping[int, int]) -> None:
        """Know boxes by other class values, by those of before."""
        for written in self._written.values():
            written.use_values(values)

    def close(self) -> None:
        """Look to no layer any more."""
        for labels in self._written:
            self._look_to(labels, "disconnect")

    def _check(self, image: Image, labels: Labels) -> None:
        if not fits(image, labels):
            raise LayerError(
                f"The label layer '{labels.name}' does not lie on '{image.name}' "
                "pixel by pixel any more; choose other labels, or press New labels."
            )
        home = other_home(labels, image)
        if home:
            raise LayerError(
                f"The label layer '{labels.name}' is of '{home}'; press New labels for "
                f"masks of '{image.name}'."
            )
        here = dict(self._classes.table.named_values)
        for value, name in _brought(labels).named_values:
            if (
                here.get(value, name) != name
                and (np.asarray(labels.data) == value).any()
            ):
                raise LabelError(
                    f"In '{labels.name}' the value {value} is '{name}', but here it is "
                    f"'{here[value]}'; choose other labels, or press New labels.",
                    value=value,
                )

    def _share_classes(self, labels: Labels) -> None:
        """Take classes in that labels have painted, and give them the table of now."""
        brought = _brought(labels)
        if brought != self._classes.table:
            painted = values_of(labels)
            self._classes.meet(painted, brought)
            unnamed = sorted(painted - set(brought.values))
            if unnamed:
                names = [self._classes.table.by_value(value).name for value in unnamed]
                show_info(
                    f"Values in '{labels.name}' had no class: {enumerated(unnamed)}; "
                    f"they are now {enumerated(names)}."
                )
        highest = max(self._classes.table.values)
        if highest > np.iinfo(labels.dtype).max:
            raise LayerError(
                f"The label layer '{labels.name}' holds values up to "
                f"{np.iinfo(labels.dtype).max}, but a class has {highest}; "
                "press New labels."
            )
        give_classes(labels, self._classes.table)

    def _look_to(self, labels: Labels, act: str) -> None:
        """Notice when labels are painted or undone, or do so no more."""
        for event in (labels.events.paint, labels.events.set_data, labels.events.data):
            getattr(event, act)(self._on_painted)

    def _on_painted(self, _event: Any = None) -> None:
        self.painted.emit()


def fits(image: Image, labels: Labels) -> bool:
    """Tell whether labels lie where masks of the image do, pixel by pixel."""
    try:
        return check_pair(image, labels) == labels_level(image)
    except LayerError:
        return False


def _brought(labels: Labels) -> ClassTable:
    """Return the class table that labels have, an empty one where they have none."""
    brought = labels.metadata.get(CLASSES_KEY)
    return ClassTable() if brought is None else ClassTable.from_json(brought)
