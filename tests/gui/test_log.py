"""The log is written where it can be, and tells of no patient."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

import pytest
from psygnal import Signal

from napari_sparseseg.gui import log, notify

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
    logging.getLogger("napari_sparseseg.gui.anything").error("It rains.")
    assert log.log_file() == folder / "window.log"
    assert log.log_file().read_text().count("ERROR It rains.") == 1


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
    assert written.count(", in fail") == 2
    assert PATIENT not in written


def test_a_traceback_loses_its_words() -> None:
    trace = (
        "Traceback (most recent call last):\n"
        '  File "x.py", line 3, in f\n'
        "    raise ValueError(name)\n"
        f"ValueError: {PATIENT}: bad\n"
        "\n"
        "During handling of the above exception, another exception occurred:\n"
    )
    bare = log.without_words(trace)
    assert PATIENT not in bare
    assert bare.splitlines()[1:4] == [
        '  File "x.py", line 3, in f',
        "    raise ValueError(name)",
        "ValueError",
    ]


@pytest.mark.usefixtures("fresh")
def test_where_the_users_folder_cannot_be_made_a_temporary_one_is(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "logs").touch()
    assert log.log_folder() != folder
    assert log.log_folder() == log.log_folder()
    log.start_log()
    logging.getLogger("napari_sparseseg").error("It rains.")
    assert "It rains." in log.log_file().read_text()


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
