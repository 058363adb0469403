"""Images are known by their content, wherever they lie."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sparseseg.io import fingerprint as module
from napari_sparseseg.io.fingerprint import fingerprint, fingerprint_of_pixels

if TYPE_CHECKING:
    from pathlib import Path


def test_a_small_file_is_known_by_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a b.tif"
    path.write_bytes(b"pixels")
    expected = hashlib.sha256(b"pixels").hexdigest()
    assert fingerprint(path) == f"file:6:{expected}"
    moved = tmp_path / "Ä.tif"
    shutil.move(path, moved)
    assert fingerprint(moved) == f"file:6:{expected}"


@pytest.mark.parametrize("at", [0, 1 << 20, -1])
def test_large_files_are_told_apart_at_both_ends_and_between(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE_BYTES", 1 << 16)
    monkeypatch.setattr(module, "PART_BYTES", 1 << 14)
    monkeypatch.setattr(module, "PARTS", 3)
    size = (1 << 21) + (1 << 14)  # the middle part begins at 1 << 20
    data = np.zeros(size, np.uint8)
    data.tofile(tmp_path / "a")
    data[at] = 1
    data.tofile(tmp_path / "b")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
    (tmp_path / "c").write_bytes((tmp_path / "a").read_bytes())
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "c")


def test_of_a_large_file_little_is_read(tmp_path: Path) -> None:
    """10 GiB, which is a hole here, would take minutes."""
    path = tmp_path / "slide.svs"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    kind, size, _ = fingerprint(path).split(":")
    assert (kind, size) == ("file", str(10 << 30))


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Return a folder of files, with a link that leads back into it."""
    folder = tmp_path / "series"
    (folder / "more").mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.dcm").write_bytes(bytes([number] * 10))
    (folder / "more" / "x.dcm").write_bytes(b"x")
    (folder / "more" / "again").symlink_to(folder)
    return folder


def test_a_folder_is_known_by_names_sizes_and_content(
    series: Path, tmp_path: Path
) -> None:
    before = fingerprint(series)
    assert before.startswith("folder:4:")
    moved = tmp_path / "moved"
    shutil.copytree(series, moved, symlinks=True)
    assert fingerprint(moved) == before
    os.rename(moved / "1.dcm", moved / "4.dcm")
    assert fingerprint(moved) != before
    (series / "0.dcm").write_bytes(bytes([9] * 10))
    assert fingerprint(series) != before


def test_an_empty_folder_and_one_that_is_gone(tmp_path: Path) -> None:
    assert fingerprint(tmp_path).startswith("folder:0:")
    with pytest.raises(OSError, match="gone"):
        fingerprint(tmp_path / "gone")


@pytest.mark.parametrize("dtype", ["u1", "<i2", "f4", "?"])
def test_pixels_are_known_by_values_shape_and_type(dtype: str) -> None:
    pixels = np.arange(24).reshape(4, 6) % 2
    pixels = pixels.astype(dtype)
    known = fingerprint_of_pixels(pixels)
    assert known.startswith("pixels:4x6:")
    assert fingerprint_of_pixels(np.asfortranarray(pixels)) == known
    other = pixels.copy()
    other[2, 3] = not other[2, 3]
    for different in (other, pixels.reshape(6, 4), pixels.astype("f8")):
        assert fingerprint_of_pixels(different) != known


def test_of_many_pixels_some_rows_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIXEL_BYTES", 30)
    pixels = np.zeros((9, 10), np.uint8)
    known = fingerprint_of_pixels(pixels)
    pixels[1:4] = 1  # rows 0, 4 and 8 are looked at
    assert fingerprint_of_pixels(pixels) == known
    pixels[8, 9] = 1
    assert fingerprint_of_pixels(pixels) != known
