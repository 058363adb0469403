"""Images, label maps and probabilities in files, and files written whole or not."""

import errno
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_sparseseg.annotations import ClassTable, LabelClass, find_class_table
from napari_sparseseg.errors import (
    ImageError,
    LabelError,
    OutputError,
    SparseSegError,
)
from napari_sparseseg.io import (
    list_images,
    match_by_stem,
    read_image,
    read_label_map,
    read_probabilities,
    stem_of,
    write_atomically,
    write_label_map,
    write_probabilities,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7, 1), np.uint8)
RGB16 = RNG.integers(0, 65536, (5, 7, 3), np.uint16)
HU = RNG.integers(-1024, 3071, (5, 7), np.int16)
TABLE = ClassTable(
    (LabelClass(1, "background", (0, 0, 0)), LabelClass(7, "gland", (255, 0, 255)))
)


def with_alpha(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([np.atleast_3d(array), ALPHA.astype(array.dtype)], axis=-1)


def png(path: Path, depth: int, color_type: int, rows: NDArray[Any]) -> None:
    """Write a PNG file straight from its specification, without any library."""
    height, width = rows.shape[:2]
    if depth < 8:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., -depth:]
        lines = np.packbits(bits.reshape(height, -1), axis=-1)
    else:
        lines = rows.astype(f">u{depth // 8}").reshape(height, -1)
    scans = b"".join(b"\0" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(scans)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + crc
    path.write_bytes(content)


def tiff(path: Path, array: NDArray[Any], **options: Any) -> None:
    options.setdefault("photometric", "rgb" if array.ndim == 3 else "minisblack")
    tifffile.imwrite(path, array, **options)


def palette_image(indices: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(indices)
    image.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
    return image


@pytest.mark.parametrize(
    ("depth", "color_type", "stored", "expected"),
    [
        (8, 0, GREY, GREY),
        (8, 2, RGB, RGB),
        (8, 4, with_alpha(GREY), GREY),
        (8, 6, with_alpha(RGB), RGB),
        (16, 0, RGB16[..., 0], RGB16[..., 0]),
        (16, 2, RGB16, RGB16),
        (16, 4, with_alpha(RGB16[..., 0]), RGB16[..., 0]),
        (16, 6, with_alpha(RGB16), RGB16),
        (1, 0, GREY % 2, GREY % 2 * 255),
        (4, 0, GREY % 16, GREY % 16 * 17),
    ],
)
def test_png_images_keep_grey_and_color_and_lose_alpha(
    tmp_path: Path,
    depth: int,
    color_type: int,
    stored: NDArray[Any],
    expected: NDArray[Any],
) -> None:
    path = tmp_path / "image.png"
    png(path, depth, color_type, stored)
    image = read_image(path)
    assert image.data.dtype == expected.dtype
    np.testing.assert_array_equal(image.data, expected)
    assert image.um_per_px is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_palette_images_become_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    image = palette_image(GREY)
    image.save(path)
    np.testing.assert_array_equal(read_image(path).data, np.array(image.convert("RGB")))


@pytest.mark.parametrize("pixels", [GREY, RGB])
def test_jpeg_images_are_read_as_another_library_reads_them(
    tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    path = tmp_path / "image.JPG"
    Image.fromarray(pixels).save(path, format="JPEG", quality=95)
    expected = imagecodecs.jpeg_decode(path.read_bytes())
    data = read_image(path).data
    assert data.shape == pixels.shape
    assert np.abs(data.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        (GREY, {}, GREY),
        (RGB, {}, RGB),
        (RGB, {"compression": "lzw"}, RGB),
        (RGB, {"planarconfig": "contig", "tile": (16, 16)}, RGB),
        (with_alpha(RGB), {"extrasamples": ["unassalpha"]}, RGB),
        (
            with_alpha(GREY),
            {"photometric": "minisblack", "extrasamples": ["unassalpha"]},
            GREY,
        ),
        (RGB16, {}, RGB16),
        (RGB16, {"byteorder": ">"}, RGB16),
        (HU, {"compression": "zlib", "predictor": True}, HU),
        (HU.astype(np.float32), {}, HU.astype(np.float32)),
        (HU.astype(np.int32), {}, HU.astype(np.int32)),
        (GREY, {"photometric": "miniswhite"}, 255 - GREY),
        (GREY > 99, {}, (GREY > 99) * np.uint8(255)),
        (GREY[None, None], {"metadata": {"axes": "ZCYX"}}, GREY),
        (RGB[:1], {}, RGB[:1]),
        (np.moveaxis(RGB, -1, 0), {"planarconfig": "separate"}, RGB),
        (
            np.moveaxis(RGB16, -1, 0),
            {"photometric": "minisblack", "metadata": {"axes": "CYX"}},
            RGB16,
        ),
        (
            np.moveaxis(with_alpha(RGB16), -1, 0),
            {"photometric": "minisblack", "ome": True, "metadata": {"axes": "CYX"}},
            with_alpha(RGB16),
        ),
        (
            RGB16[..., :2],
            {"photometric": "minisblack", "planarconfig": "contig"},
            RGB16[..., :2],
        ),
        (
            np.dstack([RGB16, RGB16[..., :2]]),
            {"photometric": "minisblack", "planarconfig": "contig"},
            np.dstack([RGB16, RGB16[..., :2]]),
        ),
    ],
)
def test_tiff_images_come_as_y_x_c(
    tmp_path: Path, stored: NDArray[Any], options: dict[str, Any], expected: Any
) -> None:
    path = tmp_path / "image.tif"
    tiff(path, stored, **options)
    data = read_image(path).data
    assert data.dtype == expected.dtype
    assert data.dtype.isnative
    assert data.flags.c_contiguous
    np.testing.assert_array_equal(data, expected)


def test_a_pyramid_is_read_at_full_resolution(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    big = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    with tifffile.TiffWriter(path) as writer:
        writer.write(big, photometric="rgb", subifds=1)
        writer.write(big[::2, ::2], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(read_image(path).data, big)


CM, INCH = "CENTIMETER", "INCH"


@pytest.mark.parametrize(
    ("options", "um_per_px"),
    [
        ({"resolution": (20_000, 20_000), "resolutionunit": CM}, 0.5),
        ({"resolution": (17.5, 17.5), "resolutionunit": CM}, 571.428),
        ({"resolution": (300, 300), "resolutionunit": INCH}, None),
        ({"resolution": (300 / 2.54, 300 / 2.54), "resolutionunit": CM}, None),
        ({"resolution": (28.34, 28.34), "resolutionunit": CM}, None),
        ({"resolution": (20_000, 10_000), "resolutionunit": CM}, None),
        ({"resolution": (2, 2), "resolutionunit": "NONE"}, None),
        ({}, None),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "micron"}}, 0.25),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "mm"}}, 250),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "inch"}}, None),
        ({"imagej": True}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.499}}, 0.499),
        (
            {
                "ome": True,
                "metadata": {
                    "PhysicalSizeX": 250,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 0.25,
                    "PhysicalSizeYUnit": "µm",
                },
            },
            0.25,
        ),
        ({"ome": True, "metadata": {"PhysicalSizeX": 1, "PhysicalSizeY": 2}}, None),
        (
            {
                "ome": True,
                "metadata": {"PhysicalSizeX": 1, "PhysicalSizeXUnit": "pixel"},
            },
            None,
        ),
        ({"ome": True}, None),
        ({"description": "<OME><not closed", "metadata": None}, None),
    ],
)
def test_the_pixel_size_comes_from_sources_that_mean_it(
    tmp_path: Path, options: dict[str, Any], um_per_px: float | None
) -> None:
    path = tmp_path / "image.tif"
    tiff(path, GREY, **options)
    assert read_image(path).um_per_px == (
        None if um_per_px is None else pytest.approx(um_per_px, rel=1e-5)
    )


def stack(path: Path) -> None:
    tiff(path, np.zeros((4, 5, 7), np.uint8), photometric="minisblack")


def pages_of_two_sizes(path: Path) -> None:
    images = [Image.fromarray(RGB), Image.fromarray(RGB[:3])]
    images[0].save(path, save_all=True, append_images=images[1:])


def not_finite(path: Path) -> None:
    tiff(path, np.array([[np.nan, 1, -np.inf]], np.float32))


def complex_numbers(path: Path) -> None:
    tiff(path, np.zeros((2, 2), np.complex64))


def cmyk_tiff(path: Path) -> None:
    Image.fromarray(RGB).convert("CMYK").save(path, format="TIFF")


def cmyk_jpeg(path: Path) -> None:
    Image.fromarray(RGB).convert("CMYK").save(path, format="JPEG")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "There is no file .*case.tif"),
        (Path.mkdir, "case.tif is a folder"),
        (Path.touch, "case.tif is neither a PNG, a JPEG nor a TIFF file"),
        (lambda path: path.write_text("hello"), "neither a PNG, a JPEG nor a TIFF"),
        (stack, r"case.tif holds pages of shape \(4, 5, 7\).*only 2-D images"),
        (pages_of_two_sizes, "holds 2 images of different sizes.*only 2-D images"),
        (not_finite, "case.tif has 2 of 3 values that are not finite"),
        (complex_numbers, "case.tif holds complex64"),
        (cmyk_tiff, "case.tif has SEPARATED colours"),
        (cmyk_jpeg, "case.tif has CMYK colours"),
    ],
)
def test_files_that_are_no_2d_image_are_refused_in_a_sentence(
    tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "case.tif"
    write(path)
    with pytest.raises(ImageError, match=message) as error:
        read_image(path)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def encoded(path: Path, kind: str) -> bytes:
    image = RNG.integers(0, 256, (40, 30, 3), np.uint8)
    if kind.startswith("tif"):
        tiff(path, image, compression=kind[4:] or None)
    else:
        Image.fromarray(image).save(path, format=kind)
    return path.read_bytes()


@pytest.mark.parametrize(
    "kind", ["png", "jpeg", "tif", "tif-zlib", "tif-lzw", "tif-jpeg"]
)
def test_truncated_files_are_refused_with_their_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cut"
    content = encoded(path, kind)
    complete = read_image(path).data
    n_refused = 0
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        path.write_bytes(content[:length])
        try:
            # Whatever is read from a part must be all of the image.
            np.testing.assert_array_equal(read_image(path).data, complete)
        except ImageError as error:
            assert "cut " in str(error)
            n_refused += 1
    assert n_refused > 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["png", "jpeg", "tif", "tif-zlib", "tif-lzw"])
def test_damaged_files_give_no_other_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "damaged"
    content = np.frombuffer(encoded(path, kind), np.uint8)
    rng = np.random.default_rng(1)
    n_refused = 0
    for _ in range(60):
        damaged = content.copy()
        damaged[rng.integers(0, min(300, len(content)), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            read_image(path)
        except SparseSegError:
            n_refused += 1
    assert n_refused > 5


def test_an_image_too_large_for_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    png(path, 8, 0, GREY)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"huge\.png is too large to be read at once"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "um_per_px"),
    [
        ("glas/train/images/testA_50.png", (433, 574, 3), np.uint8, None),
        ("adp/test/images/tuning_126_crop_287.png", (224, 224, 3), np.uint8, None),
        ("ircadb/train/images/3Dircadb1.01_z030.tif", (512, 512), np.int16, 570),
        ("formats/wsi/histolab_kidney-48-5.tif", (901, 1493, 3), np.uint8, None),
    ],
)
def test_real_images_are_read(
    data_dir: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    um_per_px: float | None,
) -> None:
    image = read_image(data_dir / name)
    assert image.data.shape == shape
    assert image.data.dtype == dtype
    assert image.um_per_px == um_per_px
    np.testing.assert_array_equal(image.data, np.array(Image.open(data_dir / name)))


@pytest.mark.parametrize(
    "name",
    [
        "CMU-1-Small-Region.svs",
        "histolab_broken.svs",
        "openslide_unopenable.tiff",
        "pathml_small_vectra.qptiff",
        "pathml_small_wsi_dicom.dcm",
    ],
)
def test_real_files_that_are_no_2d_images_are_refused(
    data_dir: Path, name: str
) -> None:
    with pytest.raises(ImageError, match=name):
        read_image(data_dir / "formats" / "wsi" / name)


@pytest.mark.parametrize(
    ("depth", "highest"), [(1, 1), (2, 3), (4, 15), (8, 255), (16, 65535)]
)
def test_png_label_maps_keep_their_values_at_any_depth(
    tmp_path: Path, depth: int, highest: int
) -> None:
    path = tmp_path / "labels.png"
    labels = RNG.integers(0, highest + 1, (5, 7))
    png(path, depth, 0, labels)
    np.testing.assert_array_equal(read_label_map(path), labels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("highest", [1, 3, 200])
def test_palette_label_maps_give_their_indices(
    tmp_path: Path, suffix: str, highest: int
) -> None:
    path = tmp_path / f"labels{suffix}"
    indices = GREY % (highest + 1)
    palette_image(indices).save(path)
    labels = read_label_map(path)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, indices)


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (GREY, {}),
        (GREY, {"photometric": "miniswhite"}),
        (RGB16[..., 0], {"compression": "lzw"}),
        (RGB16[..., 0], {"byteorder": ">"}),
        (GREY.astype(np.int32), {}),
        (GREY > 99, {}),
    ],
)
def test_tiff_label_maps_keep_their_values(
    tmp_path: Path, labels: NDArray[Any], options: dict[str, Any]
) -> None:
    path = tmp_path / "labels.tif"
    tiff(path, labels, **options)
    np.testing.assert_array_equal(read_label_map(path), labels)


COLOURS = ClassTable((LabelClass(2, "a", (255, 0, 0)), LabelClass(7, "b", (0, 0, 9))))


@pytest.mark.parametrize("name", ["mask.png", "mask.tif"])
def test_colours_are_read_through_the_class_table(tmp_path: Path, name: str) -> None:
    mask = np.zeros((5, 6, 4), np.uint8)
    mask[0], mask[1], mask[2] = (255, 0, 0, 255), (0, 0, 9, 255), (1, 2, 3, 0)
    mask[3:] = (0, 0, 0, 255)
    expected = np.repeat([[2], [7], [0], [0], [0]], 6, axis=1)
    Image.fromarray(mask).save(tmp_path / name)
    np.testing.assert_array_equal(read_label_map(tmp_path / name, COLOURS), expected)
    # Where black is a class it is no absence of one.
    black = ClassTable((*COLOURS, LabelClass(1, "background", (0, 0, 0))))
    expected[3:] = 1
    np.testing.assert_array_equal(read_label_map(tmp_path / name, black), expected)


def test_a_colour_without_a_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.full((3, 4, 3), 77, np.uint8)).save(path)
    with pytest.raises(LabelError, match=r"mask\.png: .*77"):
        read_label_map(path, COLOURS)


def grey_as_rgb(path: Path) -> None:
    Image.fromarray(np.repeat(GREY[..., None], 3, axis=-1)).save(path)


@pytest.mark.parametrize(
    ("name", "write", "error", "message"),
    [
        ("a.png", grey_as_rgb, LabelError, "a.png .*colour-coded mask.*class table"),
        ("a.tif", grey_as_rgb, LabelError, "a.tif .*colour-coded mask.*class table"),
        (
            "a.jpg",
            lambda path: Image.fromarray(GREY).save(path),
            LabelError,
            "a.jpg is a JPEG file, which changes values",
        ),
        (
            "a.tif",
            lambda path: tiff(path, GREY.astype(np.float32)),
            LabelError,
            "a.tif has pixels of type float32",
        ),
        ("a.tif", lambda path: tiff(path, HU), LabelError, "a.tif has values from -"),
        ("a.tif", stack, ImageError, "a.tif holds pages of shape"),
        ("a.tif", lambda path: None, ImageError, "There is no file .*a.tif"),
    ],
)
def test_files_that_are_no_label_map_are_refused_in_a_sentence(
    tmp_path: Path,
    name: str,
    write: Callable[[Path], object],
    error: type[SparseSegError],
    message: str,
) -> None:
    write(tmp_path / name)
    with pytest.raises(error, match=message):
        read_label_map(tmp_path / name)


@pytest.mark.parametrize("set_name", ["adp", "glas", "ircadb", "sts"])
def test_real_label_maps_fit_their_images(data_dir: Path, set_name: str) -> None:
    folder = data_dir / set_name / "train"
    match = match_by_stem(
        list_images(folder / "images"), list_images(folder / "strokes_1pct")
    )
    assert len(match.pairs) >= 19
    assert match.images_only == match.labels_only == []
    for _, image_path, label_path in match.pairs[:3]:
        labels = read_label_map(label_path)
        assert labels.shape == read_image(image_path).data.shape[:2]
        np.testing.assert_array_equal(labels, np.array(Image.open(label_path)))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("table", [None, TABLE])
@pytest.mark.parametrize("extra", [7, 200, 300])
def test_written_label_maps_are_the_same_for_us_and_for_pillow(
    tmp_path: Path, suffix: str, table: ClassTable | None, extra: int
) -> None:
    path = tmp_path / f"case_1.5mm{suffix}"
    labels = np.array([[0, 1, extra], [7, 7, 0]])
    if table is not None and extra not in table.values:
        table = ClassTable((*table, LabelClass(extra, "vessel", (255, 0, 0))))
    write_label_map(path, labels, table)
    np.testing.assert_array_equal(read_label_map(path), labels)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.array(image), labels)
    assert find_class_table(path) == table
    assert len(list(tmp_path.iterdir())) == (1 if table is None else 2)


def test_a_written_png_shows_the_colors_of_the_classes(tmp_path: Path) -> None:
    path = tmp_path / "labels.png"
    write_label_map(path, np.array([[0, 1, 7]], np.uint16), TABLE)
    with Image.open(path) as image:
        assert image.mode == "P"
        shown = np.array(image.convert("RGBA"))
    assert shown[0, 1:].tolist() == [[0, 0, 0, 255], [255, 0, 255, 255]]
    assert shown[0, 0, 3] == 0


@pytest.mark.parametrize(
    ("name", "labels", "error", "message"),
    [
        ("a.jpg", [[0, 1]], OutputError, r"a.jpg; give it one of .*\.png, \.tif"),
        ("a.png", [[0, 2]], LabelError, "not in the class table: 2 in 1 pixel;"),
        ("a.png", [[0.5]], LabelError, "type float64"),
        ("none/a.png", [[0, 1]], OutputError, "its folder does not exist"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path,
    name: str,
    labels: list[list[float]],
    error: type[SparseSegError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        write_label_map(tmp_path / name, np.array(labels), TABLE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_file_cut_off_while_it_is_written_leaves_the_old_one(
    tmp_path: Path, suffix: str
) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / f"labels{suffix}"
    write_label_map(path, np.array([[0, 1]]))
    noise = RNG.choice([0, 1, 7], (400, 400))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match=f"labels{suffix} cannot be written: "):
            write_label_map(path, noise, TABLE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [path]
    assert read_label_map(path).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "there is no permission"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_the_reason_why_a_file_cannot_be_written_is_given(
    tmp_path: Path, number: int, message: str
) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise OSError(number, "Input/output error")

    with pytest.raises(OutputError, match=f"result.json cannot be written: {message}"):
        write_atomically(path, write)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_other_errors_pass_and_leave_nothing_behind(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "result.json", write)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(OutputError, match="a folder has that name"):
        write_atomically(tmp_path / "result.json", lambda temporary: temporary.touch())
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    seen = []

    def write(temporary: Path) -> None:
        temporary.write_text(json.dumps({"new": 1}))
        seen.append((path.read_text(), temporary.parent, temporary.suffix))

    write_atomically(path, write)
    assert seen == [("old", tmp_path, ".json")]
    assert json.loads(path.read_text()) == {"new": 1}


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 5, 7), (2, 1, 3)])
def test_probabilities_come_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "probabilities.tif"
    probabilities = RNG.random(shape).astype(np.float32)
    write_probabilities(path, probabilities)
    read = read_probabilities(path)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, probabilities)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == shape[0]
        image.seek(shape[0] - 1)
        np.testing.assert_array_equal(np.array(image), probabilities[-1])


def test_what_are_no_probabilities_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "probabilities.tif"
    for wrong in (np.zeros((5, 7)), np.zeros((2, 5, 7), int)):
        with pytest.raises(OutputError, match=r"floats of shape \(c, y, x\)"):
            write_probabilities(path, wrong)
    tiff(path, GREY)
    with pytest.raises(ImageError, match="probabilities are float32 with axes CYX"):
        read_probabilities(path)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("case.png", "case"),
        ("3Dircadb1.01_z030.tif", "3Dircadb1.01_z030"),
        ("folder.d/a.b.JPEG", "a.b"),
        ("slide.OME.TIF", "slide"),
        ("a.png.tif", "a.png"),
        ("case_1.5mm.nii.gz", "case_1.5mm"),
        ("slide.ome.zarr", "slide"),
        ("a.b", "a.b"),
        (".png", ".png"),
    ],
)
def test_only_image_suffixes_are_taken_off_a_name(name: str, stem: str) -> None:
    assert stem_of(name) == stem_of(Path(name)) == stem


def test_a_folder_gives_its_visible_images_by_stem(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.1.tif", ".hidden.png", "b.classes.json", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.png").mkdir()
    assert list_images(tmp_path) == {
        "a.1": tmp_path / "a.1.tif",
        "b": tmp_path / "b.PNG",
    }
    assert list(list_images(tmp_path)) == ["a.1", "b"]
    assert list_images(tmp_path / "b.PNG") == {"b": tmp_path / "b.PNG"}


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        (["a.png", "a.tif"], "", "a.png and a.tif in .* have the same name"),
        (["a.txt", ".a.png"], "", "has no image in it; images end in .png"),
        (["a.txt"], "a.txt", "a.txt is no image file; images end in .png"),
        ([], "none", "There is no file or folder .*none"),
    ],
)
def test_folders_without_a_clear_set_of_images_are_refused(
    tmp_path: Path, files: list[str], name: str, message: str
) -> None:
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(ImageError, match=message):
        list_images(tmp_path / name)


def test_images_and_label_maps_are_matched_by_stem() -> None:
    images = {stem: Path(f"{stem}.tif") for stem in ("c", "a.1", "a.2")}
    labels = {stem: Path(f"{stem}.png") for stem in ("d", "c", "a.1")}
    match = match_by_stem(images, labels)
    assert match.pairs == [
        ("a.1", Path("a.1.tif"), Path("a.1.png")),
        ("c", Path("c.tif"), Path("c.png")),
    ]
    assert match.images_only == ["a.2"]
    assert match.labels_only == ["d"]
