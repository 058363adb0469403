"""Downloads: whole or not at all, with turns for others, from whatever server."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import pytest

from napari_sparseseg.errors import OutputError
from napari_sparseseg.networks import download
from napari_sparseseg.networks.download import DownloadError, download_in_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from tests.conftest import FileServer

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "weights.pth"


@pytest.fixture
def fetch(
    file_server: FileServer, target: Path
) -> Callable[..., Generator[int, None, None]]:
    def start(
        content: bytes = CONTENT, silence_s: float = download.SILENCE_S
    ) -> Generator[int, None, None]:
        digest = hashlib.sha256(content).hexdigest()[:8]
        return download_in_parts(
            f"{file_server.url}/weights.pth", target, digest, silence_s
        )

    return start


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_slow_server_leaves_turns_to_others(
    file_server: FileServer,
    fetch: Callable[..., Generator[int, None, None]],
    target: Path,
) -> None:
    size = len(CONTENT) // 20
    file_server.parts = [CONTENT[n * size : (n + 1) * size] for n in range(20)]
    file_server.pause_s = 0.1
    # All of it takes longer than the server may be silent.
    received = list(fetch(silence_s=1.5))
    assert target.read_bytes() == CONTENT
    assert received == sorted(received)
    assert len(received) > len({*received}) > 3


def test_a_server_that_hangs_is_given_up(
    file_server: FileServer,
    fetch: Callable[..., Generator[int, None, None]],
    target: Path,
) -> None:
    file_server.parts = [CONTENT]
    file_server.pause_s = 60
    with pytest.raises(DownloadError, match=r"silent for 0\.3 seconds|timed out"):
        list(fetch(silence_s=0.3))
    assert file_server.asked == ["/weights.pth"]
    wait_until(lambda: not [*target.parent.iterdir()])


def test_a_pause_of_the_caller_is_no_silence_of_the_server(
    file_server: FileServer,
    fetch: Callable[..., Generator[int, None, None]],
    target: Path,
) -> None:
    file_server.parts = [CONTENT]
    parts = fetch(silence_s=0.5)
    next(parts)
    time.sleep(0.7)
    list(parts)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("sent", [b"another file", CONTENT[:-1]])
def test_another_file_or_a_part_of_it_is_not_kept(
    file_server: FileServer,
    fetch: Callable[..., Generator[int, None, None]],
    target: Path,
    sent: bytes,
) -> None:
    file_server.parts = [sent]
    with pytest.raises(DownloadError, match=f"the {len(sent)} bytes that came have a"):
        list(fetch())
    assert not [*target.parent.iterdir()]


def test_whoever_closes_it_gives_it_up(
    file_server: FileServer,
    fetch: Callable[..., Generator[int, None, None]],
    target: Path,
) -> None:
    file_server.parts = [CONTENT] * 200
    file_server.pause_s = 0.05
    parts = fetch()
    for received in parts:
        if received:
            break
    assert [*target.parent.iterdir()]
    assert not target.exists()
    parts.close()
    wait_until(lambda: not [*target.parent.iterdir()])


def test_no_server_is_told_in_a_few_words(target: Path) -> None:
    with pytest.raises(DownloadError, match=r"^[^<>\[\]]*refused"):
        list(download_in_parts("http://127.0.0.1:9/weights.pth", target, ""))


def test_a_folder_that_cannot_be_made_is_told(
    file_server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        list(download_in_parts(file_server.url, tmp_path / "file" / "w.pth", ""))
