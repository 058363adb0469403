"""Folders of files: what is read, left out, written and spared."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.io import imread
from sklearn.metrics import accuracy_score, f1_score, log_loss

from napari_sparseseg.annotations.classes import (
    ClassTable,
    read_class_table,
    write_class_table,
)
from napari_sparseseg.api import predict, train
from napari_sparseseg.errors import (
    ClassTableError,
    ImageError,
    LabelError,
    OutputError,
)
from napari_sparseseg.folders import (
    Inputs,
    evaluate_folders,
    iter_predict_folder,
    read_pairs,
    trainer_of_folders,
)
from napari_sparseseg.io.images import (
    is_prediction,
    write_label_map,
    write_probabilities,
)
from napari_sparseseg.prediction.predictor import predict_image
from napari_sparseseg.samples import Sample, tissue_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sparseseg.api import TrainingWishes
    from napari_sparseseg.learning.trainer import Trainer
    from napari_sparseseg.networks.model import SegmentationModel

#: A training that is over in a moment.
QUICK: dict[str, Any] = {"scale": 0.25, "preset": "light", "head_start": False}


@pytest.fixture(scope="module")
def sample() -> Sample:
    return tissue_phantom(0, (128, 128))


@pytest.fixture(scope="module")
def model(sample: Sample) -> SegmentationModel:
    return train(sample.image, sample.labels, classes=sample.classes, steps=4, **QUICK)


def save_parts(folder: Path, picture: NDArray[np.uint8]) -> Path:
    """Save three small parts of a picture, one with a dot in its stem."""
    folder.mkdir()
    for name, start in (("a.png", 0), ("b_1.5mm.png", 40), ("c.png", 64)):
        Image.fromarray(picture[start : start + 64]).save(folder / name)
    return folder


@pytest.fixture
def images(tmp_path: Path, sample: Sample) -> Path:
    """Return a folder of three small images."""
    return save_parts(tmp_path / "images", sample.image)


@pytest.fixture
def labels(tmp_path: Path, sample: Sample) -> Path:
    """Return a folder of their strokes."""
    return save_parts(tmp_path / "labels", sample.labels)


def test_annotated_planes_of_a_volume_count_as_images(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    hu = np.random.default_rng(0).integers(-1000, 1000, (4, 16, 20), np.int16)
    labels = np.zeros((4, 16, 20), np.uint8)
    labels[1, 2:5], labels[3, 7:9] = 1, 2
    for folder, voxels, name in (
        ("images", hu, "case_1.5mm.nii.gz"),
        ("images", hu, "empty.nrrd"),
        ("images", hu, "other.mha"),
        ("labels", labels, "case_1.5mm.nrrd"),
        ("labels", labels * 0, "empty.nii"),
        ("labels", labels[:3], "other.mha"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        image = itk.GetImageFromArray(voxels)
        image.SetSpacing((0.5, 0.5, 3))
        itk.WriteImage(image, str(tmp_path / folder / name))
    inputs = read_pairs(tmp_path / "images", tmp_path / "labels", None)
    assert list(inputs.images) == ["case_1.5mm z1", "case_1.5mm z3"]
    np.testing.assert_array_equal(inputs.images["case_1.5mm z3"], hu[3])
    np.testing.assert_array_equal(inputs.labels["case_1.5mm z3"], labels[3])
    assert inputs.pixel_size_um["case_1.5mm z1"] == 500
    empty, other = inputs.failures
    assert "no plane of" in empty
    assert "has (4, 16, 20); give labels of the same shape" in other


def start(
    images: Path,
    labels: Path,
    dense_images: Path | None = None,
    dense_labels: Path | None = None,
    classes: Path | None = None,
    **wishes: Any,
) -> tuple[Trainer, Inputs]:
    """Return the trainer of some folders."""
    every_wish = cast("TrainingWishes", QUICK | wishes)
    return trainer_of_folders(
        images, labels, dense_images, dense_labels, classes, every_wish
    )


def trainer_steps(
    images: Path, labels: Path, classes: Path | None = None
) -> tuple[SegmentationModel, Inputs]:
    """Train for two steps on two folders."""
    trainer, inputs = start(images, labels, classes=classes)
    for _ in trainer.run(2):
        pass
    return trainer.model(), inputs


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestReading:
    def test_matches_images_and_label_maps_by_stem(
        self, images: Path, labels: Path, sample: Sample
    ) -> None:
        (labels / "c.png").rename(labels / "d.png")
        inputs = read_pairs(images, labels, None)
        assert list(inputs.images) == list(inputs.labels) == ["a", "b_1.5mm"]
        np.testing.assert_array_equal(inputs.images["b_1.5mm"], sample.image[40:104])
        np.testing.assert_array_equal(inputs.labels["b_1.5mm"], sample.labels[40:104])
        assert inputs.notes == ["c: no label map, left out"]
        (failure,) = inputs.failures
        assert failure.startswith("d: there is a label map")

    def test_reads_colour_coded_masks_through_the_class_table(
        self, images: Path, labels: Path, sample: Sample
    ) -> None:
        colours = np.zeros((256, 3), np.uint8)
        for each in sample.classes:
            colours[each.value] = each.color
        assert all(any(each.color) for each in sample.classes)
        Image.fromarray(colours[sample.labels[:64]]).save(labels / "a.png")
        refused = read_pairs(images, labels, None)
        assert [failure[:2] for failure in refused.failures] == ["a:"]
        write_class_table(labels / "classes.json", sample.classes)
        inputs = read_pairs(images, labels, None)
        assert inputs.failures == []
        np.testing.assert_array_equal(inputs.labels["a"], sample.labels[:64])

    def test_names_files_that_cannot_be_used_and_goes_on(
        self, images: Path, labels: Path
    ) -> None:
        (images / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        Image.new("L", (9, 9), 1).save(labels / "c.png")
        inputs = read_pairs(images, labels, None)
        assert list(inputs.images) == ["b_1.5mm"]
        unreadable, unequal = inputs.failures
        assert unreadable.startswith(f"a: {images / 'a.png'} cannot be read")
        assert unequal.startswith("c: ")
        assert "(9, 9)" in unequal and "(64, 128)" in unequal

    def test_without_any_pair_is_refused(self, images: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        Image.new("L", (9, 9)).save(other / "z.png")
        with pytest.raises(LabelError, match=r"no image in .* of the same name"):
            read_pairs(images, other, None)

    def test_with_failures_alone_is_refused(self, images: Path, labels: Path) -> None:
        for file in images.iterdir():
            file.write_bytes(b"no image")
        with pytest.raises(LabelError, match=r"none of the images .* neither a PNG"):
            start(images, labels)

    def test_takes_single_files(self, images: Path, labels: Path) -> None:
        inputs = read_pairs(images / "a.png", labels / "a.png", None)
        assert list(inputs.images) == ["a"]

    def test_takes_pixel_sizes_from_files(
        self, images: Path, labels: Path, sample: Sample
    ) -> None:
        (images / "a.png").unlink()
        tifffile.imwrite(
            images / "a.tif",
            sample.image[:64],
            resolution=(20_000, 20_000),
            resolutionunit="CENTIMETER",
        )
        model, inputs = trainer_steps(images, labels)
        assert inputs.pixel_size_um == {"a": 0.5, "b_1.5mm": None, "c": None}
        assert model.info.um_per_px == 0.5


class TestClassTables:
    def test_beside_the_label_maps_are_found(
        self, images: Path, labels: Path, sample: Sample
    ) -> None:
        write_class_table(labels / "classes.json", sample.classes)
        model, _ = trainer_steps(images, labels)
        assert model.info.classes == sample.classes

    def test_of_several_label_maps_become_one(
        self, images: Path, labels: Path, sample: Sample
    ) -> None:
        larger = sample.classes.add("necrosis")
        write_class_table(labels / "a.classes.json", sample.classes)
        write_class_table(labels / "b_1.5mm.classes.json", larger)
        model, _ = trainer_steps(images, labels)
        assert model.info.classes == larger

    def test_that_disagree_are_refused(
        self, images: Path, labels: Path, sample: Sample
    ) -> None:
        write_class_table(labels / "a.classes.json", sample.classes)
        renamed = sample.classes.renamed(2, "muscle")
        write_class_table(labels / "c.classes.json", renamed)
        with pytest.raises(ClassTableError, match="2 is 'stroma' here, but 'muscle'"):
            start(images, labels)

    def test_that_are_given_win(
        self, images: Path, labels: Path, tmp_path: Path, sample: Sample
    ) -> None:
        (labels / "classes.json").write_text("{")
        given = sample.classes.renamed(2, "muscle")
        write_class_table(tmp_path / "given.json", given)
        model, _ = trainer_steps(images, labels, tmp_path / "given.json")
        assert model.info.classes == given

    def test_are_made_of_the_values_where_there_are_none(
        self, images: Path, labels: Path
    ) -> None:
        model, inputs = trainer_steps(images, labels)
        assert model.info.classes == ClassTable.from_values([1, 2, 3, 4])
        assert f"there is no class table beside {labels}: " in inputs.notes[-1]


class TestDenseImages:
    def test_come_from_folders_of_their_own(
        self, images: Path, labels: Path, tmp_path: Path, sample: Sample
    ) -> None:
        dense, truth = tmp_path / "dense", tmp_path / "truth"
        for folder, array in ((dense, sample.image), (truth, sample.truth)):
            folder.mkdir()
            assert array is not None
            Image.fromarray(array).save(folder / "a.png")
        write_class_table(truth / "a.classes.json", sample.classes)
        Image.fromarray(sample.image).save(dense / "z.png")
        trainer, inputs = start(images, labels, dense, truth)
        dense_names = [n for n, each in trainer.data.images.items() if each.dense]
        assert dense_names == ["a (dense)"]
        assert len(trainer.data.images) == 4
        assert trainer.options.balancing == "instance"
        assert trainer.data.classes == sample.classes
        assert inputs.notes == ["z: no label map, left out"]

    @pytest.mark.parametrize("given", ["images", "labels"])
    def test_need_their_label_maps(
        self, images: Path, labels: Path, given: str
    ) -> None:
        dense = (images, None) if given == "images" else (None, labels)
        with pytest.raises(LabelError, match="only one of them is given"):
            start(images, labels, *dense)


class TestPredicting:
    def test_writes_grey_values_that_any_reader_understands(
        self, images: Path, tmp_path: Path, model: SegmentationModel, sample: Sample
    ) -> None:
        out = tmp_path / "deep" / "out"
        done = list(iter_predict_folder(model, images, out))
        assert [each.stem for each in done] == ["a", "b_1.5mm", "c"]
        assert [(each.done, each.total) for each in done] == [(1, 3), (2, 3), (3, 3)]
        assert {each.failure for each in done} == {None}
        for stem, start in (("a", 0), ("b_1.5mm", 40), ("c", 64)):
            expected = predict(model, sample.image[start : start + 64])
            with Image.open(out / f"{stem}.png") as image:
                assert image.mode == "L"
                np.testing.assert_array_equal(np.asarray(image), expected)
            np.testing.assert_array_equal(imread(out / f"{stem}.png"), expected)
            table = read_class_table(out / f"{stem}.classes.json")
            assert table == sample.classes
        assert len(list(out.iterdir())) == 6

    def test_writes_values_above_255(
        self, images: Path, tmp_path: Path, sample: Sample
    ) -> None:
        lookup = np.array([0, 9, 300, 1000, 65535])
        trained = train(sample.image, lookup[sample.labels], steps=4, **QUICK)
        list(iter_predict_folder(trained, images, tmp_path / "out"))
        labels = imread(tmp_path / "out" / "a.png")
        np.testing.assert_array_equal(labels, predict(trained, sample.image[:64]))
        assert labels.dtype == np.uint16
        assert labels.max() > 255

    def test_writes_probabilities_where_they_are_asked_for(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        out = tmp_path / "out"
        list(iter_predict_folder(model, images, out, probabilities=True))
        for stem in ("a", "b_1.5mm", "c"):
            maps = tifffile.imread(out / "probabilities" / f"{stem}.tif")
            assert maps.shape == (4, 64, 128)
            assert maps.dtype == np.float32
            np.testing.assert_allclose(maps.sum(axis=0), 1, atol=1e-5)
            np.testing.assert_array_equal(
                imread(out / f"{stem}.png"), 1 + maps.argmax(axis=0)
            )

    def test_removes_probabilities_that_are_no_longer_true(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        out = tmp_path / "out"
        list(iter_predict_folder(model, images, out, probabilities=True))
        other = out / "probabilities" / "notes.txt"
        other.write_text("mine")
        list(iter_predict_folder(model, images / "a.png", out))
        left = {path.name for path in (out / "probabilities").iterdir()}
        assert left == {"b_1.5mm.tif", "c.tif", "notes.txt"}

    def test_goes_on_after_images_that_cannot_be_used(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        (images / "a.png").write_bytes(b"")
        Image.new("L", (20, 20), 7).save(images / "c.png")
        unreadable, good, grey = iter_predict_folder(model, images, tmp_path / "out")
        assert unreadable.failure is not None and "a.png" in unreadable.failure
        assert good.failure is None
        assert grey.failure is not None
        assert "1 channel(s)" in grey.failure and "with 3" in grey.failure
        assert [p.name for p in (tmp_path / "out").glob("*.png")] == ["b_1.5mm.png"]

    def test_goes_on_after_an_image_that_is_too_large(
        self,
        images: Path,
        tmp_path: Path,
        model: SegmentationModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def predict_some(*arguments: Any) -> Any:
            if arguments[1].shape[0] == 65:
                raise MemoryError
            return predict_image(*arguments)

        monkeypatch.setattr("napari_sparseseg.folders.predict_image", predict_some)
        Image.new("RGB", (128, 65)).save(images / "b_1.5mm.png")
        failures = [e.failure for e in iter_predict_folder(model, images, tmp_path)]
        assert failures[0] is failures[2] is None
        assert failures[1] is not None and "memory" in failures[1]

    @pytest.mark.parametrize("of_model", [None, 0.5])
    @pytest.mark.parametrize("of_image", [None, 0.5])
    def test_warns_where_only_one_pixel_size_is_known(
        self,
        tmp_path: Path,
        sample: Sample,
        of_model: float | None,
        of_image: float | None,
    ) -> None:
        trained = train(
            sample.image, sample.labels, steps=1, pixel_size_um=of_model, **QUICK
        )
        known = of_image is not None
        tifffile.imwrite(
            tmp_path / "a.tif",
            sample.image,
            resolution=(20_000, 20_000) if known else None,
            resolutionunit="CENTIMETER" if known else None,
        )
        (done,) = iter_predict_folder(trained, tmp_path / "a.tif", tmp_path / "out")
        assert (done.warning is None) == (of_model == of_image)
        if done.warning is not None:
            known_one = "the image" if known else "the training images"
            assert done.warning.startswith(f"the pixel size of {known_one} is known")

    def test_needs_an_image(self, tmp_path: Path, model: SegmentationModel) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(ImageError, match="no image in it"):
            list(iter_predict_folder(model, tmp_path / "empty", tmp_path / "out"))
        assert not (tmp_path / "out").exists()


class TestSparing:
    """What is there and is no prediction is not replaced unasked."""

    def refused(self, model: SegmentationModel, images: Path, out: Path) -> str:
        before = snapshot(out)
        with pytest.raises(OutputError, match="--overwrite") as error:
            list(iter_predict_folder(model, images, out, probabilities=True))
        assert snapshot(out) == before
        return str(error.value)

    def test_the_images_themselves(
        self, images: Path, model: SegmentationModel
    ) -> None:
        message = self.refused(model, images, images)
        assert "a.png is no prediction" in message
        assert "and 2 more" in message

    def test_annotations(
        self, images: Path, labels: Path, model: SegmentationModel, sample: Sample
    ) -> None:
        write_label_map(labels / "a.png", sample.labels[:64], sample.classes)
        assert "a.png is no prediction" in self.refused(model, images, labels)

    def test_annotations_of_another_format_with_their_class_table(
        self, images: Path, tmp_path: Path, model: SegmentationModel, sample: Sample
    ) -> None:
        out = tmp_path / "annotations"
        out.mkdir()
        table = sample.classes.renamed(1, "air")
        write_label_map(out / "b_1.5mm.tif", sample.labels, table)
        assert "b_1.5mm.tif is no prediction" in self.refused(model, images, out)
        assert read_class_table(out / "b_1.5mm.classes.json") == table

    def test_other_files_in_the_folder_of_probabilities(
        self, images: Path, tmp_path: Path, model: SegmentationModel, sample: Sample
    ) -> None:
        place = tmp_path / "out" / "probabilities"
        place.mkdir(parents=True)
        tifffile.imwrite(place / "c.tif", sample.image)
        assert "c.tif is no prediction" in self.refused(model, images, place.parent)
        assert "c.tif is no prediction" in self.refused(model, place, place.parent)

    def test_ends_with_overwrite(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "a.png").write_bytes((images / "a.png").read_bytes())
        list(iter_predict_folder(model, images, out, overwrite=True))
        assert is_prediction(out / "a.png")

    def test_does_not_keep_predictions(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        out = tmp_path / "out"
        list(iter_predict_folder(model, images, out, probabilities=True))
        shown = model.info.shown
        assert shown == "network"
        before = snapshot(out)
        list(iter_predict_folder(model, images, out, probabilities=True))
        assert snapshot(out) == before

    def test_files_of_other_names(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        Image.new("L", (3, 3)).save(out / "z.png")
        (out / "a.txt").write_text("a note")
        before = snapshot(out)
        list(iter_predict_folder(model, images, out))
        assert snapshot(out).items() > before.items()


class TestOutputFolder:
    def test_below_a_file_is_refused(
        self, images: Path, tmp_path: Path, model: SegmentationModel
    ) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(OutputError, match="cannot be made"):
            list(iter_predict_folder(model, images, tmp_path / "file" / "out"))
        assert (tmp_path / "file").read_text() == "x"

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
    def test_that_is_read_only_is_refused_before_any_work(
        self, images: Path, model: SegmentationModel
    ) -> None:
        with pytest.raises(OutputError, match=r"nothing can be written .* /proc/self"):
            list(iter_predict_folder(model, images, Path("/proc/self")))

    def test_on_a_full_disk_keeps_what_was_predicted(
        self,
        images: Path,
        tmp_path: Path,
        model: SegmentationModel,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        out = tmp_path / "out"
        events = iter_predict_folder(model, images, out)
        next(events)

        def full(_source: Path, _target: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match=r"b_1\.5mm.*the disk is full"):
            next(events)
        assert sorted(p.name for p in out.iterdir()) == ["a.classes.json", "a.png"]


class TestEvaluating:
    def write(self, folder: Path, arrays: dict[str, NDArray[Any]]) -> Path:
        folder.mkdir(exist_ok=True)
        for stem, array in arrays.items():
            Image.fromarray(array).save(folder / f"{stem}.png")
        return folder

    def test_agrees_with_scikit_learn(
        self, images: Path, tmp_path: Path, model: SegmentationModel, sample: Sample
    ) -> None:
        assert sample.truth is not None
        out = tmp_path / "out"
        list(iter_predict_folder(model, images, out, probabilities=True))
        # Part of one truth is not annotated, and does not count.
        truths = {"a": sample.truth[:64].copy(), "c": sample.truth[64:]}
        truths["a"][:20, :50] = 0
        found = evaluate_folders(out, self.write(tmp_path / "truth", truths), None)
        scores = found.scores
        assert found.failures == []
        assert found.notes == ["b_1.5mm: no truth, left out"]
        true = np.concatenate([truth.ravel() for truth in truths.values()])
        guessed = np.concatenate([imread(out / f"{s}.png").ravel() for s in truths])
        true, guessed = true[true > 0], guessed[true > 0]
        dice = f1_score(
            true, guessed, average=None, labels=[1, 2, 3, 4], zero_division=0
        )
        assert list(scores.dice) == list(sample.classes.names)
        assert list(scores.dice.values()) == pytest.approx(dice.tolist())
        assert scores.overall_dice == pytest.approx(dice.mean())
        assert scores.pixel_accuracy == pytest.approx(accuracy_score(true, guessed))
        losses = []
        for stem, truth in truths.items():
            maps = tifffile.imread(out / "probabilities" / f"{stem}.tif")
            rows = maps[:, truth > 0].T.astype(np.float64)
            rows /= rows.sum(axis=1, keepdims=True)
            losses.append(log_loss(truth[truth > 0], rows, labels=[1, 2, 3, 4]))
        assert scores.cross_entropy == pytest.approx(np.mean(losses), rel=1e-4)

    def test_has_no_cross_entropy_unless_all_probabilities_are_there(
        self, images: Path, tmp_path: Path, model: SegmentationModel, sample: Sample
    ) -> None:
        out = tmp_path / "out"
        list(iter_predict_folder(model, images, out, probabilities=True))
        truth = {"a": sample.labels[:64], "c": sample.labels[64:]}
        folder = self.write(tmp_path / "truth", truth)
        (out / "probabilities" / "a.tif").unlink()
        assert evaluate_folders(out, folder, None).scores.cross_entropy is None

    def test_names_what_cannot_be_scored_and_goes_on(self, tmp_path: Path) -> None:
        ones = np.ones((8, 8), np.uint8)
        predictions = self.write(tmp_path / "predictions", dict.fromkeys("abcdx", ones))
        truth = self.write(tmp_path / "truth", dict.fromkeys("abcde", ones))
        (truth / "b.png").write_bytes(b"nothing")
        self.write(truth, {"c": ones[:5]})
        found = evaluate_folders(predictions, truth, None)
        assert list(found.scores.per_image) == ["a", "d"]
        assert [failure[:2] for failure in found.failures] == ["e:", "b:", "c:"]
        assert "no prediction" in found.failures[0]
        assert "(5, 8)" in found.failures[2] and "(8, 8)" in found.failures[2]
        assert found.notes == ["x: no truth, left out"]

    def test_damaged_probabilities_cost_no_dice(self, tmp_path: Path) -> None:
        ones = np.ones((8, 8), np.uint8)
        predictions = self.write(tmp_path / "predictions", {"a": ones})
        truth = self.write(tmp_path / "truth", {"a": ones})
        (predictions / "probabilities").mkdir()
        (predictions / "probabilities" / "a.tif").write_bytes(b"nothing")
        found = evaluate_folders(predictions, truth, None)
        assert found.scores.overall_dice == 1
        assert found.scores.cross_entropy is None
        assert found.failures == []
        assert found.notes[0].startswith("no cross-entropy: ")

    def test_classes_may_be_more_than_the_prediction_knows(
        self, tmp_path: Path
    ) -> None:
        """Channels are matched by class value; an unknown class has no probability."""
        labels = np.array([[1, 3, 3, 0]], np.uint8)
        predictions = self.write(tmp_path / "predictions", {"a": labels})
        truth = self.write(tmp_path / "truth", {"a": labels})
        own = ClassTable.from_values([1, 3])
        write_class_table(predictions / "a.classes.json", own)
        write_class_table(truth / "classes.json", ClassTable.from_values([1, 2, 3]))
        (predictions / "probabilities").mkdir()
        maps = np.array([[[0.5, 0.2, 0.5, 1]], [[0.5, 0.8, 0.5, 0]]], np.float32)
        write_probabilities(predictions / "probabilities" / "a.tif", maps)
        found = evaluate_folders(predictions, truth, truth / "classes.json")
        assert list(found.scores.dice.values()) == [1, None, 1]
        expected = -np.mean(np.log([0.5, 0.8, 0.5]))
        assert found.scores.cross_entropy == pytest.approx(expected)
        assert found.notes == []

        write_class_table(predictions / "a.classes.json", ClassTable.from_values([1]))
        found = evaluate_folders(predictions, truth, truth / "classes.json")
        assert found.scores.cross_entropy is None
        assert "2 channels, but beside" in found.notes[0]

    def test_the_classes_of_the_truth_serve_where_predictions_have_none(
        self, tmp_path: Path
    ) -> None:
        ones = np.ones((8, 8), np.uint8)
        predictions = self.write(tmp_path / "predictions", {"a": ones})
        truth = self.write(tmp_path / "truth", {"a": ones})
        table = ClassTable().add("gland").add("stroma")
        write_class_table(truth / "classes.json", table)
        scores = evaluate_folders(predictions, truth, None).scores
        assert list(scores.dice) == ["gland", "stroma"]

    def test_without_anything_to_score_is_refused(self, tmp_path: Path) -> None:
        ones = np.ones((8, 8), np.uint8)
        predictions = self.write(tmp_path / "predictions", {"a": ones})
        other = self.write(tmp_path / "other", {"b": ones})
        with pytest.raises(LabelError, match=r"no prediction in .* of the same name"):
            evaluate_folders(predictions, other, None)
        smaller = self.write(tmp_path / "smaller", {"a": ones[:3]})
        with pytest.raises(LabelError, match="nothing can be scored: a: "):
            evaluate_folders(predictions, smaller, None)


SETS: dict[str, dict[str, Any]] = {
    "glas": {},
    "adp": {},
    "ircadb": {"window": (40, 400)},
    "sts": {},
}


@pytest.mark.parametrize("name", SETS)
def test_real_images_are_learned_predicted_and_scored(
    data_dir: Path, tmp_path: Path, name: str
) -> None:
    source = data_dir / name / "train"
    for kind in ("images", "strokes_1pct", "dense"):
        (tmp_path / kind).mkdir()
    (tmp_path / "strokes_1pct" / "classes.json").symlink_to(
        data_dir / name / "classes.json"
    )
    # Those with the largest label maps have several classes.
    strokes = sorted((source / "strokes_1pct").glob("*.png"), key=os.path.getsize)[-3:]
    for path in strokes:
        (tmp_path / "strokes_1pct" / path.name).symlink_to(path)
        (tmp_path / "dense" / path.name).symlink_to(source / "dense" / path.name)
        (image,) = (source / "images").glob(f"{path.stem}.*")
        (tmp_path / "images" / image.name).symlink_to(image)
    trainer, inputs = start(
        tmp_path / "images", tmp_path / "strokes_1pct", **SETS[name]
    )
    assert inputs.failures == []
    assert len(inputs.images) == 3
    for _ in trainer.run(4):
        pass
    done = iter_predict_folder(
        trainer.model(), tmp_path / "images", tmp_path / "out", probabilities=True
    )
    assert [each.failure for each in done] == [None] * 3
    found = evaluate_folders(tmp_path / "out", tmp_path / "dense", None)
    scores = found.scores
    assert found.failures == found.notes == []
    table = json.loads((data_dir / name / "classes.json").read_text())
    assert list(scores.dice) == [each["name"] for each in table["classes"]]
    for score in (scores.overall_dice, scores.pixel_accuracy):
        assert score is not None and 0 < score <= 1
    assert scores.cross_entropy is not None
    assert 0 < scores.cross_entropy < 10
