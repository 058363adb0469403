"""What belongs to a session is written without stopping the window, and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import disk_thread, kept_training
from napari_sparseseg.gui.kept_training import KeptTraining
from napari_sparseseg.gui.session_training import read_kept_training
from napari_sparseseg.gui.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot


def kept_opacity(folder: Path) -> float | None:
    record = read_kept_training(folder)
    return None if record is None else record.opacity


@pytest.fixture
def state() -> State:
    return State(opacity=0.25)


def test_what_is_chosen_is_on_disk_within_two_seconds(
    qtbot: QtBot, tmp_path: Path, state: State
) -> None:
    kept = KeptTraining(state, lambda: tmp_path)
    qtbot.waitUntil(lambda: kept_opacity(tmp_path) == 0.25, timeout=2000)
    state.opacity = 0.75
    qtbot.waitUntil(lambda: kept_opacity(tmp_path) == 0.75, timeout=2000)
    state.opacity = 1.0
    kept.close()
    assert kept_opacity(tmp_path) == 1.0


def test_on_a_full_disk_it_is_tried_again(
    qtbot: QtBot, tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []

    def fail(*given: Any) -> None:
        tried.append(given)
        raise OutputError("the disk is full.")

    monkeypatch.setattr(disk_thread, "PAUSE_S", 0.0)
    kept = KeptTraining(state, lambda: tmp_path)
    kept._check.setInterval(50)
    with monkeypatch.context() as patch:
        patch.setattr(kept_training, "write_kept_training", fail)
        qtbot.waitUntil(lambda: len(tried) > 2, timeout=5000)
        kept.flush()
        assert kept_opacity(tmp_path) is None
    qtbot.waitUntil(lambda: kept_opacity(tmp_path) == 0.25, timeout=5000)


def test_it_follows_the_session_to_another_folder(
    qtbot: QtBot, tmp_path: Path, state: State
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    kept = KeptTraining(state, lambda: folders[0])
    kept.flush()
    folders.reverse()
    kept.flush()
    assert [kept_opacity(folder) for folder in folders] == [0.25, 0.25]
