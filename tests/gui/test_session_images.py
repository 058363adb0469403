"""A session finds its images again: where they were, moved, or asked for."""

from __future__ import annotations

import json
import shutil
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels
from npe2 import PluginManager, PluginManifest
from qtpy.QtWidgets import QFileDialog, QInputDialog, QWidget

from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import image_layers, kept_images
from napari_sparseseg.gui.image_layers import layers_of
from napari_sparseseg.gui.kept_images import KeptImages
from napari_sparseseg.gui.restore_images import ask_with_dialog
from napari_sparseseg.gui.session_images import (
    FILE,
    VERSION,
    ImageRecord,
    find_image,
    read_kept_images,
    write_kept_images,
)
from napari_sparseseg.io.fingerprint import fingerprint, fingerprint_of_pixels
from napari_sparseseg.io.sources import open_image
from tests.io.written import write_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_sparseseg.io.sources import ImageSource
    from tests.gui.conftest import Table

SHAPE = (5, 24, 32)


@pytest.fixture(autouse=True)
def readers(npe2pm: PluginManager) -> None:
    """Have napari's own readers and ours."""
    for distribution in ("napari", "napari-sparseseg"):
        npe2pm.register(PluginManifest.from_distribution(distribution))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder of images and sessions whose names are not plain."""
    folder = tmp_path / "Fälle 2026" / "肝"
    folder.mkdir(parents=True)
    return folder


def write_image(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 200, SHAPE, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels)
    return path


def paint_on(table: Table, path: Path, row: int = 4) -> Labels:
    """Open an image, and paint on it."""
    (image,) = table.viewer.open(path, plugin="napari")
    image.scale = (5, 0.5, 0.5)
    image.contrast_limits = (3, 77)
    table.controller.pairs.choose(image, None)
    labels = table.controller.pairs.new_labels()
    assert labels is not None
    labels.data[1, row, 2:9] = 1
    table.controller.pairs.choose(image, labels)
    table.controller.annotations.flush()
    return labels


def leave(table: Table, qtbot: QtBot, session: Path) -> None:
    """Keep a session and close its window, once the images are hashed."""

    def is_hashed() -> bool:
        table.controller._kept_images.flush()
        return all(each.content for each in read_kept_images(table.mirror.folder))

    qtbot.waitUntil(is_hashed, timeout=10_000)
    table.controller.place.move(str(session))
    table.controller.close()


def images_in(table: Table) -> list[Image]:
    return [each for each in table.viewer.layers if isinstance(each, Image)]


def check_opened(table: Table, row: int = 4) -> Image:
    """Check that image and labels are there as they were, and a pair."""
    (image,) = images_in(table)
    (pair,) = table.controller.annotations.pairs
    assert pair.image is image
    assert np.unique(pair.labels.data.nonzero()[1]).tolist() == [row]
    np.testing.assert_array_equal(pair.labels.scale, image.scale)
    np.testing.assert_array_equal(image.scale, (5, 0.5, 0.5))
    assert tuple(image.contrast_limits) == (3, 77)
    return image


def test_images_are_opened_with_their_labels(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path, told: list[str]
) -> None:
    before, path = make_table(), write_image(home / "ct 1.tif")
    name = paint_on(before, path).name
    leave(before, qtbot, home / "a.sparseseg")
    (record,) = read_kept_images(home / "a.sparseseg")
    assert (record.path, record.content) == (str(path), fingerprint(path))
    assert (record.shape, record.plugin) == (SHAPE, "napari")
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    image = check_opened(now)
    np.testing.assert_array_equal(image.data, tifffile.imread(path))
    assert image.source.path == str(path)
    assert [layer.name for layer in now.viewer.layers] == [image.name, name]
    assert not told


@pytest.mark.parametrize("way", ["both", "beside", "renamed"])
def test_moved_images_are_found(
    make_table: Callable[[], Table],
    qtbot: QtBot,
    home: Path,
    told: list[str],
    way: str,
) -> None:
    before, path = make_table(), write_image(home / "images" / "ct 1.tif")
    paint_on(before, path)
    session = home / "sessions" / "a.sparseseg"
    leave(before, qtbot, session)
    if way == "both":
        moved = home.parent / "moved"
        shutil.move(home, moved)
        session, expected = (
            moved / "sessions" / "a.sparseseg",
            moved / "images" / "ct 1.tif",
        )
    else:
        name = "ct 1.tif" if way == "beside" else "another name.tif"
        expected = session.parent / name
        shutil.move(path, expected)
        # One of the same size that is another image.
        write_image(session.parent / "a first one.tif", seed=1)
    now = make_table()
    now.controller.place.open(str(session))
    assert check_opened(now).source.path == str(expected)
    assert not told


@pytest.mark.parametrize("answer", ["right", "wrong", ""])
def test_images_that_are_not_found_are_asked_for(
    make_table: Callable[[], Table],
    qtbot: QtBot,
    home: Path,
    told: list[str],
    answer: str,
) -> None:
    before = make_table()
    path = write_image(home / "ct.tif")
    paint_on(before, path)
    leave(before, qtbot, home / "a.sparseseg")
    elsewhere = home.parent / "elsewhere" / "x.tif"
    elsewhere.parent.mkdir()
    shutil.move(path, elsewhere)
    if answer == "wrong":
        write_image(elsewhere, seed=1)
    asked: list[ImageRecord] = []

    def ask(record: ImageRecord) -> str:
        asked.append(record)
        return str(elsewhere) if answer else ""

    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"), ask)
    assert [record.path for record in asked] == [str(path)]
    if answer:
        check_opened(now)
        assert len(told) == (answer == "wrong")
    else:
        assert not images_in(now)
        (labels,) = now.viewer.layers
        assert labels.data.any()
    for sentence in told:
        said = "its content is another one" if answer else "is not at"
        assert said in sentence


def test_an_image_that_was_replaced_is_told(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path, told: list[str]
) -> None:
    before = make_table()
    path = write_image(home / "ct.tif")
    paint_on(before, path)
    leave(before, qtbot, home / "a.sparseseg")
    write_image(path, seed=1)
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    check_opened(now)
    (sentence,) = told
    assert str(path) in sentence
    assert "its content is another one" in sentence


def test_an_image_of_another_shape_is_not_opened_with_the_labels(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path, told: list[str]
) -> None:
    before = make_table()
    path = write_image(home / "ct.tif")
    paint_on(before, path)
    leave(before, qtbot, home / "a.sparseseg")
    tifffile.imwrite(path, np.zeros((5, 6), np.uint8))
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    (labels,) = now.viewer.layers
    assert labels.data.any()
    assert f"has another shape than {SHAPE}" in told[0]


def test_of_a_stack_of_files_the_user_is_told(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path, told: list[str]
) -> None:
    """Napari tells which file was the first of them, and not the others."""
    files = [home / f"plane {number}.tif" for number in range(SHAPE[0])]
    for seed, file in enumerate(files):
        pixels = np.random.default_rng(seed).integers(0, 200, SHAPE[1:], np.uint8)
        tifffile.imwrite(file, pixels)
    before = make_table()
    (image,) = before.viewer.open(files, stack=True, plugin="napari")
    before.controller.pairs.choose(image, None)
    labels = before.controller.pairs.new_labels()
    assert labels is not None
    labels.data[1, 4, 2:9] = 1
    before.controller.pairs.choose(image, labels)
    leave(before, qtbot, home / "a.sparseseg")
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    (opened,) = now.viewer.layers
    np.testing.assert_array_equal(opened.data, labels.data)
    (sentence,) = told
    assert f"stacked from several files, the first of them {files[0]}" in sentence
    # With the stack there the labels are on it.
    again = make_table()
    (image,) = again.viewer.open(files, stack=True, plugin="napari")
    now.controller.close()
    again.controller.place.open(str(home / "a.sparseseg"))
    assert [pair.image for pair in again.controller.annotations.pairs] == [image]


def test_the_series_of_before_is_opened_without_a_question(
    make_table: Callable[[], Table],
    qtbot: QtBot,
    home: Path,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uids = [f"1.2.826.0.1.3680043.10.511.{number}" for number in (8, 9)]
    for number, uid in enumerate(uids):
        places = range(0, 18, 3) if number else range(0, 12, 3)
        write_series(home / "ct", places, SeriesInstanceUID=uid, SeriesNumber=number)
    asked: list[Any] = []

    def ask(found: Any, *_: Any) -> str:
        asked.append(found)
        return uids[1]

    monkeypatch.setattr(image_layers, "_window", QWidget)
    monkeypatch.setattr(image_layers, "ask_series", ask)
    before = make_table()
    (image,) = before.viewer.open(home / "ct", plugin="napari-sparseseg")
    assert len(asked) == 1
    before.controller.pairs.choose(image, None)
    labels = before.controller.pairs.new_labels()
    assert labels is not None
    labels.data[1, 4, 2:9] = 1
    before.controller.pairs.choose(image, labels)
    leave(before, qtbot, home / "a.sparseseg")
    now = make_table()
    # The other series of the folder is no reason to leave this one closed.
    now.viewer.layers.append(layer_of(open_image(home / "ct", series=uids[0])))
    now.controller.place.open(str(home / "a.sparseseg"))
    assert len(asked) == 1
    assert not told
    (pair,) = now.controller.annotations.pairs
    assert pair.image.data.shape == image.data.shape == (6, 8, 10)
    np.testing.assert_array_equal(np.asarray(pair.image.data), np.asarray(image.data))


def test_the_scene_of_before_is_opened_without_a_question(
    make_table: Callable[[], Table],
    qtbot: QtBot,
    home: Path,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenes = np.random.default_rng(0).integers(0, 200, (2, *SHAPE[1:]), np.uint8)
    path = home / "two scenes.tif"
    with tifffile.TiffWriter(path) as writer:
        for scene in scenes:
            writer.write(scene, photometric="minisblack", metadata={"axes": "YX"})
    asked: list[list[str]] = []

    def choose(*given: Any) -> tuple[str, bool]:
        asked.append(given[3])
        return given[3][1], True

    monkeypatch.setattr(image_layers, "_window", QWidget)
    monkeypatch.setattr(QInputDialog, "getItem", choose)
    before = make_table()
    (image,) = before.viewer.open(path, plugin="napari-sparseseg")
    np.testing.assert_array_equal(np.asarray(image.data), scenes[1])
    assert asked == [["0: 24 x 32 YX", "1: 24 x 32 YX"]]
    told.clear()
    before.controller.pairs.choose(image, None)
    labels = before.controller.pairs.new_labels()
    assert labels is not None
    labels.data[4, 2:9] = 1
    before.controller.pairs.choose(image, labels)
    leave(before, qtbot, home / "a.sparseseg")
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    assert len(asked) == 1
    assert not told
    (pair,) = now.controller.annotations.pairs
    np.testing.assert_array_equal(np.asarray(pair.image.data), scenes[1])


def layer_of(source: ImageSource) -> Image:
    data, arguments, _ = layers_of(source)[0]
    return Image(data, **arguments)


@pytest.mark.parametrize("name", ["images.json", "list.json", "training.json"])
@pytest.mark.parametrize("text", ["{", None])
def test_what_is_damaged_or_newer_is_not_written_over(
    make_table: Callable[[], Table],
    qtbot: QtBot,
    home: Path,
    told: list[str],
    name: str,
    text: str | None,
) -> None:
    before = make_table()
    paint_on(before, write_image(home / "ct.tif"))
    leave(before, qtbot, home / "a.sparseseg")
    file = home / "a.sparseseg" / name
    newer = json.dumps(json.loads(file.read_text()) | {"version": 99})
    file.write_text(text or newer)
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    (sentence,) = told
    assert name in sentence
    assert ("is damaged" if text else "version 99, but this program reads") in sentence
    assert [each.name for each in now.viewer.layers if isinstance(each, Labels)]
    now.controller.close()
    assert file.read_text() == (text or newer)


def test_an_image_at_a_path_that_no_disk_has_is_told(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path, told: list[str]
) -> None:
    before, path = make_table(), write_image(home / "ct.tif")
    paint_on(before, path)
    leave(before, qtbot, home / "a.sparseseg")
    path.unlink()
    file = home / "a.sparseseg" / FILE
    content = json.loads(file.read_text())
    content["images"][0] |= {"path": f"/{'x' * 5000}/b.tif", "relative": "y" * 5000}
    file.write_text(json.dumps(content))
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    (labels,) = now.viewer.layers
    assert labels.data.any()
    (sentence,) = told
    assert "is not at /xxx" in sentence


def test_an_image_that_is_open_is_not_opened_twice(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path
) -> None:
    before, path = make_table(), write_image(home / "ct.tif")
    paint_on(before, path)
    leave(before, qtbot, home / "a.sparseseg")
    now = make_table()
    (image,) = now.viewer.open(path, plugin="napari")
    image.scale = (5, 0.5, 0.5)
    # Of the same shape and name, but not the image.
    (other,) = now.viewer.open(write_image(home / "b" / "ct.tif", 1), plugin="napari")
    image.name, other.name = "renamed", "ct"
    now.controller.place.open(str(home / "a.sparseseg"))
    assert images_in(now) == [image, other]
    assert [pair.image for pair in now.controller.annotations.pairs][-1:] == [image]


def test_an_image_without_a_file_is_known_by_its_pixels(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path, told: list[str]
) -> None:
    before = make_table()
    image, _ = before.add_painted(1)
    before.controller.annotations.flush()
    leave(before, qtbot, home / "a.sparseseg")
    (record,) = read_kept_images(home / "a.sparseseg")
    assert (record.path, record.content) == ("", fingerprint_of_pixels(image.data))
    alone, with_image = make_table(), make_table()
    alone.controller.place.open(str(home / "a.sparseseg"))
    assert "was never in a file" in told[0]
    alone.controller.close()
    again = with_image.viewer.add_image(image.data.copy(), name="under another name")
    with_image.controller.place.open(str(home / "a.sparseseg"))
    (pair,) = with_image.controller.annotations.pairs
    assert pair.image is again
    assert len(told) == 1


def test_images_of_deleted_labels_stay_known(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path
) -> None:
    before = make_table()
    paint_on(before, write_image(home / "one.tif"))
    paint_on(before, write_image(home / "two.tif", 1))
    leave(before, qtbot, home / "a.sparseseg")
    manifest = home / "a.sparseseg" / "manifest.json"
    data = json.loads(manifest.read_text())
    data["layers"][0]["present"] = False
    manifest.write_text(json.dumps(data))
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    assert [image.name for image in images_in(now)] == ["two"]
    names = {each.name for each in read_kept_images(home / "a.sparseseg")}
    assert names == {"one", "two"}


def test_hashing_does_not_stop_the_window(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []

    def hash_slowly(pixels: Any) -> str:
        threads.append(threading.current_thread() is threading.main_thread())
        return "pixels:done"

    monkeypatch.setattr(kept_images, "fingerprint_of_pixels", hash_slowly)
    kept = KeptImages(lambda: tmp_path)
    image = Image(np.zeros((8, 8), np.uint8), name="tile")
    kept.follow([image])
    qtbot.waitUntil(
        lambda: [e.content for e in read_kept_images(tmp_path)] == ["pixels:done"],
        timeout=5000,
    )
    assert threads == [False]
    kept.flush()
    image.name = "slide"
    image.translate = (4, 5)
    kept.flush()
    tile, slide = read_kept_images(tmp_path)
    # Labels that were not painted on since know it by its name of before.
    assert (tile.name, slide.name) == ("tile", "slide")
    assert slide.placement["translate"] == [4, 5]
    kept.close()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is damaged"),
        ('{"format": "images of napari-sparseseg", "version": 1}', "is damaged"),
        (
            '{"format": "images of napari-sparseseg", "version": 9}',
            f"version 9, but this program reads version {VERSION}",
        ),
    ],
)
def test_a_file_that_is_not_understood_is_refused(
    tmp_path: Path, text: str, sentence: str
) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(OutputError, match=sentence):
        read_kept_images(tmp_path)


def test_labels_are_opened_where_the_file_of_images_is_damaged(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path, told: list[str]
) -> None:
    before = make_table()
    paint_on(before, write_image(home / "ct.tif"))
    leave(before, qtbot, home / "a.sparseseg")
    (home / "a.sparseseg" / FILE).write_text("{")
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    assert FILE in told[0]
    (labels,) = now.viewer.layers
    assert labels.data.any()


def test_a_link_that_leads_nowhere_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    record = ImageRecord("ct", path=str(tmp_path / "loop.tif"), content="file:5:abc")
    assert find_image(record, [tmp_path]) == (None, False)


def test_paths_come_back_as_they_were(tmp_path: Path) -> None:
    there, gone = tmp_path / "Ä b.tif", tmp_path / "gone.tif"
    there.touch()
    records = [ImageRecord("a", path=str(there)), ImageRecord("b", path=str(gone))]
    write_kept_images(tmp_path, records)
    assert read_kept_images(tmp_path) == records


def test_images_are_asked_for_until_one_is_not_known(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = QWidget()
    qtbot.addWidget(parent)
    answers = ["/there/a.tif", ""]
    titles: list[str] = []

    def answer(_: Any, title: str, *__: Any) -> tuple[str, str]:
        titles.append(title)
        return answers[len(titles) - 1], ""

    monkeypatch.setattr(QFileDialog, "getOpenFileName", answer)
    ask = ask_with_dialog(parent)
    record = ImageRecord("ct", path="/home/a.tif")
    assert [ask(record) for _ in range(4)] == ["/there/a.tif", "", "", ""]
    assert len(titles) == 2
    assert "Where is a.tif" in titles[0]
    # A series is a folder.
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "/there/ct")
    series = ImageRecord("ct", path="/home/ct", content="folder:3:abc")
    assert ask_with_dialog(parent)(series) == "/there/ct"


def test_samples_are_opened_without_their_strokes(
    make_table: Callable[[], Table], qtbot: QtBot, home: Path, told: list[str]
) -> None:
    before = make_table()
    image, strokes, *_ = before.viewer.open_sample("napari-sparseseg", "tissue_phantom")
    before.controller.pairs.choose(image, strokes)
    strokes.paint((3, 3), 2)
    before.controller.annotations.flush()
    painted = np.array(strokes.data)
    leave(before, qtbot, home / "a.sparseseg")
    now = make_table()
    now.controller.place.open(str(home / "a.sparseseg"))
    again, labels = now.viewer.layers
    np.testing.assert_array_equal(again.data, image.data)
    np.testing.assert_array_equal(labels.data, painted)
    assert not told
