"""Settings and saved models are kept with the session, and come back with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from napari_sparseseg.engine import messages
from napari_sparseseg.engine.messages import TrainingSettings
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.session_training import (
    FILE,
    VERSION,
    TrainingRecord,
    read_kept_training,
    write_kept_training,
)
from napari_sparseseg.gui.state import SavedModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from tests.gui.conftest import Table

SETTINGS = TrainingSettings(net="vgg-fcn", window=(40.0, 400.0), scale=0.5, patch_px=96)
MODEL = SavedModel("/models/Leber 1.safetensors", "2026-03-04T05:06", 120, 9, 0.8125)


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    scored = SavedModel("/m", "2026-03-04T05:07", 7, 3, 0.5, {"肝": 0.25, "b": 0.75})
    record = TrainingRecord(SETTINGS, "off", 0.25, True, (MODEL, scored))
    write_kept_training(tmp_path, record)
    assert read_kept_training(tmp_path) == record
    assert read_kept_training(tmp_path / "nowhere") is None


def change(folder: Path, **values: object) -> None:
    data = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**data, **values}))


def test_settings_that_are_not_known_are_those_of_the_beginning(
    tmp_path: Path,
) -> None:
    write_kept_training(tmp_path, TrainingRecord(SETTINGS, models=(MODEL,)))
    change(tmp_path, settings={"net": "of tomorrow"})
    record = read_kept_training(tmp_path)
    assert record is not None
    assert (record.settings, record.models) == (TrainingSettings(), (MODEL,))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"models": "none"}, "is damaged"),
        ({"live": "sometimes"}, "is damaged"),
        ({"version": 8}, f"version 8, but this program reads version {VERSION}"),
    ],
)
def test_a_file_that_is_not_understood_is_refused(
    tmp_path: Path, values: dict[str, object], sentence: str
) -> None:
    write_kept_training(tmp_path, TrainingRecord(SETTINGS))
    change(tmp_path, **values)
    with pytest.raises(OutputError, match=sentence):
        read_kept_training(tmp_path)


def save_a_model(table: Table, qtbot: QtBot) -> None:
    """Train, be scored on held-out strokes, and save."""
    table.train(qtbot)
    score = messages.Score(overall=0.75, dice={1: 0.5, 2: 1.0}, strokes={1: 2, 2: 2})
    table.link.tell(
        messages.Validated(
            step=40, scores={"head": score}, shown="head", reason="it is best"
        )
    )
    table.link.tell(messages.StepDone(step=50, loss=0.1, learning_rate=0.1))
    table.link.tell(messages.ModelSaved(path="/models/a.safetensors"))


def test_a_saved_model_is_noted_with_its_scores(table: Table, qtbot: QtBot) -> None:
    save_a_model(table, qtbot)
    (model,) = table.state.models
    names = table.state.classes.names
    assert (model.path, model.step, model.strokes) == ("/models/a.safetensors", 50, 2)
    assert (model.overall, model.dice) == (0.75, {names[0]: 0.5, names[1]: 1.0})
    qtbot.waitUntil(
        lambda: bool((r := read_kept_training(table.mirror.folder)) and r.models),
        timeout=5000,
    )


def test_settings_and_models_come_back_with_the_session(
    make_table: Callable[[], Table], qtbot: QtBot, tmp_path: Path
) -> None:
    before = make_table()
    before.controller.use_settings(TrainingSettings(balance="instance", seed=5))
    before.controller.set_opacity(0.25)
    before.controller.set_live("off")
    save_a_model(before, qtbot)
    before.controller.place.move(str(tmp_path / "a.sparseseg"))
    before.controller.close()
    now = make_table()
    now.controller.place.open(str(tmp_path / "a.sparseseg"))
    assert now.state.settings == before.state.settings
    assert (now.state.opacity, now.state.live) == (0.25, "off")
    assert now.state.models == before.state.models
    # And again from there.
    now.controller.close()
    record = read_kept_training(tmp_path / "a.sparseseg")
    assert record is not None
    assert record.models == before.state.models


def test_where_something_is_painted_settings_stay_and_models_are_added(
    make_table: Callable[[], Table], qtbot: QtBot, tmp_path: Path
) -> None:
    before = make_table()
    before.controller.use_settings(TrainingSettings(balance="instance"))
    save_a_model(before, qtbot)
    before.controller.place.move(str(tmp_path / "a.sparseseg"))
    before.controller.close()
    now = make_table()
    now.add_painted(1, 2)
    now.wait_for_counts(qtbot, 1, 2)
    now.state.models = (MODEL,)
    now.controller.place.open(str(tmp_path / "a.sparseseg"))
    assert now.state.settings == TrainingSettings()
    assert now.state.models == (*before.state.models, MODEL)
