"""Images of any size, file to file: equal to the whole, resumable, in little memory."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from scipy.ndimage import binary_opening, gaussian_filter1d

from benchmarks._files_large import loadable
from napari_sparseseg import cli, files
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import ImageError, OptionError, OutputError
from napari_sparseseg.files import (
    PredictionStarted,
    PredictionWritten,
    choose_level,
    image_identity,
    iter_predict_file,
    predict_file,
)
from napari_sparseseg.io.export import export_in_parts, export_labels
from napari_sparseseg.io.geometry import Geometry
from napari_sparseseg.io.images import write_label_map
from napari_sparseseg.io.model_file import load_model, save_model
from napari_sparseseg.io.sources import ImageSource, open_image
from napari_sparseseg.io.zarr_labels import classes_of_zarr, label_metadata
from napari_sparseseg.networks.registry import NetworkSpec
from napari_sparseseg.prediction.large import ChunkDone, ChunkPredictor
from napari_sparseseg.prediction.predictor import PredictOptions, predict_image
from napari_sparseseg.samples import tissue_phantom
from tests.prediction.test_predictor import (
    Fake,
    head_and_network,
    model_of,
    random_head,
    random_image,
    random_network,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.networks.model import SegmentationModel
    from tests.conftest import Run

GROUPS = NetworkSpec("unet", {"filters": 8, "levels": 3, "norm": "group"})

#: Predicts and tells of each chunk; a second argument asks for nothing else.
TELLING = """
import sys
from napari_sparseseg.files import iter_predict_file
from napari_sparseseg.io.model_file import load_model
model = load_model(sys.argv[1])
for event in iter_predict_file(model, sys.argv[2], sys.argv[3], tile=16):
    print(type(event).__name__, flush=True)
"""


@pytest.fixture(scope="module")
def tissue() -> NDArray[np.uint8]:
    return tissue_phantom(0, (150, 203)).image


@pytest.fixture(scope="module")
def model(tissue: NDArray[np.uint8]) -> SegmentationModel:
    return loadable(random_network(tissue, 0.5))


def write_zarr(path: Path, *levels: NDArray[Any], um: float | None = None) -> Path:
    """Write an array, or an OME-Zarr where there are several or a pixel size."""
    if len(levels) == 1 and um is None:
        chunks = tuple(min(64, n) for n in levels[0].shape)
        zarr.create_array(path, data=levels[0], chunks=chunks)
        return path
    geometry = Geometry(("y", "x"), (um or 1.0,) * 2, "px" if um is None else "um")
    model = model_of(Fake())
    ome = label_metadata(2, model.info.classes, geometry, len(levels))
    del ome["image-label"]
    for scale in ome["multiscales"]:
        scale["axes"].append({"name": "c", "type": "channel"})
        for level in scale["datasets"]:
            for step in level["coordinateTransformations"]:
                step[step["type"]].append(1.0 if step["type"] == "scale" else 0.0)
    group = zarr.create_group(path, attributes={"ome": ome})
    for number, level in enumerate(levels):
        group.create_array(str(number), data=level, chunks=(64, 64, 3))
    return path


def finest(path: Path) -> NDArray[Any]:
    return np.asarray(zarr.open_array(path / "0", mode="r")[...])


def expected_labels(
    model: SegmentationModel, image: NDArray[Any], tile: int
) -> NDArray[Any]:
    labels, _ = predict_image(model, image, PredictOptions(tile=tile))
    assert len(np.unique(labels)) > 1
    return labels


class TestLabels:
    @pytest.mark.parametrize("tile", [32, 45, 1024])
    @pytest.mark.parametrize(
        "make",
        [
            lambda image: random_network(image, 0.5),
            lambda image: random_network(image, 0.7, GROUPS),
            lambda image: random_head(image, 1.0),
            lambda image: head_and_network(image, 0.5, 1.0),
        ],
        ids=["batch norm", "group norm", "head", "both"],
    )
    def test_are_those_of_the_whole_image_to_the_bit(
        self,
        tmp_path: Path,
        tissue: NDArray[np.uint8],
        make: Callable[[NDArray[Any]], SegmentationModel],
        tile: int,
    ) -> None:
        model = make(tissue)
        image = write_zarr(tmp_path / "image.zarr", tissue)
        predict_file(model, image, tmp_path / "out.ome.zarr", tile=tile)
        np.testing.assert_array_equal(
            finest(tmp_path / "out.ome.zarr"), expected_labels(model, tissue, tile)
        )

    def test_of_a_pyramid_come_with_classes_sizes_and_coarser_levels(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("napari_sparseseg.io.label_store.COARSEST_SIDE", 40)
        pixels = random_image(151, 90, 3)
        image = write_zarr(tmp_path / "image.zarr", pixels, um=0.25)
        model = model_of(Fake())
        out = tmp_path / "out.ome.zarr"
        paths = predict_file(model, image, out, tile=32, tissue_mask=False)
        assert paths == (out,)
        source = open_image(out)
        assert [level.shape for level in source.levels] == [
            (151, 90),
            (76, 45),
            (38, 23),
        ]
        np.testing.assert_array_equal(source.levels[2], source.levels[0][::4, ::4])
        assert source.geometry.um_per_px == 0.25
        ome = zarr.open_group(out, mode="r").attrs["ome"]
        found = classes_of_zarr(ome)
        assert found is not None
        assert found.named_values == model.info.classes.named_values
        assert sorted(each.name for each in tmp_path.iterdir()) == [
            "image.zarr",
            "out.ome.zarr",
        ]

    @pytest.mark.parametrize("sigma", [0, 0.8])
    def test_of_a_volume_are_those_of_its_planes(
        self, tmp_path: Path, tissue: NDArray[np.uint8], sigma: float
    ) -> None:
        rolled = [np.roll(tissue[..., 0], 9 * z, axis=1) for z in range(6)]
        planes = np.stack(rolled)
        model = random_network(planes[0], 0.5)
        image = write_zarr(tmp_path / "volume.zarr", planes)
        out = tmp_path / "out.ome.zarr"
        predict_file(model, image, out, tile=40, smooth_planes=sigma)
        options = PredictOptions(tile=40, probabilities=True)
        predicted = [predict_image(model, plane, options) for plane in planes]
        if not sigma:
            expected = np.stack([labels for labels, _ in predicted])
            np.testing.assert_array_equal(finest(out), expected)
            return
        # What scipy makes of the probabilities of all planes at once.
        maps = np.stack([each for _, each in predicted if each is not None])
        smooth = gaussian_filter1d(maps, sigma, axis=0, mode="nearest", radius=2)
        ranked = np.sort(smooth, axis=1)
        is_clear = ranked[:, -1] - ranked[:, -2] > 1e-5
        expected = model.info.classes.from_channels(smooth.argmax(axis=1))
        np.testing.assert_array_equal(finest(out)[is_clear], expected[is_clear])
        assert (finest(out) != np.stack([a for a, _ in predicted])).mean() > 0.01

    def test_of_a_real_volume_lie_where_it_lies(
        self, tmp_path: Path, data_dir: Path
    ) -> None:
        sitk = pytest.importorskip("SimpleITK")
        path = data_dir / "formats" / "volumes" / "ircadb_1.01_ct.nii.gz"
        volume = sitk.ReadImage(str(path))[100:180, 200:260, 60:63]
        sitk.WriteImage(volume, str(tmp_path / "part.nii.gz"))
        pixels = sitk.GetArrayFromImage(volume)
        model = random_head(pixels[0], 1.0)
        out = tmp_path / "labels.nii.gz"
        predict_file(model, tmp_path / "part.nii.gz", out)
        found = sitk.ReadImage(str(out))
        assert found.GetSpacing() == pytest.approx(volume.GetSpacing())
        assert found.GetOrigin() == pytest.approx(volume.GetOrigin())
        assert found.GetDirection() == pytest.approx(volume.GetDirection())
        expected = [predict_image(model, plane)[0] for plane in pixels]
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), expected)


def stop(*_: object) -> None:
    raise InterruptedError


def slide_with_glass() -> NDArray[np.uint8]:
    """Give 256 x 320 pixels of glass with tissue in the upper left 100 x 100."""
    noise = np.random.default_rng(0).normal(0, 1.5, (256, 320, 3)).round()
    image = np.clip(np.array([243, 241, 244]) + noise, 0, 255).astype(np.uint8)
    image[:100, :100] = tissue_phantom(0, (128, 128)).image[:100, :100]
    return image


class TestGlass:
    @pytest.mark.parametrize(("glass", "value"), [(0, 0), ("class 2", 2), ("3", 3)])
    def test_is_left_out_or_gets_its_class(
        self, tmp_path: Path, model: SegmentationModel, glass: str | int, value: int
    ) -> None:
        pixels = slide_with_glass()
        image = write_zarr(tmp_path / "slide.zarr", pixels, um=0.5)
        out = tmp_path / "out.ome.zarr"
        events = list(iter_predict_file(model, image, out, tile=32, glass=glass))
        assert isinstance(events[0], PredictionStarted)
        assert (events[0].n_chunks, events[0].n_glass) == (4, 16)
        labels = finest(out)
        expected = expected_labels(model, pixels, 32)
        np.testing.assert_array_equal(labels[:128, :128], expected[:128, :128])
        assert (labels[128:] == value).all()
        assert (labels[:, 128:] == value).all()

    def test_has_no_say_in_what_a_network_measures_of_a_slide(
        self, tmp_path: Path
    ) -> None:
        pixels = tissue_phantom(0, (256, 256)).image
        model = loadable(random_network(pixels, 1.0, GROUPS))
        slide = np.full((768, 768, 3), 243, np.uint8)
        slide[256:512, 384:640] = pixels
        image = write_zarr(tmp_path / "slide.zarr", slide, um=0.5)
        alone, _ = predict_image(model, pixels)
        same = []
        for mask in (True, False):
            out = tmp_path / f"{mask}.ome.zarr"
            predict_file(model, image, out, tile=256, tissue_mask=mask)
            # At the edges the network sees beyond the tissue.
            there = finest(out)[256:512, 384:640] == alone
            same.append(there[48:-48, 48:-48].mean())
        assert same[0] > 0.9
        assert same[1] < 0.8

    def test_that_is_measured_gives_the_same_when_it_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # One chunk of few pixels, which would be measured whole without a mask.
        slide = np.full((256, 320, 3), 243, np.uint8)
        slide[:100, :100] = tissue_phantom(0, (128, 128)).image[:100, :100]
        model = loadable(random_network(slide, 1.0, GROUPS))
        image = write_zarr(tmp_path / "slide.zarr", slide, um=0.5)
        whole = tmp_path / "whole.ome.zarr"
        predict_file(model, image, whole)
        out = tmp_path / "out.ome.zarr"
        with monkeypatch.context() as patch:
            patch.setattr(ChunkPredictor, "_write", stop)
            with pytest.raises(InterruptedError):
                predict_file(model, image, out)
        monkeypatch.setattr("napari_sparseseg.prediction.predictor.measure", stop)
        predict_file(model, image, out)
        np.testing.assert_array_equal(finest(out), finest(whole))

    def test_is_predicted_where_no_mask_is_wished_for(
        self, tmp_path: Path, model: SegmentationModel
    ) -> None:
        pixels = slide_with_glass()
        image = write_zarr(tmp_path / "slide.zarr", pixels, um=0.5)
        out = tmp_path / "out.ome.zarr"
        predict_file(model, image, out, tile=32, tissue_mask=False)
        np.testing.assert_array_equal(finest(out), expected_labels(model, pixels, 32))

    def test_of_a_real_slide_is_left_out_and_no_tissue_is(
        self, tmp_path: Path, data_dir: Path
    ) -> None:
        openslide = pytest.importorskip("openslide")
        path = data_dir / "formats" / "wsi" / "CMU-1-Small-Region.svs"
        model = model_of(Fake(), um_per_px=0.499)
        out = tmp_path / "out.ome.zarr"
        started, *_ = iter_predict_file(model, path, out, tile=256)
        assert isinstance(started, PredictionStarted)
        assert started.n_glass > 20
        with openslide.OpenSlide(path) as file:
            pixels = np.asarray(file.read_region((0, 0), 0, file.dimensions))[..., :3]
        labels = finest(out)
        # Of pieces as small as a cell and smaller, as dust is, some are left out.
        is_stained = binary_opening(np.ptp(pixels, axis=2) > 40, np.ones((9, 9)))
        assert is_stained.mean() > 0.1
        assert labels[is_stained].all()
        expected, _ = predict_image(model, pixels, PredictOptions(tile=256))
        np.testing.assert_array_equal(labels[labels > 0], expected[labels > 0])

    def test_of_no_known_class_is_refused(
        self, tmp_path: Path, model: SegmentationModel
    ) -> None:
        image = write_zarr(tmp_path / "slide.zarr", slide_with_glass(), um=0.5)
        with pytest.raises(OptionError, match="class of glass is 'glas'"):
            predict_file(model, image, tmp_path / "out.ome.zarr", glass="glas")


class TestLevel:
    @pytest.mark.parametrize(
        ("scale", "trained", "given", "level", "ratio"),
        [
            (1.0, 0.5, 0.5, 0, 1.0),
            (0.5, 0.5, 0.5, 1, 2.0),
            (0.25, 0.5, 0.25, 2, 2.0),
            (0.3, 0.5, 0.5, 1, 2.0),
            (1.0, 0.5, 0.25, 1, 1.0),
            (0.5, None, None, 1, 2.0),
            (0.01, None, None, 2, 4.0),
            (1.0, 0.5, 2.0, 0, 4.0),
        ],
    )
    def test_is_the_coarsest_that_is_fine_enough(
        self,
        tmp_path: Path,
        scale: float,
        trained: float | None,
        given: float | None,
        level: int,
        ratio: float,
    ) -> None:
        image = random_image(400, 300, 3)
        side = given or 1.0
        source = ImageSource(
            tmp_path,
            "slide",
            (image, image[::2, ::2], image[::4, ::4]),
            Geometry(("y", "x"), (side, side), "um" if given else "px"),
            is_rgb=True,
        )
        model = model_of(Fake(), scale=scale, um_per_px=trained)
        found, found_ratio = choose_level(model, source)
        assert found == level
        assert found_ratio == pytest.approx(ratio)

    @pytest.mark.parametrize("n_rows", [50, 51])
    def test_without_the_last_part_of_a_square_is_no_wider(
        self, tmp_path: Path, n_rows: int
    ) -> None:
        fine = random_image(203, 240, 3)
        image = write_zarr(
            tmp_path / "slide.zarr", fine, fine[: 4 * n_rows : 4, ::4], um=0.5
        )
        model = model_of(Fake(), scale=0.25, um_per_px=0.5)
        out = tmp_path / "out.ome.zarr"
        predict_file(model, image, out, tissue_mask=False)
        assert finest(out).shape == (n_rows, 60)
        assert open_image(out).geometry.spacing == (2.0, 2.0)

    def test_that_is_coarse_gives_its_labels_and_outlines_on_the_finest(
        self, tmp_path: Path
    ) -> None:
        pytest.importorskip("rasterio")
        fine = np.zeros((200, 240, 3), np.uint8)
        fine[40:120, 60:200, 1] = 255
        fine[..., 0] = 128
        image = write_zarr(tmp_path / "slide.zarr", fine, fine[::2, ::2], um=0.5)
        model = model_of(Fake(), scale=0.5, um_per_px=0.5)
        out = tmp_path / "out.ome.zarr"
        predict_file(model, image, out, tissue_mask=False)
        assert finest(out).shape == (100, 120)
        assert open_image(out).geometry.um_per_px == pytest.approx(1.0)
        outlines = tmp_path / "out.geojson"
        predict_file(model, image, outlines, tissue_mask=False)
        content = json.loads(outlines.read_text())
        rings = [
            feature["geometry"]["coordinates"][0]
            for feature in content["features"]
            if feature["properties"]["classification"]["name"] == "class 2"
        ]
        assert len(rings) == 1
        assert np.min(rings[0], axis=0).tolist() == [60, 40]
        assert np.max(rings[0], axis=0).tolist() == [200, 120]


class TestGoingOn:
    def test_after_sigkill_redoes_nothing_and_gives_the_same(
        self, tmp_path: Path, tissue: NDArray[np.uint8], model: SegmentationModel
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        path, out = tmp_path / "model.safetensors", tmp_path / "out.ome.zarr"
        save_model(model, path)
        process = subprocess.Popen(
            [sys.executable, "-c", TELLING, path, image, out],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(4)]
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert told == ["PredictionStarted", *["ChunkDone"] * 3]
        assert not out.exists()
        chunks = tmp_path / "out.ome.zarr.unfinished" / "0" / "c"
        before = {
            each.relative_to(chunks): each.stat().st_mtime_ns
            for each in chunks.rglob("*")
            if each.is_file() and each.suffix != ".partial"
        }
        assert 3 <= len(before) < 35
        events = list(iter_predict_file(load_model(path), image, out, tile=16))
        started = events[0]
        assert isinstance(started, PredictionStarted)
        assert (started.n_chunks, started.n_done) == (35, len(before))
        assert sum(isinstance(each, ChunkDone) for each in events) == 35 - len(before)
        for name, time in before.items():
            assert (out / "0" / "c" / name).stat().st_mtime_ns == time
        np.testing.assert_array_equal(finest(out), expected_labels(model, tissue, 16))

    def test_takes_up_the_statistics_that_were_measured(
        self,
        tmp_path: Path,
        tissue: NDArray[np.uint8],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        model = random_network(tissue, 1.0, GROUPS)
        image = write_zarr(tmp_path / "image.zarr", tissue)
        out = tmp_path / "out.ome.zarr"
        stop_after(2, iter_predict_file(model, image, out, tile=40))

        def refuse(*_: object) -> None:
            raise AssertionError("measured again")

        expected = expected_labels(model, tissue, 40)
        monkeypatch.setattr("napari_sparseseg.prediction.predictor.measure", refuse)
        predict_file(model, image, out, tile=40)
        np.testing.assert_array_equal(finest(out), expected)

    def test_with_another_model_starts_over_and_says_so(
        self, tmp_path: Path, tissue: NDArray[np.uint8], model: SegmentationModel
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        out = tmp_path / "out.ome.zarr"
        stop_after(2, iter_predict_file(model, image, out, tile=16))
        other = random_head(tissue, 0.5)
        events = list(iter_predict_file(other, image, out, tile=16))
        assert isinstance(events[0], PredictionStarted)
        assert events[0].n_done == 0
        assert any("another model; starting over" in n for n in events[0].notes)
        np.testing.assert_array_equal(finest(out), expected_labels(other, tissue, 16))

    def test_is_not_needed_where_the_result_is_there(
        self, tmp_path: Path, tissue: NDArray[np.uint8], model: SegmentationModel
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        out = tmp_path / "out.ome.zarr"
        predict_file(model, image, out)
        (event,) = iter_predict_file(model, image, out)
        assert isinstance(event, PredictionWritten)
        assert "already" in event.note

    def test_after_a_full_disk_works_too(
        self,
        tmp_path: Path,
        tissue: NDArray[np.uint8],
        model: SegmentationModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        out = tmp_path / "labels.tif"
        write = ChunkPredictor._write
        n_written = 0

        class Full:
            def __setitem__(self, *_: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

        def write_until_full(self: ChunkPredictor, *args: Any) -> None:
            nonlocal n_written
            n_written += 1
            if n_written > 2:
                self._labels = Full()  # type: ignore[assignment]
            write(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(ChunkPredictor, "_write", write_until_full)
            with pytest.raises(OutputError, match=r"disk is full.*goes on"):
                predict_file(model, image, out, tile=16)
        assert not out.exists()
        started = next(iter_predict_file(model, image, out, tile=16))
        assert isinstance(started, PredictionStarted)
        assert started.n_done == 2

    @pytest.mark.parametrize("change", ["pixels", "size"])
    def test_with_an_image_that_has_changed_is_noticed(
        self, tmp_path: Path, change: str
    ) -> None:
        pixels = random_image(90, 70, 3)
        before = image_identity(open_image(write_zarr(tmp_path / "a.zarr", pixels)), 0)
        if change == "size":
            pixels = pixels[:-1]
        else:
            pixels[10:20, 10:20] = 0
        (tmp_path / "other").mkdir()
        path = write_zarr(tmp_path / "other" / "a.zarr", pixels)
        assert image_identity(open_image(path), 0) != before

    def test_does_not_take_up_what_is_something_else(
        self, tmp_path: Path, model: SegmentationModel, tissue: NDArray[np.uint8]
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        precious = tmp_path / "out.ome.zarr.unfinished" / "letters.txt"
        precious.parent.mkdir()
        precious.write_text("Dear")
        with pytest.raises(OutputError, match="something else"):
            predict_file(model, image, tmp_path / "out.ome.zarr")
        assert precious.read_text() == "Dear"


def stop_after(n_chunks: int, events: Iterator[object]) -> None:
    for event in events:
        n_chunks -= isinstance(event, ChunkDone)
        if not n_chunks:
            return
    raise AssertionError("it ended before")


class TestTwoAtOnce:
    def test_are_refused_until_the_first_ends(
        self, tmp_path: Path, tissue: NDArray[np.uint8], model: SegmentationModel
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        out = tmp_path / "out.ome.zarr"
        first = iter_predict_file(model, image, out, tile=16)
        assert isinstance(next(first), PredictionStarted)
        with pytest.raises(OutputError, match=r"out\.ome\.zarr is being written by"):
            predict_file(model, image, out, tile=16)
        assert isinstance([*first][-1], PredictionWritten)
        predict_file(model, image, out, tile=16)
        names = sorted(each.name for each in tmp_path.iterdir())
        assert names == ["image.zarr", "out.ome.zarr"]

    def test_do_not_wait_for_one_that_was_killed(
        self, tmp_path: Path, tissue: NDArray[np.uint8], model: SegmentationModel
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        (tmp_path / "out.ome.zarr.lock").touch()
        predict_file(model, image, tmp_path / "out.ome.zarr")
        assert not (tmp_path / "out.ome.zarr.lock").exists()


class TestExport:
    """Part by part, equal to what all labels in memory give."""

    @pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".geojson"])
    @pytest.mark.parametrize("shape", [(1100, 700), (3, 520, 40)])
    def test_is_that_of_the_whole(
        self, tmp_path: Path, suffix: str, shape: tuple[int, ...]
    ) -> None:
        pytest.importorskip("rasterio")
        if len(shape) == 3 and suffix == ".geojson":
            pytest.skip("outlines are of a plane")
        geometry = Geometry(("z", "y", "x")[-len(shape) :], (0.5,) * len(shape), "um")
        classes = ClassTable.from_values(range(1, 4))
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 4, [-(-n // 50) for n in shape], np.uint8)
        labels = coarse
        for axis, n in enumerate(shape):
            labels = labels.repeat(50, axis).take(range(n), axis)
        stored = zarr.create_array(tmp_path / "labels.zarr", data=labels)
        whole, parts = (tmp_path / f"{name}{suffix}" for name in ("whole", "parts"))
        export_labels(labels, whole, classes, geometry)
        export_in_parts(stored, parts, classes, geometry)
        if suffix == ".geojson":
            found, expected = (
                sorted(json.dumps(f) for f in json.loads(p.read_text())["features"])
                for p in (parts, whole)
            )
            assert found == expected
            return
        for path in (whole, parts):
            np.testing.assert_array_equal(tifffile.imread(path), labels)
        assert open_image(parts).geometry == open_image(whole).geometry

    @pytest.mark.parametrize("suffix", [".tif", ".geojson"])
    def test_takes_no_memory_for_all_labels(self, tmp_path: Path, suffix: str) -> None:
        pytest.importorskip("rasterio")
        labels = zarr.create_array(
            tmp_path / "labels.zarr", shape=(9000, 7000), chunks=(500, 500), dtype="u1"
        )
        labels[100:5000, 300:2000] = 2
        geometry = Geometry(("y", "x"), (0.5, 0.5), "um")
        classes = ClassTable.from_values([1, 2])
        tracemalloc.start()
        try:
            export_in_parts(labels, tmp_path / f"labels{suffix}", classes, geometry)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # The labels have 63 MB.
        assert peak < 20e6

    def test_that_needs_too_much_memory_is_refused_before_any_work(
        self,
        tmp_path: Path,
        tissue: NDArray[np.uint8],
        model: SegmentationModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        monkeypatch.setattr(files, "MOST_IN_MEMORY", 1000)
        for name in ("out.png", "out.nii.gz", "out.nrrd"):
            with pytest.raises(OutputError, match=r"choose \.ome\.zarr, \.ome\.tif or"):
                predict_file(model, image, tmp_path / name)
        assert [each.name for each in tmp_path.iterdir()] == ["image.zarr"]
        for name in ("out.ome.tif", "out.ome.zarr"):
            predict_file(model, image, tmp_path / name)


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    shape = (4000, 6000, 3)
    image = zarr.create_array(
        tmp_path / "image.zarr", shape=shape, chunks=(1000, 1000, 3), dtype="uint8"
    )
    image[500:1500, 500:1500] = 200
    model = model_of(Fake(), scale=0.125)
    tracemalloc.start()
    try:
        predict_file(model, tmp_path / "image.zarr", tmp_path / "o.ome.zarr", tile=64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The image has 72 MB, its labels 24 MB.
    assert peak < 15e6
    labels = finest(tmp_path / "o.ome.zarr")
    assert labels.shape == shape[:2]
    assert labels.all()


class TestRefusals:
    def test_a_model_with_a_pixel_size_asks_for_the_image_s(
        self, tmp_path: Path, tissue: NDArray[np.uint8]
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        model = model_of(Fake(), um_per_px=0.5)
        with pytest.raises(ImageError, match="give the size of its pixels"):
            predict_file(model, image, tmp_path / "out.ome.zarr")
        predict_file(model, image, tmp_path / "out.ome.zarr", um_per_px=0.5)

    @pytest.mark.parametrize(
        ("out", "wishes", "sentence"),
        [
            ("image.zarr/labels.tif", {}, "lie in each other"),
            ("labels.jpg", {}, "expected|suffixes"),
            ("labels.dcm", {}, "belongs to a DICOM series"),
            ("there.tif", {}, "there already.*to be replaced"),
            ("there.tif/labels.tif", {}, "cannot be made"),
            ("labels.tif", {"smooth_planes": 1}, "one plane"),
            ("labels.tif", {"smooth_planes": -1}, "0 or more"),
            ("labels.tif", {"tile": 0}, "side of a tile"),
            ("labels.tif", {"workers": 0}, "number of workers"),
            ("labels.tif", {"workers": 2, "scheduler": "tcp://a:1"}, "leave the"),
            ("labels.tif", {"um_per_px": 0}, "pixel size"),
            ("labels.tif", {"colour": 1}, "no option colour"),
        ],
    )
    def test_come_before_anything_is_written(
        self,
        tmp_path: Path,
        tissue: NDArray[np.uint8],
        model: SegmentationModel,
        out: str,
        wishes: Any,
        sentence: str,
    ) -> None:
        image = write_zarr(tmp_path / "image.zarr", tissue)
        (tmp_path / "there.tif").write_bytes(b"precious")
        with pytest.raises((OutputError, OptionError), match=sentence):
            predict_file(model, image, tmp_path / out, **wishes)
        assert sorted(each.name for each in tmp_path.iterdir()) == [
            "image.zarr",
            "there.tif",
        ]

    def test_of_outlines_of_a_volume(self, tmp_path: Path) -> None:
        image = write_zarr(tmp_path / "volume.zarr", random_image(3, 20, 30))
        model = model_of(Fake(), in_channels=1, values=(1,))
        with pytest.raises(OutputError, match="would hold one plane"):
            predict_file(model, image, tmp_path / "out.geojson")

    def test_of_a_folder_of_images(
        self, tmp_path: Path, model: SegmentationModel
    ) -> None:
        (tmp_path / "images").mkdir()
        write_label_map(tmp_path / "images" / "a.png", np.ones((9, 9), np.uint8))
        with pytest.raises(ImageError, match="images is a folder of images, whose"):
            predict_file(model, tmp_path / "images", tmp_path / "out.ome.zarr")

    def test_of_an_image_of_other_channels(self, tmp_path: Path) -> None:
        image = write_zarr(tmp_path / "volume.zarr", random_image(3, 20, 30))
        with pytest.raises(ImageError, match="1 channel"):
            predict_file(model_of(Fake()), image, tmp_path / "out.ome.zarr")


class TestCommand:
    @pytest.fixture
    def place(self, tmp_path: Path, model: SegmentationModel) -> Path:
        save_model(model, tmp_path / "model.safetensors")
        write_label_map(tmp_path / "truth.png", np.ones((9, 9), np.uint8))
        image = tissue_phantom(1, (128, 128)).image[:90, :110]
        write_zarr(tmp_path / "slide.zarr", image, um=0.5)
        return tmp_path

    def test_writes_the_format_of_the_suffix_and_tells_how_it_went(
        self, place: Path, run: Run
    ) -> None:
        done = run(
            "predict",
            place / "model.safetensors",
            place / "slide.zarr",
            "--out",
            place / "labels.ome.tif",
            "--tile",
            32,
            "--no-tissue-mask",
            "--json",
            "-",
        )
        assert done.code == 0, done.err
        assert done.json["chunks"] == 4
        assert done.json["pixels"] == 90 * 110
        assert str(place / "labels.ome.tif") in done.json["written"]
        assert "4/4 chunks" in done.err
        assert "Mpx/s, 0:00:00 left" in done.err

    def test_that_is_interrupted_says_how_to_go_on(
        self, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = iter([False, False, True])

        @contextmanager
        def interrupts() -> Iterator[Callable[[], bool]]:
            yield lambda: next(answers)

        command = ("predict", place / "model.safetensors", place / "slide.zarr")
        options = ("--out", place / "o.ome.zarr", "--tile", 32, "--no-tissue-mask")
        with monkeypatch.context() as patch:
            patch.setattr(cli, "interrupts", interrupts)
            done = run(*command, *options)
        assert done.code == 130
        assert "stopped after 2 of 4 chunks; the same command goes on" in done.out
        done = run(*command, *options)
        assert done.code == 0
        assert "4 chunks; 2 finished earlier" in done.out

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--out", "labels", "--smooth-planes", "1"], "--smooth-planes is for"),
            (["--out", "labels", "--no-tissue-mask"], "--tissue-mask is for"),
            (["--out", "a.tif", "--probabilities"], "folders of images alone"),
            (["--out", "labels.jpg"], "cannot be written as labels.jpg"),
        ],
    )
    def test_refuses_options_of_the_other_way(
        self, place: Path, run: Run, options: list[str], sentence: str
    ) -> None:
        done = run(
            "predict", place / "model.safetensors", place / "slide.zarr", *options
        )
        assert done.code == 2
        assert sentence in done.err


def test_a_chunk_stays_small_however_coarse_the_model_works(tmp_path: Path) -> None:
    image = zarr.create_array(
        tmp_path / "image.zarr", shape=(9000, 50, 3), chunks=(1000, 50, 3), dtype="u1"
    )
    image[...] = 7
    model = model_of(Fake(), scale=0.01)
    predict_file(model, tmp_path / "image.zarr", tmp_path / "out.ome.zarr")
    chunks = zarr.open_array(tmp_path / "out.ome.zarr" / "0", mode="r").chunks
    assert chunks == (files.LONGEST_SIDE, 50)
