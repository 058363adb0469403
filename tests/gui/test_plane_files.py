"""Files of planes: written once, forgotten late, and told of where they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from threading import Event, Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image

from napari_sparseseg.errors import ImageError, OutputError
from napari_sparseseg.gui import plane_files
from napari_sparseseg.gui.plane_files import (
    FORGOTTEN_S,
    PREFIX,
    PlaneFiles,
    cut,
    remove_left_behind,
)
from napari_sparseseg.gui.planes import PlaneKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

FIRST = PlaneKey((0,))


class Clock:
    """Says what time it is; stands still until a test moves it."""

    seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def files(place: Path) -> Iterator[PlaneFiles]:
    made = PlaneFiles()
    yield made
    made.close()


@pytest.fixture
def stack() -> Image:
    data = np.random.default_rng(0).integers(0, 255, (3, 8, 6), np.uint8)
    return Image(data, rgb=False)


def test_pixels_are_written_once(files: PlaneFiles, stack: Image, place: Path) -> None:
    assert not list(place.iterdir())
    path = files.pixels(stack, FIRST)
    np.testing.assert_array_equal(np.load(path), stack.data[0])
    assert files.pixels(stack, FIRST) == path
    other = files.pixels(stack, PlaneKey((2,)))
    np.testing.assert_array_equal(np.load(other), stack.data[2])
    assert sorted(each.name for each in path.parent.iterdir()) == ["0.npy", "1.npy"]


def test_levels_have_files_of_their_own(files: PlaneFiles) -> None:
    image = Image([np.ones((8, 8)), np.zeros((4, 4))], multiscale=True)
    assert np.load(files.pixels(image, PlaneKey(), 0)).shape == (8, 8)
    assert np.load(files.pixels(image, PlaneKey(), 1)).shape == (4, 4)


def test_results_are_zero_and_take_their_space_at_once(
    files: PlaneFiles, stack: Image
) -> None:
    path = files.output(stack, FIRST, 0, np.uint16)
    result = np.load(path, mmap_mode="r+")
    assert (result.shape, result.dtype, result.any()) == ((8, 6), np.uint16, False)
    result[2:4, 1:5] = 7
    np.testing.assert_array_equal(cut(path, (3, 0, 5, 3)), [[0, 7, 7], [0, 0, 0]])
    assert files.output(stack, FIRST, 0, np.uint16) == path
    assert files.output(stack, FIRST, 0, np.float32) != path
    large = Image(np.zeros((1, 2048, 2048), np.uint8), rgb=False)
    blocks = files.output(large, FIRST, 0, np.uint8).stat().st_blocks
    assert blocks * 512 >= 2048 * 2048


def test_forgotten_files_stay_for_requests_under_way(
    files: PlaneFiles, stack: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, result = files.pixels(stack, FIRST), files.output(stack, FIRST, 0, "u1")
    stack.data = 255 - stack.data
    files.forget(stack)
    now = files.pixels(stack, FIRST)
    assert now != pixels
    np.testing.assert_array_equal(np.load(now), stack.data[0])
    assert files.output(stack, FIRST, 0, "u1") != result
    assert pixels.exists()
    assert result.exists()
    monkeypatch.setattr(plane_files, "FORGOTTEN_S", 0.0)
    files.pixels(stack, PlaneKey((1,)))
    assert not pixels.exists()
    assert not result.exists()
    assert now.exists()


class TestRoom:
    """Files do not become more and more, but those in use stay."""

    SIZE = 2 * (128 + 8 * 6)

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr(plane_files, "time", clock)
        monkeypatch.setattr(plane_files, "MOST_BYTES", 3 * self.SIZE)
        return clock

    @pytest.fixture
    def film(self) -> Image:
        return Image(np.zeros((30, 8, 6), np.uint8), rgb=False)

    @staticmethod
    def show(files: PlaneFiles, film: Image, *numbers: int) -> list[Path]:
        """Ask for the files of planes as a prediction does."""
        paths = []
        for number in numbers:
            plane = PlaneKey((number,))
            paths += [files.pixels(film, plane), files.output(film, plane, 0, "u1")]
        return paths

    def test_what_was_not_used_for_longest_goes(
        self, files: PlaneFiles, film: Image, clock: Clock
    ) -> None:
        first = self.show(files, film, 0)
        for number in range(1, 30):
            clock.seconds += FORGOTTEN_S + 1
            last = self.show(files, film, number)
            assert self.show(files, film, 0) == first
        assert files.folder is not None
        left = list(files.folder.iterdir())
        assert set(first + last) < set(left)
        assert len(left) <= 2 * (3 + 1)

    def test_requests_under_way_find_their_files(
        self, files: PlaneFiles, film: Image, clock: Clock
    ) -> None:
        paths = self.show(files, film, *range(20))
        clock.seconds += FORGOTTEN_S - 1
        paths += self.show(files, film, *range(20, 30))
        assert all(path.exists() for path in paths)
        clock.seconds += 2
        files.output(film, PlaneKey((29,)), 0, np.float32)
        assert [path.exists() for path in paths] == [False] * 40 + [True] * 20

    def test_what_is_held_stays_until_all_let_it_go(
        self, files: PlaneFiles, film: Image, clock: Clock
    ) -> None:
        held = self.show(files, film, *range(10))
        for number in range(10):
            files.hold("one", film, PlaneKey((number,)), 0)
        files.hold("other", film, PlaneKey((4,)), 0)

        def left_after(number: int) -> list[Path]:
            clock.seconds += FORGOTTEN_S + 1
            self.show(files, film, number)
            return [path for path in held if path.exists()]

        for number in range(10, 20):
            assert left_after(number) == held
        files.release("one")
        for number in range(20, 25):
            left = left_after(number)
        assert left == held[8:10]
        files.release("other")
        assert not left_after(25)

    def test_a_file_that_is_open_on_windows_is_tried_again(
        self,
        files: PlaneFiles,
        film: Image,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (path, _) = self.show(files, film, 0)
        files.forget(film)
        clock.seconds += FORGOTTEN_S + 1
        with monkeypatch.context() as patched:
            patched.setattr(
                type(path), "unlink", MagicMock(side_effect=PermissionError)
            )
            self.show(files, film, 1)
        assert path.exists()
        self.show(files, film, 2)
        assert not path.exists()


class Slow:
    """An array that is read when a test says so."""

    def __init__(self, data: NDArray[Any]) -> None:
        self.data, self.shape, self.dtype = data, data.shape, data.dtype
        self.ndim = data.ndim
        self.may_go_on = Event()
        self.begun = Event()
        self.threads: list[Thread] = []

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if current_thread() is not main_thread():
            self.threads.append(current_thread())
            self.begun.set()
            assert self.may_go_on.wait(10)
        part: NDArray[Any] = self.data[key]
        return part


class TestPreparing:
    """Pixels that take long are read and written in a thread."""

    @pytest.fixture
    def slow(self, stack: Image) -> Slow:
        return Slow(np.asarray(stack.data))

    @pytest.fixture
    def image(self, slow: Slow) -> Iterator[Image]:
        yield Image(slow, rgb=False, contrast_limits=(0, 255), cache=False)
        slow.may_go_on.set()

    def test_of_small_arrays_in_memory_is_not_worth_it(
        self, files: PlaneFiles, stack: Image
    ) -> None:
        assert files.prepare(stack, FIRST, 0, MagicMock())

    def test_of_large_arrays_is(self, files: PlaneFiles) -> None:
        image = Image(np.zeros((1, 4096, 4097), np.uint8), rgb=False)
        assert not files.prepare(image, FIRST, 0, MagicMock())
        assert np.load(files.pixels(image, FIRST)).shape == (4096, 4097)

    def test_others_wait_for_it_and_then_it_is_there(
        self, files: PlaneFiles, image: Image, slow: Slow
    ) -> None:
        ready = Event()
        assert not files.prepare(image, FIRST, 0, ready.set)
        assert slow.begun.wait(10)
        assert not files.prepare(image, FIRST, 0, ready.set)
        assert not ready.is_set()
        slow.may_go_on.set()
        path = files.pixels(image, FIRST)
        assert ready.wait(10)
        np.testing.assert_array_equal(np.load(path), slow.data[0])
        assert len(slow.threads) == 1
        assert files.prepare(image, FIRST, 0, ready.set)
        assert files.pixels(image, FIRST) == path

    def test_of_what_was_scrolled_past_is_left_out(
        self, files: PlaneFiles, image: Image, slow: Slow
    ) -> None:
        skipped, ready = Event(), Event()
        files.prepare(image, FIRST, 0)
        assert slow.begun.wait(10)
        files.prepare(image, PlaneKey((1,)), 0, skipped.set)
        assert not skipped.is_set()
        files.prepare(image, PlaneKey((2,)), 0, ready.set)
        assert skipped.is_set()
        slow.may_go_on.set()
        assert ready.wait(10)
        assert len(slow.threads) == 2
        np.testing.assert_array_equal(
            np.load(files.pixels(image, PlaneKey((1,)))), slow.data[1]
        )

    def test_counts_even_where_nobody_asks_for_it(
        self,
        files: PlaneFiles,
        image: Image,
        slow: Slow,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        clock = Clock()
        monkeypatch.setattr(plane_files, "time", clock)
        monkeypatch.setattr(plane_files, "MOST_BYTES", 0)
        slow.may_go_on.set()
        for number in (0, 1, 2, 0, 1, 2):
            ready = Event()
            files.prepare(image, PlaneKey((number,)), 0, ready.set)
            assert ready.wait(10)
            clock.seconds += FORGOTTEN_S + 1
        assert files.folder is not None
        assert len(list(files.folder.iterdir())) <= 3

    def test_of_what_cannot_be_read_is_told_by_whoever_asks(
        self, files: PlaneFiles
    ) -> None:
        data = da.full((8, 8), np.nan)  # type: ignore[no-untyped-call]
        image = Image(data, contrast_limits=(0, 1))
        ready = Event()
        assert not files.prepare(image, PlaneKey(), 0, ready.set)
        assert ready.wait(10)
        assert files.prepare(image, PlaneKey(), 0, ready.set)
        with pytest.raises(ImageError, match="finite"):
            files.pixels(image, PlaneKey())

    def test_of_pixels_that_were_replaced_is_of_no_use(
        self, files: PlaneFiles, image: Image, slow: Slow
    ) -> None:
        files.prepare(image, FIRST, 0, MagicMock())
        assert slow.begun.wait(10)
        files.forget(image)
        slow.may_go_on.set()
        image.data = 255 - slow.data
        path = files.pixels(image, FIRST)
        np.testing.assert_array_equal(np.load(path), 255 - slow.data[0])
        ready = Event()
        other = Image(slow, rgb=False, contrast_limits=(0, 255), cache=False)
        files.prepare(other, FIRST, 0, ready.set)
        assert ready.wait(10)
        assert set(path.parent.iterdir()) == {path, files.pixels(other, FIRST)}

    def test_leaves_nothing_after_closing(
        self, files: PlaneFiles, image: Image, slow: Slow, place: Path
    ) -> None:
        files.prepare(image, FIRST, 0, MagicMock())
        assert slow.begun.wait(10)
        slow.may_go_on.set()
        files.close()
        assert not list(place.iterdir())


def test_files_that_somebody_removed_are_written_again(
    files: PlaneFiles, stack: Image
) -> None:
    path, result = files.pixels(stack, FIRST), files.output(stack, FIRST, 0, "u1")
    path.unlink()
    result.unlink()
    path.parent.rmdir()
    np.testing.assert_array_equal(np.load(files.pixels(stack, FIRST)), stack.data[0])
    assert not np.load(files.output(stack, FIRST, 0, "u1")).any()


def test_nothing_is_left_after_closing(
    files: PlaneFiles, stack: Image, place: Path
) -> None:
    files.pixels(stack, FIRST)
    files.close()
    assert not list(place.iterdir())


def test_what_a_crash_left_is_removed(
    files: PlaneFiles, stack: Image, place: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = place / f"{PREFIX}{ended.pid}-abc"
    living = place / f"{PREFIX}{os.getpid()}-abc"
    for folder in (left, living, place / f"{PREFIX}other"):
        folder.mkdir()
        (folder / "0.npy").touch()
    files.pixels(stack, FIRST)
    assert not left.exists()
    remove_left_behind()
    assert (living / "0.npy").exists()
    assert (place / f"{PREFIX}other" / "0.npy").exists()


def test_planes_that_cannot_be_read_leave_nothing(
    files: PlaneFiles, place: Path
) -> None:
    with pytest.raises(ImageError, match="finite"):
        files.pixels(Image(np.full((8, 8), np.nan)), PlaneKey())
    assert not list(place.iterdir())


@pytest.mark.parametrize("method", ["pixels", "output"])
def test_files_that_cannot_be_written_are_one_sentence(
    files: PlaneFiles, stack: Image, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def fail(path: Path, *_: Any, **__: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("12 requested and 3 written")

    monkeypatch.setattr(np, "save", fail)
    monkeypatch.setattr(np.lib.format, "open_memmap", fail)
    more = () if method == "pixels" else (0, np.uint8)
    with pytest.raises(OutputError, match=r"cannot be written \(12 requested and 3"):
        getattr(files, method)(stack, FIRST, *more)
    assert files.folder is not None
    assert not list(files.folder.iterdir())


def test_a_missing_temporary_folder_is_one_sentence(
    stack: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(OutputError, match="no temporary folder can be made"):
        PlaneFiles().pixels(stack, FIRST)
