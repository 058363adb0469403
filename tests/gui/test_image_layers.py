"""Images of files as layers: where they lie, what is read, and what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
import PIL.Image
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Layer
from npe2 import plugin_manager
from qtpy.QtWidgets import QInputDialog, QWidget

from napari_sparseseg.gui import image_layers
from napari_sparseseg.gui.image_layers import layers_of, open_layers
from napari_sparseseg.gui.label_places import geometry_of
from napari_sparseseg.gui.layer_keys import SOURCE_KEY
from napari_sparseseg.gui.planes import level_shape, um_per_px
from napari_sparseseg.gui.readers import image_reader
from napari_sparseseg.io import slides
from napari_sparseseg.io.geometry import Geometry
from napari_sparseseg.io.sources import ImageSource
from tests.io.written import RGB, write_series, write_slide

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

FILE = Path("a.nii")
HU = np.zeros((3, 8, 10), np.int16)


@pytest.fixture
def in_window(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    monkeypatch.setattr(image_layers, "_window", lambda: window)


@pytest.fixture
def viewer(in_window: None, monkeypatch: pytest.MonkeyPatch) -> ViewerModel:
    """Return the viewer of the window."""
    viewer = ViewerModel()
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    return viewer


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small slides count as large ones."""
    monkeypatch.setattr(slides, "LARGEST_SIDE", 100)


def layer_of(source: ImageSource) -> Image:
    (created,) = (Layer.create(*each) for each in layers_of(source))
    assert isinstance(created, Image)
    return created


def test_a_volume_lies_where_it_is_in_the_patient(tmp_path: Path) -> None:
    (opened,) = open_layers(write_series(tmp_path))
    layer = Layer.create(*opened)
    np.testing.assert_array_equal(layer.scale, (3, 0.75, 0.5))
    np.testing.assert_array_equal(layer.translate, (0, -9, -7))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert layer.contrast_limits == [-160, 240]
    assert layer.name == "Abdomen"
    known = layer.metadata[SOURCE_KEY]
    assert known["path"] == str(tmp_path)
    assert len(known["files"]) == 6
    assert known["geometry"].unit == "mm"


def test_oblique_volumes_are_not_put_where_they_are_not() -> None:
    turned = ((0.0, 0.0, 1.0), (0.0, 0.8, 0.6), (1.0, 0.0, 0.0))
    geometry = Geometry(("z", "y", "x"), (3, 1, 1), "mm", (5, 6, 7), turned)
    layer = layer_of(ImageSource(FILE, "a", (HU,), geometry))
    np.testing.assert_array_equal(layer.translate, (0, 0, 0))
    np.testing.assert_array_equal(layer.scale, (3, 1, 1))


def test_of_a_slide_only_what_is_seen_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, ...]] = []
    make = slides.SlideLevel.make_block

    def note(self: Any, rows: slice, columns: slice) -> Any:
        read.append(self.shape)
        return make(self, rows, columns)

    monkeypatch.setattr(slides.SlideLevel, "make_block", note)
    viewer = ViewerModel()
    (opened,) = open_layers(write_slide(tmp_path / "a.svs", RGB[::4, ::4]))
    assert not read
    layer = Layer.create(*opened)
    viewer.add_layer(layer)
    assert set(read) == {(75, 100, 3)}
    assert layer.multiscale
    assert layer.rgb
    assert layer.level_shapes.tolist() == [[300, 400], [75, 100]]
    assert um_per_px(layer) == pytest.approx(0.5)
    assert um_per_px(layer, 1) == pytest.approx(2)
    np.testing.assert_array_equal(layer.data[0][10:20, 30:40], RGB[10:20, 30:40])


def test_channels_are_layers() -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (8, 10, 4), np.uint16)
    geometry = Geometry(("y", "x"), (0.5, 0.5), "um")
    source = ImageSource(FILE, "a", (pixels,), geometry)
    layers = [Layer.create(*each) for each in layers_of(source)]
    assert [layer.name for layer in layers] == [f"a channel {i}" for i in (1, 2, 3, 4)]
    np.testing.assert_array_equal(layers[2].data, pixels[..., 2])


def test_napari_opens_files_through_the_reader(tmp_path: Path) -> None:
    plugin_manager.discover()
    viewer = ViewerModel()
    (layer,) = viewer.open(write_slide(tmp_path / "a.svs"), plugin="napari-sparseseg")
    np.testing.assert_array_equal(layer.data, RGB)
    np.testing.assert_array_equal(layer.scale, (0.5, 0.5))


def test_folders_of_pictures_and_lists_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert image_reader(str(tmp_path)) is None
    assert image_reader([str(tmp_path / "a.nii")]) is None
    write_series(tmp_path / "inside")
    assert image_reader(str(tmp_path)) is not None


@pytest.mark.usefixtures("in_window")
def test_what_cannot_be_opened_is_told_in_a_sentence(
    tmp_path: Path, told: list[str]
) -> None:
    (tmp_path / "broken.svs").write_bytes(b"no slide")
    assert open_layers(tmp_path / "broken.svs") == image_layers.NOTHING
    (sentence,) = told
    # Its beginning is all that napari shows at first.
    assert sentence.startswith("broken.svs is damaged")


@pytest.mark.usefixtures("in_window")
@pytest.mark.parametrize("is_chosen", [True, False])
def test_one_of_several_series_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_chosen: bool
) -> None:
    write_series(tmp_path, SeriesInstanceUID="1.2.3.1")
    write_series(
        tmp_path, (0, 5), SeriesInstanceUID="1.2.3.2", SeriesDescription="Lung"
    )
    offered: list[list[str]] = []

    def answer(*asked: Any) -> tuple[str, bool]:
        assert f"'{tmp_path.name}' has 2 images or series" in asked[2]
        offered.append(asked[3])
        return asked[3][1], is_chosen

    monkeypatch.setattr(QInputDialog, "getItem", answer)
    opened = open_layers(tmp_path)
    assert offered == [["1: CT 'Abdomen' (6 x 8 x 10)", "2: CT 'Lung' (2 x 8 x 10)"]]
    if not is_chosen:
        assert opened == image_layers.NOTHING
        return
    ((data, arguments, _),) = opened
    assert data.shape == (2, 8, 10)
    assert arguments["metadata"][SOURCE_KEY]["series"] == "1.2.3.2"


@pytest.mark.usefixtures("in_window", "large")
@pytest.mark.parametrize(
    ("text", "is_given", "unit", "n_told"),
    [
        ("0,25", True, "um", 0),
        ("", True, "pixel", 0),
        ("0.25", False, "pixel", 0),
        ("-1", True, "pixel", 1),
        ("two", True, "pixel", 1),
    ],
)
def test_a_slide_without_a_pixel_size_asks_for_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    text: str,
    is_given: bool,
    unit: str,
    n_told: int,
) -> None:
    asked: list[str] = []

    def answer(dialog: QInputDialog) -> bool:
        asked.append(dialog.labelText())
        dialog.setTextValue(text)
        return is_given

    monkeypatch.setattr(QInputDialog, "exec", answer)
    path = write_slide(tmp_path / "a.svs", about="|AppMag = 20")
    ((_, arguments, _),) = open_layers(path)
    assert "'a' does not say how large its pixels are" in asked[0]
    assert arguments["units"] == [unit] * 2
    assert arguments["scale"] == ((0.25, 0.25) if unit == "um" else (1, 1))
    # What the user has said is not in the file: who opens that needs it, too.
    assert arguments["metadata"][SOURCE_KEY]["geometry"].unit == "px"
    assert len([each for each in told if "is no pixel size" in each]) == n_told


def answer_size(monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[str]:
    """Answer the questions for pixel sizes; return what was asked."""
    asked: list[str] = []

    def answer(dialog: QInputDialog) -> bool:
        dialog.setTextValue(texts[len(asked)])
        asked.append(dialog.labelText())
        return True

    monkeypatch.setattr(QInputDialog, "exec", answer)
    return asked


def test_what_is_opened_beside_others_has_their_unit_of_length(
    tmp_path: Path, viewer: ViewerModel, told: list[str]
) -> None:
    """Where layers have several, napari 0.9 draws a stroke elsewhere, or fails."""
    slide, series = write_slide(tmp_path / "a.svs"), write_series(tmp_path / "ct")
    for first, second, unit, scale in (
        (slide, series, "micrometer", (3000, 750, 500)),
        (series, slide, "millimeter", (0.0005, 0.0005)),
    ):
        viewer.layers.clear()
        for path in (first, second):
            ((data, arguments, _),) = open_layers(path)
            viewer.add_image(data, **arguments)
        layer: Any = viewer.layers[1]
        assert {str(each) for each in layer.units} == {unit}
        np.testing.assert_allclose(layer.scale, scale)
        # What is known of the file stays.
        geometry = layer.metadata[SOURCE_KEY]["geometry"]
        assert geometry.unit == ("um" if second is slide else "mm")
        shape = level_shape(layer)
        placed = {key: getattr(layer, key) for key in ("scale", "translate", "units")}
        assert geometry_of(placed, shape, layer) == geometry
        assert viewer.layers.extent.units is not None
    assert um_per_px(layer) == pytest.approx(0.5)
    assert not told


@pytest.mark.parametrize("text", ["0.25", ""])
def test_beside_a_slide_a_tile_is_asked_how_large_its_pixels_are(
    tmp_path: Path,
    viewer: ViewerModel,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    text: str,
) -> None:
    monkeypatch.setattr(image_layers, "BESIDE_MS", 0)
    asked = answer_size(monkeypatch, text)
    tile = tmp_path / "tile.png"
    PIL.Image.fromarray(RGB[:64, :64]).save(tile)
    # Alone nobody is asked.
    ((_, arguments, _),) = open_layers(tile)
    assert arguments["units"] == ["pixel"] * 2
    assert not asked
    told.clear()
    for path in (write_slide(tmp_path / "a.svs"), tile):
        ((data, arguments, _),) = open_layers(path)
        viewer.add_image(data, **arguments)
    assert len(asked) == 1
    layer: Any = viewer.layers["tile"]
    assert um_per_px(layer) == (0.25 if text else None)
    if text:
        assert not told
    else:
        qtbot.waitUntil(lambda: bool(told), timeout=3000)
        (sentence,) = told
        assert sentence.startswith("'tile' does not say how large its pixels are: ")
        assert "as wide as 1 µm" in sentence


def test_beside_a_tile_without_a_pixel_size_a_slide_says_what_is_seen(
    tmp_path: Path,
    viewer: ViewerModel,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
) -> None:
    monkeypatch.setattr(image_layers, "BESIDE_MS", 0)
    viewer.add_image(RGB[:64, :64], name="tile")
    ((_, arguments, _),) = open_layers(write_slide(tmp_path / "a.svs"))
    assert arguments["units"] == ["um"] * 2
    qtbot.waitUntil(lambda: bool(told), timeout=3000)
    (sentence,) = told
    assert sentence.startswith("'tile' does not say how large its pixels are: ")
