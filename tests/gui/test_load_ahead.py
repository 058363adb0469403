"""What the first layer needs is made ready in a thread, and used in the window's."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

import pint
from pint.registry import ApplicationRegistry, LazyRegistry

from napari_sparseseg.gui.load_ahead import _Units

if TYPE_CHECKING:
    import pytest
    from pytestqt.qtbot import QtBot


def test_units_are_parsed_ahead_unless_somebody_has_some_already(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = ApplicationRegistry(LazyRegistry())
    monkeypatch.setattr(pint, "application_registry", used)
    units = _Units()
    thread = Thread(target=units.parse)
    thread.start()
    thread.join()
    assert isinstance(used.get(), LazyRegistry)
    qtbot.waitUntil(lambda: not isinstance(used.get(), LazyRegistry))
    millimetre = used.mm
    assert (3 * millimetre).to("um").magnitude == 3000
    units._registry = LazyRegistry()
    units._use()
    # Units of another registry could not be compared with this one.
    assert used.mm == millimetre
