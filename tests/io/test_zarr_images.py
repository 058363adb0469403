"""OME-Zarr: levels, sizes and channels as the metadata have them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_sparseseg.errors import ImageError
from napari_sparseseg.io.sources import list_scenes, open_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (64, 80, 3), np.uint8)
VOLUME = RNG.integers(-1024, 3071, (4, 32, 40), np.int16)


def write(
    path: Path,
    levels: Sequence[NDArray[Any]],
    axes: str,
    scale: Sequence[float],
    version: str = "0.5",
    unit: str | None = "micrometer",
    **more: Any,
) -> Path:
    """Write OME-Zarr by its specification: 0.4 in zarr 2, 0.5 in zarr 3."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    types = {"t": "time", "c": "channel"}
    described = []
    for axis in axes:
        each = {"name": axis, "type": types.get(axis, "space")}
        described.append(each | ({"unit": unit} if unit and axis in "zyx" else {}))
    datasets = []
    for index, level in enumerate(levels):
        array = group.create_array(
            str(index), shape=level.shape, chunks=(16,) * level.ndim, dtype=level.dtype
        )
        array[...] = level
        factors = [
            s * (a / b if axis in "yx" else 1)
            for s, axis, a, b in zip(
                scale, axes, levels[0].shape, level.shape, strict=True
            )
        ]
        datasets.append(
            {
                "path": str(index),
                "coordinateTransformations": [{"type": "scale", "scale": factors}],
            }
        )
    scales = {"axes": described, "datasets": datasets, "version": version}
    content = {"multiscales": [scales], **more}
    group.attrs.update({"ome": content} if version == "0.5" else content)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_rgb_pyramids_have_their_channels_last(tmp_path: Path, version: str) -> None:
    levels = [np.moveaxis(RGB, -1, 0), np.moveaxis(RGB[::2, ::2], -1, 0)]
    path = write(
        tmp_path / "ein Präparat.ome.zarr", levels, "cyx", (1, 0.5, 0.5), version
    )
    source = open_image(path)
    assert source.name == "ein Präparat"
    assert source.is_rgb
    assert source.geometry.um_per_px == 0.5
    assert [level.shape for level in source.levels] == [(64, 80, 3), (32, 40, 3)]
    np.testing.assert_array_equal(source.levels[0][...], RGB)
    np.testing.assert_array_equal(
        source.levels[1][3:9, 5, 1:], RGB[::2, ::2][3:9, 5, 1:]
    )


def test_volumes_keep_unit_and_place(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.zarr", [VOLUME], "zyx", (3, 0.75, 0.75), unit="millimeter"
    )
    group = zarr.open_group(path)
    ome: Any = group.attrs["ome"]
    ome["multiscales"][0]["datasets"][0]["coordinateTransformations"].append(
        {"type": "translation", "translation": [-100, 5, 6]}
    )
    group.attrs["ome"] = ome
    source = open_image(path)
    np.testing.assert_array_equal(source.data[...], VOLUME)
    assert source.geometry.unit == "mm"
    assert source.geometry.spacing == (3.0, 0.75, 0.75)
    assert source.geometry.origin == (-100.0, 5.0, 6.0)


def test_axes_of_length_one_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [VOLUME[None, :1, None]], "tzcyx", (1,) * 5)
    source = open_image(path)
    assert source.geometry.axes == ("y", "x")
    np.testing.assert_array_equal(source.data[3:7], VOLUME[0, 3:7])


def test_fluorescence_is_not_rgb_and_has_the_window_of_its_channel(
    tmp_path: Path,
) -> None:
    channels = [
        {"color": color, "window": {"start": 10, "end": 90}}
        for color in ("00FF00", "FF00FF", "0000FF")
    ]
    path = write(
        tmp_path / "a.zarr",
        [np.moveaxis(RGB, -1, 0)],
        "cyx",
        (1, 0.5, 0.5),
        omero={"channels": channels},
    )
    source = open_image(path)
    assert not source.is_rgb
    assert source.n_channels == 3
    assert source.window == (10.0, 90.0)


def test_a_size_without_unit_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [VOLUME], "zyx", (3, 0.5, 0.5), unit=None)
    source = open_image(path)
    assert source.geometry.unit == "px"
    assert "does not say how large" in source.notes[0]


def test_plain_arrays_open(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=RGB.shape, chunks=(16, 16, 3), dtype=RGB.dtype
    )
    array[...] = RGB
    source = open_image(tmp_path / "a.zarr")
    assert source.is_rgb
    np.testing.assert_array_equal(source.data[...], RGB)


def test_missing_chunks_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [VOLUME], "zyx", (3, 0.5, 0.5))
    chunks = sorted((path / "0" / "c").rglob("*"))
    gone = next(each for each in chunks if each.is_file())
    gone.unlink()
    note = open_image(path).notes[0]
    assert "1 of the 6 chunks of a.zarr are not there, and read as 0" in note


def test_one_of_several_images_is_chosen(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    for name in "01":
        write(tmp_path / "a.zarr" / name, [VOLUME[int(name)]], "yx", (0.5, 0.5))
    with pytest.raises(ImageError, match="holds the images 0, 1; name one"):
        open_image(tmp_path / "a.zarr")
    assert list(list_scenes(tmp_path / "a.zarr")) == ["0", "1"]
    assert not list_scenes(tmp_path / "a.zarr" / "0")
    source = open_image(tmp_path / "a.zarr", series="1")
    np.testing.assert_array_equal(source.data[...], VOLUME[1])
    assert source.series == "1"


def test_what_is_no_image_or_damaged_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    with pytest.raises(ImageError, match="holds no image that is described"):
        open_image(tmp_path / "empty.zarr")
    path = write(tmp_path / "times.zarr", [np.stack([VOLUME] * 2)], "tzyx", (1,) * 4)
    with pytest.raises(ImageError, match="axes t, z, y, x of sizes"):
        open_image(path)
    damaged = write(tmp_path / "damaged.zarr", [VOLUME], "zyx", (1,) * 3)
    (damaged / "0" / "zarr.json").write_text("{")
    with pytest.raises(ImageError, match=r"damaged\.zarr cannot be read"):
        open_image(damaged)
    copied = write(tmp_path / "copied.zarr", [VOLUME, VOLUME], "zyx", (1,) * 3)
    shutil.rmtree(copied / "1")
    with pytest.raises(ImageError, match="should have the array '1' in it"):
        open_image(copied)
    plate = tmp_path / "plate.zarr"
    zarr.open_group(plate, mode="w").attrs["ome"] = {"plate": {}}
    with pytest.raises(ImageError, match="is a plate of many wells"):
        open_image(plate)


@pytest.mark.parametrize("name", ["../other.zarr/0", "0/../../other.zarr/0", "/etc"])
def test_nothing_outside_of_the_folder_is_read(tmp_path: Path, name: str) -> None:
    write(tmp_path / "other.zarr", [VOLUME], "zyx", (1,) * 3)
    path = write(tmp_path / "a.zarr", [VOLUME], "zyx", (1,) * 3)
    about = json.loads((path / "zarr.json").read_text())
    about["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = name
    (path / "zarr.json").write_text(json.dumps(about))
    with pytest.raises(ImageError, match=f"should have the array '{name}' in it"):
        open_image(path)


def test_a_newer_version_is_refused_with_both(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", [VOLUME], "zyx", (1,) * 3)
    about = json.loads((path / "zarr.json").read_text())
    about["attributes"]["ome"]["version"] = "0.6.dev2"
    (path / "zarr.json").write_text(json.dumps(about))
    with pytest.raises(ImageError, match=r"of version 0\.6\.dev2, but .* up to 0\.5"):
        open_image(path)
