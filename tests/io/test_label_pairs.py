"""Images and label maps of a folder are found by their endings, and read together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from napari_sparseseg.errors import LabelError
from napari_sparseseg.io.label_pairs import find_pairs, read_planes

if TYPE_CHECKING:
    from pathlib import Path


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def found(*places: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the names of images and labels, and what was told."""
    pairs, problems = find_pairs(places)
    return [(p.image.name, p.labels.name if p.labels else "") for p in pairs], problems


def test_labels_have_an_ending_behind_the_stem(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "b_labels.png", "a.tif", "a_mask.tif", "A 1.jpg", "x.txt")
    touch(tmp_path, "case_1.5mm.nii.gz", "case_1.5mm_label.nii.gz", ".hidden.png")
    assert found(tmp_path) == (
        [
            ("A 1.jpg", ""),
            ("a.tif", "a_mask.tif"),
            ("b.png", "b_labels.png"),
            ("case_1.5mm.nii.gz", "case_1.5mm_label.nii.gz"),
        ],
        [],
    )


def test_two_folders_have_the_same_stems(tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.tif", "b.tif")
    touch(tmp_path / "labels", "b.png", "other.png")
    assert found(tmp_path) == ([("a.tif", ""), ("b.tif", "b.png")], [])


def test_of_files_the_labels_are_found_among_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b_mask.png", "b.png", "b_labels.png")
    places = [tmp_path / name for name in ("b.png", "b_mask.png", "a.png")]
    assert found(*places) == ([("a.png", ""), ("b.png", "b_mask.png")], [])


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.tif", "b_labels.png", "c.png", "c_mask.png")
    touch(tmp_path, "c_labels.tif")
    pairs, told = found(tmp_path)
    assert pairs == [("a.png", ""), ("c.png", "c_labels.tif")]
    assert [sentence.split(" is ")[0] for sentence in told] == [
        "a.tif",
        "c_mask.png",
        "b_labels.png",
    ]
    touch(tmp_path / "empty")
    pairs, told = found(tmp_path / "empty", tmp_path / "slide.svs")
    assert not pairs
    assert "no image in the folder" in told[0]
    assert "slide.svs is no image that can be listed" in told[1]


def test_planes_of_a_volume_that_are_annotated_are_read(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    volume = np.arange(4 * 6 * 5, dtype=np.int16).reshape(4, 6, 5)
    labels = np.zeros((4, 6, 5), np.uint8)
    labels[1, 2, 2], labels[3, 0, 4] = 1, 2
    for name, array in (("ct", volume), ("ct_labels", labels)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.5, 0.5, 2))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    ((image_path, label_path),), _ = find_pairs([tmp_path])
    assert label_path is not None
    planes = list(read_planes(image_path, label_path, None))
    assert [plane.at for plane in planes] == [(1,), (3,)]
    for plane in planes:
        np.testing.assert_array_equal(plane.pixels, volume[plane.at])
        np.testing.assert_array_equal(plane.labels, labels[plane.at])
        assert plane.um_per_px == pytest.approx(500)


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.ones((8, 7), np.uint8)).save(tmp_path / "a_labels.png")
    with pytest.raises(LabelError, match=r"a_labels\.png"):
        list(read_planes(tmp_path / "a.png", tmp_path / "a_labels.png", None))
