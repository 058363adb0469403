"""Folders of images of all kinds: each into a file, and none ends the others."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import SimpleITK
import zarr
from PIL import Image

from benchmarks._files_large import loadable
from napari_sparseseg.cli import SOME_FAILED
from napari_sparseseg.errors import ImageError, OptionError, OutputError
from napari_sparseseg.files import (
    PredictionWritten,
    iter_predict_file,
    predict_file,
)
from napari_sparseseg.io.model_file import save_model
from napari_sparseseg.many_files import (
    ImageFailed,
    ImageJob,
    iter_predict_images,
    jobs_of_folder,
)
from napari_sparseseg.prediction.objects import without_small_objects
from napari_sparseseg.prediction.predictor import predict_image
from tests.prediction.test_predictor import random_network

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.networks.model import SegmentationModel
    from tests.conftest import Run


@pytest.fixture(scope="module")
def volume() -> NDArray[np.int16]:
    noise = np.random.default_rng(0).normal(0, 300, (3, 40, 48))
    return noise.astype(np.int16)


@pytest.fixture(scope="module")
def model(volume: NDArray[np.int16]) -> SegmentationModel:
    return loadable(random_network(volume[0], 0.5))


@pytest.fixture
def images(tmp_path: Path, volume: NDArray[np.int16]) -> Path:
    """Make a folder with a volume, a grey picture and a broken volume."""
    folder = tmp_path / "images"
    folder.mkdir()
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(volume), str(folder / "a case.nii.gz")
    )
    Image.fromarray((volume[0] % 256).astype(np.uint8)).save(folder / "b.png")
    whole = (folder / "a case.nii.gz").read_bytes()
    (folder / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder


def last_of(events: Any) -> dict[int, Any]:
    return dict(events)


class TestFolder:
    def test_is_listed_by_name(self, images: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        jobs = jobs_of_folder(images, out, ".nrrd")
        assert jobs == [
            ImageJob(images / "a case.nii.gz", out / "a case.nrrd"),
            ImageJob(images / "b.png", out / "b.nrrd"),
            ImageJob(images / "broken.nii.gz", out / "broken.nrrd"),
        ]

    @pytest.mark.parametrize(
        ("suffix", "error", "words"),
        [
            (".doc", OutputError, "choose one of"),
            ("", OutputError, "without a suffix"),
        ],
    )
    def test_of_an_unknown_format_is_refused(
        self, images: Path, tmp_path: Path, suffix: str, error: type, words: str
    ) -> None:
        with pytest.raises(error, match=words):
            jobs_of_folder(images, tmp_path / "out", suffix)

    def test_does_not_take_its_own_results(self, images: Path) -> None:
        with pytest.raises(OutputError, match="another folder"):
            jobs_of_folder(images, images, ".tif")

    def test_does_not_take_results_in_a_folder_inside(self, images: Path) -> None:
        from pydicom.data import get_testdata_file

        before = jobs_of_folder(images, images / "out", ".nrrd")
        (images / "out").mkdir()
        shutil.copy(str(get_testdata_file("CT_small.dcm")), images / "out")
        assert jobs_of_folder(images, images / "elsewhere", ".nrrd") != before
        assert jobs_of_folder(images, images / "out", ".nrrd") == before

    def test_without_images_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="no image in"):
            jobs_of_folder(tmp_path, tmp_path / "out", ".tif")

    def test_with_two_of_one_name_is_refused(
        self, images: Path, tmp_path: Path
    ) -> None:
        shutil.copy(images / "b.png", images / "b.jpg")
        with pytest.raises(ImageError, match=r"b\.jpg and b\.png"):
            jobs_of_folder(images, tmp_path / "out", ".tif")

    def test_of_series_gives_each_once(
        self, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pydicom.data import get_testdata_file

        inside = images / "patient"
        inside.mkdir()
        for name in ("CT_small.dcm", "MR_small.dcm"):
            shutil.copy(str(get_testdata_file(name)), inside)
        jobs = jobs_of_folder(images, tmp_path / "out", ".nrrd")
        names = [job.out.name for job in jobs if job.image == inside]
        assert names == ["patient series 1.nrrd", "patient series 2.nrrd"]
        # The same where the files lie in the folder itself.
        own = jobs_of_folder(inside, tmp_path / "out", ".nrrd")
        assert [job.out.name for job in own] == names
        assert len({job.series for job in own}) == 2

    def test_names_a_dicom_slide_as_other_slides_by_its_file(
        self, images: Path, tmp_path: Path, data_dir: Path
    ) -> None:
        slide = data_dir / "formats" / "wsi" / "pathml_small_wsi_dicom.dcm"
        shutil.copy(slide, images)
        jobs = jobs_of_folder(images, tmp_path / "out", ".tif")
        assert [job for job in jobs if job.image.suffix == ".dcm"] == [
            ImageJob(images / slide.name, tmp_path / "out" / f"{slide.stem}.tif")
        ]


class TestImages:
    def test_are_predicted_each_as_by_itself(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        out = tmp_path / "out"
        jobs = jobs_of_folder(images, out, ".nrrd")
        last = last_of(iter_predict_images(model, jobs, {"device": "cpu"}))
        assert [type(last[k]) for k in range(3)] == [
            PredictionWritten,
            PredictionWritten,
            ImageFailed,
        ]
        assert "broken.nii.gz" in last[2].message
        predict_file(model, jobs[0].image, tmp_path / "alone.nrrd", device="cpu")
        alone = SimpleITK.ReadImage(str(tmp_path / "alone.nrrd"))
        found = SimpleITK.ReadImage(str(out / "a case.nrrd"))
        np.testing.assert_array_equal(
            SimpleITK.GetArrayFromImage(found), SimpleITK.GetArrayFromImage(alone)
        )
        assert not list(out.glob("broken*"))

    def test_that_are_there_are_left(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        out = tmp_path / "out"
        jobs = jobs_of_folder(images, out, ".tif")[1:2]
        last_of(iter_predict_images(model, jobs, {"device": "cpu"}))
        jobs[0].out.write_bytes(b"mine")
        last = last_of(iter_predict_images(model, jobs, {"device": "cpu"}))
        assert "was there already" in last[0].note
        assert jobs[0].out.read_bytes() == b"mine"
        wishes: Any = {"device": "cpu", "overwrite": True}
        last_of(iter_predict_images(model, jobs, wishes))
        assert jobs[0].out.read_bytes() != b"mine"

    def test_from_the_command_line(
        self, images: Path, tmp_path: Path, model: SegmentationModel, run: Run
    ) -> None:
        save_model(model, tmp_path / "m.safetensors")
        wish = ("predict", tmp_path / "m.safetensors", images, "--out", tmp_path / "o")
        done = run(*wish, "--format", ".ome.tif", "--device", "cpu", "--json", "-")
        result = json.loads(done.out)
        assert done.code == SOME_FAILED
        assert len(result["failures"]) == 1
        assert (tmp_path / "o" / "a case.ome.tif").exists()
        refused = run(*wish, "--smallest-object", "5", "--device", "cpu")
        assert refused.code != 0
        assert "--smallest-object" in refused.err


class TestSmallObjects:
    @pytest.mark.parametrize("suffix", [".ome.zarr", ".nrrd"])
    def test_go_plane_by_plane(
        self,
        images: Path,
        tmp_path: Path,
        volume: NDArray[np.int16],
        model: SegmentationModel,
        suffix: str,
    ) -> None:
        out = tmp_path / f"labels{suffix}"
        path = images / "a case.nii.gz"
        predict_file(model, path, out, device="cpu", tile=16, smallest_object=9)
        if suffix == ".nrrd":
            found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(out)))
        else:
            found = np.asarray(zarr.open_array(out / "0", mode="r")[...])
        raw = np.stack([predict_image(model, plane)[0] for plane in volume])
        expected = np.stack([without_small_objects(plane, 9) for plane in raw])
        assert (expected != raw).any()
        np.testing.assert_array_equal(found, expected)
        assert not [*tmp_path.glob("*unfinished*"), *tmp_path.glob("*cleaned*")]

    def test_of_another_size_are_predicted_anew(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        out = tmp_path / "labels.ome.zarr"
        for smallest, is_there in ((9, False), (9, True), (0, False)):
            events = list(
                iter_predict_file(
                    model, images / "b.png", out, smallest_object=smallest
                )
            )
            assert (len(events) == 1) == is_there

    def test_larger_than_a_part_can_see_are_refused(
        self,
        images: Path,
        tmp_path: Path,
        model: SegmentationModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("napari_sparseseg.files.WHOLE_PX", 100)
        with pytest.raises(OptionError, match="smaller number"):
            predict_file(
                model,
                images / "b.png",
                tmp_path / "l.tif",
                smallest_object=2001,
            )
        assert not (tmp_path / "l.tif").exists()
