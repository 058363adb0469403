"""Files of planes: written once, forgotten late, and told of where they cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image

from napari_sparseseg.errors import ImageError, OutputError
from napari_sparseseg.gui import plane_files
from napari_sparseseg.gui.plane_files import (
    PREFIX,
    PlaneFiles,
    cut,
    remove_left_behind,
)
from napari_sparseseg.gui.planes import PlaneKey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST = PlaneKey((0,))


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
