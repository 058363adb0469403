"""What is damaged in a session is named, and everything else comes back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import session_folder
from napari_sparseseg.gui.mirror import Mirror
from napari_sparseseg.gui.session_labels import MANIFEST, VERSION, restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLASSES = ClassTable().add("liver").add("tumour")


def stack() -> Labels:
    """Give labels with another row painted on each of the planes 0, 2 and 3."""
    data = np.zeros((5, 16, 16), np.uint8)
    for plane in (0, 2, 3):
        data[plane, plane + 1, 2:9] = 1 + plane % 2
    return Labels(data, name="strokes", scale=(5, 0.5, 0.5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a session of a name that not all programs can read, closed cleanly."""
    mirror = Mirror(tmp_path / "Leber, Fälle 肝 2.sparseseg", CLASSES)
    mirror.update(stack(), "ct")
    mirror.update(Labels(np.full((8, 8), 2, np.uint8), name="other"), "tile")
    mirror.close()
    return mirror.folder


def truncate(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)


def spoil(path: Path) -> None:
    path.write_bytes(b"not a plane")


def replace_by_link(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere.npy"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def of_another_shape(path: Path) -> None:
    np.save(path, np.ones((4, 4), np.uint8))


def of_objects(path: Path) -> None:
    np.save(path, np.array([[{}]]), allow_pickle=True)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (truncate, "no complete array"),
        (spoil, "no complete array"),
        (replace_by_link, "link to another place"),
        (of_another_shape, "uint8 of (4, 4) where labels of (16, 16)"),
        (of_objects, "no complete array"),
    ],
)
def test_a_plane_is_left_out_and_named(
    folder: Path, harm: Callable[[Path], None], why: str
) -> None:
    harm(folder / "labels-1" / "plane-2.npy")
    session = restore(folder)
    ((file, reason),) = session.damaged.items()
    assert file == "labels-1/plane-2.npy"
    assert why in reason
    expected = np.asarray(stack().data)
    expected[2] = 0
    np.testing.assert_array_equal(session.labels[0].data, expected)
    assert session.labels[1].data.all()
    assert session.classes == CLASSES


def test_a_plane_that_is_missing_is_named(folder: Path) -> None:
    (folder / "labels-1" / "plane-3.npy").unlink()
    session = restore(folder)
    assert session.damaged == {"labels-1/plane-3.npy": "No such file or directory"}
    assert session.labels[0].data[0].any()


def test_planes_come_back_without_their_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"format":')
    session = restore(folder)
    assert session.damaged == {MANIFEST: "it is no JSON"}
    first, other = session.labels
    # Planes above the last one that was painted are not known of.
    np.testing.assert_array_equal(first.data, np.asarray(stack().data)[:4])
    np.testing.assert_array_equal(other.data, np.full((8, 8), 2))


def test_a_record_that_is_no_layer_leaves_the_planes(folder: Path) -> None:
    change(folder, lambda data: data["layers"][0].pop("shape"))
    assert len(restore(folder).labels) == 2


def change(folder: Path, edit: Callable[[Any], Any]) -> None:
    """Edit the manifest of a session."""
    path = folder / MANIFEST
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_a_newer_version_is_refused_with_both(folder: Path) -> None:
    change(folder, lambda data: data.update(version=VERSION + 7))
    with pytest.raises(OutputError) as caught:
        restore(folder)
    expected = f"version {VERSION + 7}, but this program reads version {VERSION} at"
    assert expected in str(caught.value)


def test_the_first_version_is_read(folder: Path) -> None:
    """It did not list the planes."""

    def make_old(data: Any) -> None:
        data["version"] = 1
        for each in data["layers"]:
            del each["planes"]

    change(folder, make_old)
    session = restore(folder)
    assert not session.damaged
    np.testing.assert_array_equal(session.labels[0].data, stack().data)
    assert session.classes == CLASSES


@pytest.mark.parametrize(
    "name", ["../other", "/etc", "labels-1/../../x", "", "labels-0"]
)
def test_folders_outside_of_the_session_are_refused(folder: Path, name: str) -> None:
    change(folder, lambda data: data["layers"][0].update(folder=name))
    with pytest.raises(OutputError, match="outside of it"):
        restore(folder)


def test_a_layer_that_is_a_link_to_elsewhere_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "labels-1").rename(tmp_path / "elsewhere")
    (folder / "labels-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="outside of it"):
        restore(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"placement": {"data": 1}},
        {"dtype": "object"},
        {"dtype": "float32"},
        {"shape": [0, 5, 5]},
        {"shape": "much"},
    ],
)
def test_what_is_no_label_layer_is_not_believed(
    folder: Path, values: dict[str, Any]
) -> None:
    change(folder, lambda data: data["layers"][0].update(values))
    session = restore(folder)
    assert list(session.damaged) == [MANIFEST]
    assert session.labels[0].data.any()


def test_a_layer_larger_than_memory_leaves_the_others(folder: Path) -> None:
    change(folder, lambda data: data["layers"][0].update(shape=[2**40, 2**20, 2**20]))
    session = restore(folder)
    assert list(session.damaged) == ["labels-1"]
    (other,) = session.labels
    assert other.data.all()


def test_a_folder_that_is_gone_is_told_and_written_when_it_is_back(
    tmp_path: Path,
) -> None:
    """As a disk that is taken away while somebody paints."""
    mirror = Mirror(tmp_path / "disk" / "a.sparseseg", CLASSES)
    layer = stack()
    mirror.update(layer)
    (tmp_path / "disk").rename(tmp_path / "away")
    layer.data[4, 4, 4] = 1
    for _ in range(2):
        with pytest.raises(OutputError, match="cannot be"):
            mirror.update(layer)
    assert not (tmp_path / "disk").exists()
    (tmp_path / "away").rename(tmp_path / "disk")
    mirror.update(layer)
    (labels,) = restore(mirror.folder).labels
    np.testing.assert_array_equal(labels.data, layer.data)
    session_folder.release(mirror.folder)
