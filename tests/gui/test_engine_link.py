"""An engine that ends, is silent, or cannot start: told once, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from napari_sparseseg.engine import messages
from napari_sparseseg.gui import engine_link
from napari_sparseseg.gui.engine_link import EngineLink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytestqt.qtbot import QtBot

    Told = tuple[list[Any], list[tuple[str, bool]]]

STUB = Path(__file__).with_name("stub_engine.py")
SOURCE = Path(engine_link.__file__).parents[2]

#: Of one start of Python on a busy machine.
PATIENCE_MS = 30_000

#: A window with an engine, that says the engine's number.
WINDOW = """
import sys, time
from pathlib import Path
from napari_sparseseg.engine.process import EngineProcess
engine = EngineProcess(print, print, Path(sys.argv[1]))
engine.start()
print(engine.pid, flush=True)
time.sleep(100)
"""


@pytest.fixture
def start(qtbot: QtBot, tmp_path: Path) -> Iterator[Callable[[str], EngineLink]]:
    """Return what starts an engine of some manner."""
    links: list[EngineLink] = []

    def start_one(manner: str) -> EngineLink:
        command = [sys.executable, str(STUB), manner]
        links.append(EngineLink(tmp_path / "engine.log", command))
        return links[-1]

    yield start_one
    for link in links:
        if link.pid is not None:
            os.kill(link.pid, signal.SIGKILL)
        link.stop()


def told_by(link: EngineLink) -> Told:
    """Return what it tells and how it dies, from now on."""
    told: Told = ([], [])
    link.told.connect(told[0].append)
    link.died.connect(lambda *each: told[1].append(each))
    return told


def wait_for(qtbot: QtBot, told: list[Any], number: int) -> None:
    qtbot.waitUntil(lambda: len(told) == number, timeout=PATIENCE_MS)


def test_an_engine_that_is_killed_is_started_again(
    start: Callable[[str], EngineLink], qtbot: QtBot
) -> None:
    link = start("works")
    told, died = told_by(link)
    link.start()
    pids = []
    for number in (1, 2, 3):
        wait_for(qtbot, told, number)
        assert isinstance(told[-1], messages.Ready)
        pids.append(link.pid)
        assert link.pid is not None
        os.kill(link.pid, signal.SIGKILL)
        wait_for(qtbot, died, number)
        assert died[-1] == (
            "The engine that learns and predicts was ended by signal 9 and is started "
            "again; your strokes are safe.",
            True,
        )
    assert len({*pids, link.pid, None}) == 5


def test_an_engine_is_replaced_for_a_reason(
    start: Callable[[str], EngineLink], qtbot: QtBot
) -> None:
    link = start("works")
    told, died = told_by(link)
    link.start()
    wait_for(qtbot, told, 1)
    link.restart("The GPU is gone")
    wait_for(qtbot, died, 1)
    ((sentence, restarting),) = died
    assert sentence.startswith("The GPU is gone, so the engine is started again;")
    assert restarting
    wait_for(qtbot, told, 2)


def test_an_engine_without_torch_says_what_to_install(
    start: Callable[[str], EngineLink], qtbot: QtBot
) -> None:
    link = start("lacks torch")
    told, died = told_by(link)
    link.start()
    wait_for(qtbot, died, 1)
    qtbot.wait(500)
    ((sentence, restarting),) = died
    assert sentence.startswith("torch cannot be imported (no such file); install it;")
    assert "your strokes are safe" in sentence
    assert not restarting
    assert link.pid is None
    assert not told


def test_an_engine_that_never_gets_ready_is_not_started_for_ever(
    start: Callable[[str], EngineLink], qtbot: QtBot
) -> None:
    link = start("breaks")
    _, died = told_by(link)
    link.start()
    qtbot.waitUntil(lambda: len(died) == engine_link.MOST_STARTS, timeout=PATIENCE_MS)
    qtbot.wait(500)
    assert [restarting for _, restarting in died] == [True, False]
    assert "before it was ready (ValueError: of its own);" in died[-1][0]
    assert "Traceback" not in died[-1][0]
    assert link.pid is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_link, "SILENCE_S", 0.5)
    monkeypatch.setattr(engine_link, "WATCH_S", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_silent_engine_is_ended_and_started_again(
    start: Callable[[str], EngineLink], qtbot: QtBot
) -> None:
    link = start("is silent")
    told, died = told_by(link)
    link.start()
    wait_for(qtbot, told, 1)
    pid = link.pid
    wait_for(qtbot, died, 1)
    sentence, restarting = died[0]
    assert "did not answer for" in sentence
    assert restarting
    assert link.pid not in (None, pid)


@pytest.mark.usefixtures("impatient")
def test_the_first_import_may_take_long(
    start: Callable[[str], EngineLink], qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_link, "SILENCE_S", 0.0)
    link = start("works")
    told, died = told_by(link)
    link.start()
    qtbot.waitUntil(lambda: bool(told or died), timeout=PATIENCE_MS)
    assert told
    assert not died


@pytest.mark.usefixtures("impatient")
def test_a_slow_start_is_explained_and_left_to_end(
    start: Callable[[str], EngineLink], qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_link, "SLOW_START_S", 0.2)
    # Shorter than the stub computes before it is ready.
    monkeypatch.setattr(engine_link, "SILENCE_AT_START_S", 0.5)
    link = start("starts slowly")
    told, died = told_by(link)
    sentences: list[str] = []
    link.slow.connect(sentences.append)
    link.start()
    qtbot.waitUntil(lambda: bool(told or died), timeout=PATIENCE_MS)
    assert not died
    assert any("PyTorch is being loaded" in each for each in sentences)
    n_sentences = len(sentences)
    qtbot.wait(300)
    assert len(sentences) == n_sentences


@pytest.mark.usefixtures("impatient")
def test_an_engine_that_hangs_at_its_start_is_ended(
    start: Callable[[str], EngineLink], qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_link, "SILENCE_AT_START_S", 1.0)
    link = start("hangs at start")
    _, died = told_by(link)
    link.start()
    wait_for(qtbot, died, 1)
    assert "did not answer for" in died[0][0]


@pytest.mark.usefixtures("impatient")
def test_a_computer_that_slept_does_not_end_the_engine(
    start: Callable[[str], EngineLink], qtbot: QtBot
) -> None:
    link = start("works")
    told, died = told_by(link)
    link.start()
    wait_for(qtbot, told, 1)
    link._process.last_heard -= 10_000
    qtbot.wait(350)
    assert not died


def test_an_engine_that_cannot_be_started_is_told(qtbot: QtBot, tmp_path: Path) -> None:
    link = EngineLink(tmp_path / "no folder" / "engine.log", ["python"])
    _, died = told_by(link)
    link.start()
    wait_for(qtbot, died, 1)
    ((sentence, restarting),) = died
    assert "the engine cannot be started with python" in sentence
    assert not restarting


def test_nothing_is_told_once_it_is_stopped(
    start: Callable[[str], EngineLink], qtbot: QtBot
) -> None:
    link = start("works")
    told, died = told_by(link)
    link.start()
    qtbot.waitUntil(lambda: link.pid is not None, timeout=PATIENCE_MS)
    pid = link.pid
    assert pid is not None
    link.stop()
    assert not psutil.pid_exists(pid)
    qtbot.wait(300)
    assert (told, died) == ([], [])


def test_an_engine_that_is_not_wanted_any_more_is_not_started(
    start: Callable[[str], EngineLink], qtbot: QtBot
) -> None:
    link = start("works")
    told, died = told_by(link)
    link.start()
    link.stop()
    qtbot.wait(2 * engine_link.START_MS)
    assert link.pid is None
    assert (told, died) == ([], [])


def test_an_engine_ends_when_its_window_is_killed(tmp_path: Path) -> None:
    window = subprocess.Popen(
        [sys.executable, "-c", WINDOW, str(tmp_path / "engine.log")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert window.stdout is not None
    with window.stdout as lines:
        engine = psutil.Process(int(lines.readline()))
    assert "napari_sparseseg.engine" in engine.cmdline()
    window.kill()
    window.wait()
    engine.wait(40)
    assert not engine.is_running()
