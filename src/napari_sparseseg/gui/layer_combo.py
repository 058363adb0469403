"""A combo of layer names that keeps its choice when the list changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QComboBox, QSizePolicy, QStyle, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtWidgets import QStyleOptionComboBox

#: Between the edge of the field and the name in it.
MARGIN_PX = 4


class LayerCombo(QComboBox):
    """Names of layers, of which one is chosen as soon as there is one for that.

    Signals
    -------
    chosen
        The name that is chosen now, empty where there is none: by the user, or
        because the list of names has changed.
    """

    chosen = Signal(str)

    def __init__(self, nothing: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setPlaceholderText(nothing)
        # Long names shall not widen the dock.
        self.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.currentTextChanged.connect(self.chosen)

    @property
    def names(self) -> list[str]:
        """All names."""
        return [self.itemText(index) for index in range(self.count())]

    def set_names(self, names: Sequence[str]) -> None:
        """Offer other names; *chosen* is sent only if another one is chosen then.

        The first is chosen where the choice is gone.
        """
        before = self.currentText()
        kept = _kept(self.names, names, before)
        if kept is None:
            kept = 0 if names else -1
        self._offer(names, kept)
        if self.currentText() != before:
            self.chosen.emit(self.currentText())

    def set_names_and_choice(self, names: Sequence[str], name: str) -> None:
        """Offer other names and choose one, empty = none, without a signal."""
        self._offer(names, list(names).index(name) if name in names else -1)

    def choose(self, name: str) -> None:
        """Choose a name, without a signal; a name that is not there is left alone."""
        index = self.findText(name)
        if index >= 0:
            with QSignalBlocker(self):
                self.setCurrentIndex(index)

    def initStyleOption(self, option: QStyleOptionComboBox | None) -> None:
        """Leave out the middle of a long name: fields of a slide differ at the end."""
        super().initStyleOption(option)
        style = self.style()
        if option is None or style is None:
            return
        room = style.subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            option,
            QStyle.SubControl.SC_ComboBoxEditField,
            self,
        )
        option.currentText = option.fontMetrics.elidedText(
            option.currentText, Qt.TextElideMode.ElideMiddle, room.width() - MARGIN_PX
        )

    def _offer(self, names: Sequence[str], place: int) -> None:
        with QSignalBlocker(self):
            self.clear()
            self.addItems(list(names))
            self.setCurrentIndex(place)


def _kept(before: Sequence[str], after: Sequence[str], name: str) -> int | None:
    """Return where the choice is now: by name, or by place if it was renamed.

    None where it is gone.
    """
    if name in after:
        return list(after).index(name)
    if name in before and len(before) == len(after):
        place = list(before).index(name)
        if after[place] not in before:
            return place
    return None
