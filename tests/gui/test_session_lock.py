"""Two processes never have one session, and a dead one has none."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

import pytest
from filelock import FileLock

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import session_lock
from napari_sparseseg.gui.session_folder import is_in_use, release, take
from napari_sparseseg.gui.session_lock import FILE, is_locked, lock, unlock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Takes a folder when it is told to, says whether it could, and keeps it.
CHILD = """
import sys
from pathlib import Path
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui.session_folder import take
print("ready", flush=True)
sys.stdin.readline()
try:
    take(Path(sys.argv[1]))
    print("taken", flush=True)
except OutputError as error:
    print(error, flush=True)
sys.stdin.read()
"""


class Child:
    """Another process that wants the folder."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout

    def wait_until_ready(self) -> None:
        assert self._out.readline() == "ready\n"

    def go(self) -> None:
        self._in.write("\n")
        self._in.flush()

    def answer(self) -> str:
        return self._out.readline().strip()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        with self._process:
            pass


@pytest.fixture
def children(tmp_path: Path) -> Iterator[list[Child]]:
    """Return processes that have started, but took nothing yet."""
    made = [Child(tmp_path / "a.sparseseg") for _ in range(3)]
    for each in made:
        each.wait_until_ready()
    yield made
    for each in made:
        each.kill()


def test_of_processes_that_start_at_once_one_has_the_folder_until_it_dies(
    children: list[Child], tmp_path: Path
) -> None:
    folder = tmp_path / "a.sparseseg"
    # As after a crash: all of them see a mark that does not count any more.
    folder.mkdir()
    mark = {"pid": os.getpid(), "started": 1.0, "host": os.uname().nodename}
    (folder / "open.json").write_text(json.dumps(mark))
    first = children[:2]
    for child in first:
        child.go()
    answers = [child.answer() for child in first]
    assert answers.count("taken") == 1
    assert all("in use by another napari" in a for a in answers if a != "taken")
    owner = first[answers.index("taken")]
    assert is_in_use(folder)
    with pytest.raises(OutputError, match="in use by another napari"):
        take(folder)
    owner.kill()
    assert not is_in_use(folder)
    children[2].go()
    assert children[2].answer() == "taken"
    assert is_in_use(folder)
    # Its lock is not deleted while it lives, but with its mark once it is dead.
    session_lock.unlock(folder)
    assert (folder / FILE).exists()
    children[2].kill()
    release(folder)
    assert not list(folder.iterdir())


def test_a_lock_is_of_one_only_and_leaves_nothing(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert lock(tmp_path)
    assert is_locked(tmp_path)
    assert not lock(tmp_path)
    unlock(tmp_path)
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())
    assert lock(tmp_path)
    unlock(tmp_path)


def test_the_number_of_a_living_process_is_no_lock(tmp_path: Path) -> None:
    """A process of the same number that started at another time is another one."""
    mark = {"pid": os.getpid(), "started": 1.0, "host": os.uname().nodename}
    (tmp_path / "open.json").write_text(json.dumps(mark))
    (tmp_path / FILE).touch()
    assert not is_in_use(tmp_path)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("flock")]
)
def test_where_there_are_no_locks_the_mark_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As on some disks in a network."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    take(tmp_path)
    assert not is_locked(tmp_path)
    assert is_in_use(tmp_path)
    with pytest.raises(OutputError, match="in use by another napari"):
        take(tmp_path)
    release(tmp_path)
    assert not is_in_use(tmp_path)


def test_a_disk_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(OutputError, match="cannot be made: Read-only file system"):
        take(tmp_path)
