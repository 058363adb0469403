"""The log is written where it can be, and tells of no patient."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING
from unittest.mock import Mock

import numpy as np
import pytest
from napari.layers import Labels
from psygnal import Signal

from napari_sparseseg.engine import messages
from napari_sparseseg.engine.log import trace_of
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import engine_news, log, notify
from napari_sparseseg.gui.state import State
from napari_sparseseg.io.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENT = "Meier, Hans"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the user's logs go."""
    place = tmp_path / "logs" / "here"
    monkeypatch.setattr(log, "user_log_path", lambda *_, **__: place)
    return place


@pytest.fixture
def fresh() -> Iterator[None]:
    """Take handlers away before and after."""

    def clear() -> None:
        for handler in list(log.ROOT.handlers):
            if isinstance(handler, RotatingFileHandler):
                log.ROOT.removeHandler(handler)
                handler.close()

    clear()
    yield
    clear()


class Sender:
    changed = Signal()


def fail() -> None:
    raise RuntimeError(f"{PATIENT} is not readable")


@pytest.mark.usefixtures("fresh")
def test_it_is_started_once(folder: Path) -> None:
    log.start_log()
    log.start_log()
    logging.getLogger("napari_sparseseg.gui.anything").error("It rains %s", 3)
    assert log.log_file() == folder / "window.log"
    written = log.log_file().read_text()
    assert written.count("ERROR napari_sparseseg.gui.anything:") == 1


@pytest.mark.usefixtures("fresh")
def test_an_error_is_written_without_its_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "show_error", lambda _: None)
    log.start_log()
    sender = Sender()
    sender.changed.connect(fail)
    for cause in (fail, lambda: sender.changed.emit()):
        with notify.telling():
            cause()
    written = log.log_file().read_text()
    assert written.count("RuntimeError") >= 2
    assert written.count("  napari_sparseseg.gui.notify:") == 2
    assert PATIENT not in written


@pytest.mark.usefixtures("fresh")
def test_nothing_in_the_folder_tells_of_a_patient(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for show in ("show_error", "show_warning", "show_info"):
        monkeypatch.setattr(f"napari.utils.notifications.{show}", lambda _: None)
    monkeypatch.setattr(notify, "show_error", lambda _: None)
    monkeypatch.setattr(engine_news, "show_error", lambda _: None)
    log.start_log()
    image = tmp_path / f"{PATIENT} 1950-03-02.svs"
    layer = Labels(np.zeros((4, 4), np.uint8), name=image.name)
    # Whatever is logged, with whatever words.
    logger = logging.getLogger("napari_sparseseg.gui.controller")
    sentence = f"{image} cannot be read"
    logger.error(sentence)
    logger.error("%s of %d", layer.name, 3)
    logger.error("", stack_info=True)
    with notify.telling():
        image.open()

    def fail() -> None:
        raise KeyError(layer) from OSError(f"bad\n  {image}\nMeier")

    with notify.telling():
        fail()
    failed = messages.Failed(
        request="predict",
        message=f"{image.name} is bad.",
        details=f"Traceback\n  File {image}\n{layer.name}\n{trace_of(of_ours(image))}",
    )
    engine_news.EngineNews(State(), Mock()).take(failed)
    written = "".join(path.read_text() for path in folder.iterdir())
    assert "Meier" not in written
    assert str(tmp_path) not in written
    assert ".py" not in written
    for told in ("FileNotFoundError", "KeyError", "OSError", "… of 3", "OutputError"):
        assert told in written
    assert "  napari_sparseseg.io.atomic:" in written


def of_ours(file: Path) -> Exception:
    """Return an error that was raised in this package."""
    with pytest.raises(OutputError) as caught:
        write_atomically(file / "a", lambda path: path.touch())
    return caught.value


@pytest.mark.usefixtures("fresh")
def test_where_the_users_folder_cannot_be_made_a_temporary_one_is(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "logs").touch()
    assert log.log_folder() != folder
    assert log.log_folder() == log.log_folder()
    log.start_log()
    logging.getLogger("napari_sparseseg").error("It rains %s", 3)
    assert "It rains 3" in log.log_file().read_text()


@pytest.mark.usefixtures("fresh")
def test_without_any_log_the_window_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "log_file", lambda: tmp_path / "none" / "window.log")
    log.start_log()
    assert not any(isinstance(each, RotatingFileHandler) for each in log.ROOT.handlers)


def test_the_cause_is_found_however_deep() -> None:
    inner, outer = Sender(), Sender()
    inner.changed.connect(fail)
    outer.changed.connect(lambda: inner.changed.emit())
    with pytest.raises(Exception, match="changed") as caught:
        outer.changed.emit()
    assert type(log.cause_of(caught.value)) is RuntimeError
    plain = KeyError("a")
    assert log.cause_of(plain) is plain
