"""What is predicted and exported, with an engine that tests play."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils import progress

from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.engine import messages
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import (
    homes,
    label_export,
    predict_controller,
    predict_run,
    predict_settings,
)
from napari_sparseseg.gui.boxes_classes import BoxClasses
from napari_sparseseg.gui.boxes_labels import BoxLabels
from napari_sparseseg.gui.image_layers import layers_of
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.plane_files import PREFIX
from napari_sparseseg.gui.planes import PlaneKey, shown_plane
from napari_sparseseg.gui.predict_controller import (
    PredictController,
    level_for,
)
from napari_sparseseg.gui.predict_run import clock
from napari_sparseseg.gui.predict_state import PredictState, PredictWishes
from napari_sparseseg.gui.prediction_layer import PredictionLayer, is_prediction
from napari_sparseseg.gui.state import STARTING, State
from napari_sparseseg.io.export import export_labels
from napari_sparseseg.io.sources import open_image
from napari_sparseseg.io.zarr_labels import classes_of_zarr
from tests.gui.conftest import FakeLink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

CLASSES = ClassTable().add("background").add("liver").add("tumour")
SHAPE = (3, 20, 30)


class Desk:
    """A controller and all that is around it."""

    def __init__(self, folder: Path, viewer: ViewerModel | None = None) -> None:
        self.folder = folder
        self.viewer = viewer or ViewerModel()
        self.link = FakeLink()
        self.model = folder / "model.safetensors"
        self.model.write_bytes(b"a model")
        self.state = PredictState(wishes=PredictWishes(model=str(self.model)))
        self.controller = PredictController(self.viewer, self.state, self.link)  # type: ignore[arg-type]
        self.viewer.layers.events.removed.connect(
            lambda event: self.controller.forget(event.value)
        )

    def wish(self, **wishes: Any) -> None:
        self.controller.use_wishes(replace(self.state.wishes, **wishes))

    def add_stack(self) -> Image:
        pixels = np.random.default_rng(0).integers(0, 99, SHAPE, np.uint8)
        image = self.viewer.add_image(pixels, name="ct", scale=(5, 2, 2))
        self.controller.choose(image, None)
        return image

    def open_stack(self) -> Image:
        """Open a volume from a file, as the reader does."""
        volume = SimpleITK.GetImageFromArray(np.zeros(SHAPE, np.int16))
        volume.SetSpacing((2.0, 2.0, 5.0))
        volume.SetOrigin((7.0, 8.0, 9.0))
        SimpleITK.WriteImage(volume, str(self.folder / "ct.nrrd"))
        (data, about, _), *_ = layers_of(open_image(self.folder / "ct.nrrd"))
        image = Image(data, **about)
        self.viewer.add_layer(image)
        self.controller.choose(image, None)
        return image

    def press(self) -> None:
        """Press Predict; the engine has loaded the model."""
        assert not self.state.cannot_predict
        self.controller.predict()
        (asked,) = self.link.taken(messages.LoadModel)
        self.tell_model(asked.path)

    def tell_model(self, path: str) -> None:
        self.link.tell(
            messages.ModelLoaded(
                path=path,
                network="unet",
                classes=CLASSES.to_json(),
                in_channels=1,
                shown="network",
                um_per_px=None,
            )
        )

    def answer(self, value: int = 2) -> messages.Predict:
        """Predict what was asked for: all of it is of one class."""
        asked: messages.Predict = self.link.taken(messages.Predict)[-1]
        labels = np.load(asked.labels, mmap_mode="r+")
        y0, x0, y1, x1 = region = asked.region or (0, 0, *labels.shape)
        labels[y0:y1, x0:x1] = value
        if asked.confidence is not None:
            np.load(asked.confidence, mmap_mode="r+")[y0:y1, x0:x1] = value / 4
        told: dict[str, Any] = {"generation": asked.generation}
        self.link.tell(messages.TileDone(region=region, share=1.0, **told))
        self.link.tell(messages.Predicted(shown="network", step=0, seconds=0.1, **told))
        return asked

    def told_of_file(self, asked: messages.PredictFiles, **told: Any) -> None:
        about: dict[str, Any] = {
            "generation": asked.generation,
            "name": "ct.nrrd",
            "place": 0,
            "n_images": 1,
            "paths": [],
            "notes": [],
        }
        self.link.tell(messages.FileDone(**(about | told)))

    def end(self, asked: messages.PredictFiles) -> None:
        self.link.tell(messages.FilesDone(generation=asked.generation))


@pytest.fixture
def desk(
    qtbot: QtBot, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(predict_settings, "keep", lambda _: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    desk = Desk(tmp_path)
    monkeypatch.setattr(napari, "current_viewer", lambda: desk.viewer)
    yield desk
    desk.controller.close()


class TestPlanes:
    def test_go_into_one_layer_and_no_other(self, desk: Desk) -> None:
        image = desk.add_stack()
        strokes = desk.viewer.add_labels(np.zeros(SHAPE, np.uint8), name="strokes")
        desk.viewer.dims.set_point(0, 5)
        desk.wish(what="plane")
        desk.press()
        assert desk.answer(2).region is None
        (result,) = (each for each in desk.viewer.layers if is_prediction(each))
        assert isinstance(result, Labels)
        assert result.name == "segmentation of ct"
        assert result.data.shape == SHAPE
        assert (result.data[1] == 2).all()
        assert not result.data[[0, 2]].any()
        assert result.metadata[CLASSES_KEY] == CLASSES.to_json()
        np.testing.assert_array_equal(result.scale, image.scale)
        assert not result.editable
        assert desk.state.progress is None

        # The next goes into the same layer, and what was there stays.
        desk.viewer.dims.set_point(0, 10)
        desk.press()
        desk.answer(3)
        assert [each for each in desk.viewer.layers if is_prediction(each)] == [result]
        assert [np.unique(plane).tolist() for plane in result.data] == [[0], [2], [3]]
        assert not strokes.data.any()

        # Of another model nothing is left that the first one predicted.
        desk.model.write_bytes(b"another model")
        desk.press()
        desk.answer(1)
        assert [np.unique(plane).tolist() for plane in result.data] == [[0], [0], [1]]

    def test_of_a_stack_come_one_after_the_other(self, desk: Desk) -> None:
        desk.add_stack()
        desk.wish(what="stack", sureness="uncertainty", smallest_object=7)
        desk.press()
        asked = [desk.answer(value) for value in (1, 2, 3)]
        assert not desk.link.taken(messages.Predict)
        assert len({each.pixels for each in asked}) == 3
        assert {(e.sureness, e.smallest_object) for e in asked} == {("uncertainty", 7)}
        labels, sure = (
            desk.viewer.layers[f"{name} of ct"]
            for name in ("segmentation", "uncertainty")
        )
        np.testing.assert_array_equal(labels.data[:, 0, 0], (1, 2, 3))
        np.testing.assert_allclose(sure.data[:, -1, -1], (0.25, 0.5, 0.75))
        assert desk.state.status == "Predicted."
        # Without that wish there is no such layer.
        desk.wish(sureness=None)
        desk.press()
        assert "uncertainty of ct" not in desk.viewer.layers

    def test_in_view_are_predicted_where_they_are_seen(self, desk: Desk) -> None:
        image = desk.add_stack()
        image.corner_pixels = np.array([[0, 4, 5], [0, 12, 20]])
        desk.wish(what="view")
        desk.press()
        assert desk.answer().region == (4, 5, 13, 21)
        result = desk.viewer.layers["segmentation of ct"].data[1]
        assert (result > 0).sum() == 9 * 16

    def test_lie_over_the_live_prediction_which_is_hidden(self, desk: Desk) -> None:
        image = desk.add_stack()
        strokes = desk.viewer.add_labels(np.zeros(SHAPE, np.uint8), name="strokes")
        live = PredictionLayer(desk.viewer.layers, image, CLASSES)
        wished: list[bool] = []
        live.visible_changed.connect(wished.append)
        plane = shown_plane(desk.viewer, image)
        assert plane is not None
        live.write((0, 0, 20, 30), plane, np.ones((20, 30), np.uint8))
        other = desk.viewer.add_image(np.zeros((9, 9), np.uint8), name="other")
        live_on_other = PredictionLayer(desk.viewer.layers, other, CLASSES)
        live_on_other.write((0, 0, 9, 9), PlaneKey(), np.ones((9, 9), np.uint8))
        desk.wish(sureness="confidence")
        for _ in range(2):  # a new layer, and one that is there
            assert live.layer is not None
            live.layer.visible = True
            desk.press()
            assert live.layer.visible  # until there is something else to be seen
            desk.answer()
            names = [each.name for each in desk.viewer.layers]
            names.remove("confidence of ct")
            assert names[:4] == [
                *("ct", "prediction of ct", "segmentation of ct", "strokes")
            ]
            assert not live.layer.visible
            assert "The live prediction is hidden" in desk.state.status
            # And brought there where it is not.
            desk.viewer.layers.move(1, 4)
        assert strokes.visible
        assert live_on_other.layer is not None
        assert live_on_other.layer.visible
        # The user's wish is as it was.
        assert live.visible
        assert False not in wished
        desk.press()
        desk.answer()
        assert desk.state.status == "Predicted."

    def test_tell_speed_and_time_left(self, desk: Desk) -> None:
        desk.add_stack()
        desk.wish(what="stack")
        desk.press()
        desk.answer()
        assert desk.state.progress == pytest.approx(1 / 3)
        assert "Mpx/s" in desk.state.speed
        assert "left" in desk.state.speed

    def test_that_are_cancelled_stay_as_they_are(self, desk: Desk) -> None:
        desk.add_stack()
        desk.wish(what="stack")
        desk.press()
        desk.answer()
        desk.controller.cancel()
        assert desk.link.taken(messages.CancelPrediction)
        assert desk.state.progress is None
        assert desk.state.status == "Cancelled; what was predicted stays."
        assert desk.viewer.layers["segmentation of ct"].data[0].all()
        assert not desk.state.cannot_predict

    def test_that_fail_are_told_in_one_sentence(
        self, desk: Desk, told: list[str]
    ) -> None:
        desk.add_stack()
        desk.press()
        desk.link.tell(messages.Failed(request="predict", message="too few channels."))
        assert told == ["Too few channels."]
        assert desk.state.progress is None
        # A device that is lost works in another process alone.
        desk.press()
        lost = "CUDA error: unspecified"
        desk.link.tell(messages.Failed(request="predict", message=lost, details="at a"))
        (reason,) = desk.link.restarts
        assert lost in reason
        assert "Details: " in told[-1]

    def test_go_on_where_one_that_was_given_up_has_failed(
        self, desk: Desk, told: list[str]
    ) -> None:
        desk.add_stack()
        desk.press()
        (given_up,) = desk.link.taken(messages.Predict)
        desk.controller.cancel()
        desk.press()
        (asked,) = desk.link.taken(messages.Predict)
        for generation in (given_up.generation, asked.generation):
            assert desk.state.progress is not None
            desk.link.tell(
                messages.Failed(
                    request="predict", message="no memory.", generation=generation
                )
            )
        assert desk.state.progress is None
        assert told == ["No memory."]

    def test_go_with_their_image(self, desk: Desk) -> None:
        image = desk.add_stack()
        desk.press()
        desk.answer()
        desk.press()
        desk.viewer.layers.remove(image)
        assert not desk.viewer.layers
        assert desk.state.progress is None

    def test_of_another_dock_go_into_its_layer(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = desk.add_stack()
        desk.press()
        desk.answer(2)
        before = desk.viewer.layers["segmentation of ct"]
        desk.controller.close()
        assert before in desk.viewer.layers
        again = Desk(desk.folder, desk.viewer)
        again.controller.choose(image, None)
        again.press()
        again.answer(3)
        assert [e for e in desk.viewer.layers if is_prediction(e)] == [before]
        assert (before.data[1] == 3).all()
        again.controller.close()

    def test_of_a_deleted_result_come_back(self, desk: Desk) -> None:
        desk.add_stack()
        desk.press()
        desk.answer()
        desk.viewer.layers.remove("segmentation of ct")
        desk.press()
        desk.answer()
        assert "segmentation of ct" in desk.viewer.layers


class TestFiles:
    def start(self, desk: Desk, **wishes: Any) -> messages.PredictFiles:
        desk.wish(what="stack", **wishes)
        desk.press()
        (asked,) = desk.link.taken(messages.PredictFiles)
        return asked  # type: ignore[no-any-return]

    def finish(
        self, desk: Desk, asked: messages.PredictFiles, qtbot: QtBot
    ) -> NDArray[Any]:
        labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
        geometry = open_image(desk.folder / "ct.nrrd").geometry
        assert isinstance(asked.job, messages.FileJob)
        export_labels(labels, asked.job.out, CLASSES, geometry)
        desk.told_of_file(asked, paths=[asked.job.out], notes=["a note"])
        desk.end(asked)
        qtbot.waitUntil(lambda: desk.state.status == "Predicted.", timeout=5000)
        qtbot.waitUntil(lambda: "segmentation of ct" in desk.viewer.layers)
        return labels

    def test_are_shown_where_the_image_lies(
        self, desk: Desk, qtbot: QtBot, told: list[str]
    ) -> None:
        image = desk.open_stack()
        asked = self.start(desk, smooth_planes=1.5, smallest_object=4)
        assert isinstance(asked.job, messages.FileJob)
        assert asked.job.image == str(desk.folder / "ct.nrrd")
        assert Path(asked.job.out).parent.name.startswith(PREFIX)
        assert (asked.smooth_planes, asked.smallest_object) == (1.5, 4)
        labels = self.finish(desk, asked, qtbot)
        result = desk.viewer.layers["segmentation of ct"]
        np.testing.assert_array_equal(result.data, labels)
        np.testing.assert_array_equal(result.translate, image.translate)
        assert result.metadata[CLASSES_KEY] == CLASSES.to_json()
        assert told == ["A note."]
        # The same place is taken again, so that it goes on where it stopped.
        assert self.start(desk).job == asked.job
        assert len([each for each in desk.viewer.layers if is_prediction(each)]) == 1

    def test_are_not_taken_for_pixels_that_were_replaced(
        self, desk: Desk, qtbot: QtBot
    ) -> None:
        image = desk.open_stack()
        image.data = np.ones(SHAPE, np.int16)
        desk.wish(what="stack")
        desk.press()
        asked = desk.link.taken(messages.Predict)
        assert (np.load(asked[0].pixels) == 1).all()

    def test_are_exported_with_place_and_classes(
        self, desk: Desk, qtbot: QtBot, told: list[str]
    ) -> None:
        image = desk.open_stack()
        labels = self.finish(desk, self.start(desk), qtbot)
        desk.controller.choose(image, desk.viewer.layers["segmentation of ct"])
        for suffix in (".nii.gz", ".ome.zarr", ".csv"):
            desk.controller.export(str(desk.folder / f"out{suffix}"))
            assert desk.state.cannot_export == "A file is being written."
            qtbot.waitUntil(lambda: not desk.state.exporting, timeout=5000)
        written = SimpleITK.ReadImage(str(desk.folder / "out.nii.gz"))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(written), labels)
        assert written.GetOrigin() == (7.0, 8.0, 9.0)
        assert written.GetSpacing() == (2.0, 2.0, 5.0)
        store = desk.folder / "out.ome.zarr"
        found = zarr.open_array(store / "0", mode="r")[...]
        np.testing.assert_array_equal(found, labels)
        assert classes_of_zarr(zarr.open_group(store, mode="r").attrs["ome"]) == CLASSES
        assert "ml" in (desk.folder / "out.csv").read_text()
        # What is 0 was told: it is not labelled.
        assert "was not predicted and is 0" in " ".join(told)

    def test_say_before_what_they_are(self, desk: Desk) -> None:
        image = desk.add_stack()
        strokes = desk.viewer.add_labels(np.zeros(SHAPE, np.uint8), scale=image.scale)
        homes.settle(strokes, image)
        desk.controller.choose(image, strokes)
        said = desk.state.to_export
        assert said.startswith("Writes what was painted or opened as labels of 'ct'")
        assert said.endswith("numbers, but no names.")
        strokes.metadata[CLASSES_KEY] = CLASSES.to_json()
        desk.controller.choose(image, strokes)
        assert desk.state.to_export.endswith("Classes: background, liver, tumour.")
        BoxLabels(BoxClasses(desk.viewer, set)).open(image, strokes)
        desk.controller.choose(image, strokes)
        assert "masks of 'ct' made from boxes" in desk.state.to_export
        desk.press()
        desk.answer()
        desk.controller.choose(image, desk.viewer.layers["segmentation of ct"])
        assert desk.state.to_export == (
            "Writes what a model predicted of 'ct'. Classes: background, liver, tumour."
        )
        desk.controller.choose(image, None)
        assert desk.state.to_export == ""

    def test_too_large_for_memory_are_written_part_by_part_or_refused(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        labels = np.random.default_rng(0).integers(0, 4, (40, 50)).astype(np.uint8)
        lazy = zarr.array(labels, store=zarr.storage.MemoryStore(), chunks=(20, 20))
        metadata = {CLASSES_KEY: CLASSES.to_json()}
        layer = Labels(lazy, metadata=metadata, scale=(2, 2), units=("um", "um"))
        monkeypatch.setattr(label_export, "MOST_IN_MEMORY", 1000)
        done = label_export.export_layer(layer, str(desk.folder / "a.tif"))()
        np.testing.assert_array_equal(tifffile.imread(done.export.paths[0]), labels)
        refused = label_export.export_layer(layer, str(desk.folder / "a.nii.gz"))
        with pytest.raises(OutputError, match="choose a format that takes them"):
            refused()
        assert not (desk.folder / "a.nii.gz").exists()

    def test_of_another_size_than_in_their_store_are_not_copied_from_it(
        self, desk: Desk, qtbot: QtBot
    ) -> None:
        image = desk.open_stack()
        self.finish(desk, self.start(desk), qtbot)
        layer = desk.viewer.layers["segmentation of ct"]
        desk.controller.choose(image, layer)
        image.scale = (10, 4, 4)
        desk.controller.export(str(desk.folder / "moved.ome.zarr"))
        qtbot.waitUntil(lambda: not desk.state.exporting, timeout=5000)
        found = open_image(desk.folder / "moved.ome.zarr").geometry
        np.testing.assert_allclose(found.lengths("mm").spacing, (10, 4, 4))

    def test_that_cannot_be_exported_say_why(
        self, desk: Desk, qtbot: QtBot, told: list[str]
    ) -> None:
        image = desk.add_stack()
        strokes = desk.viewer.add_labels(np.ones(SHAPE, np.uint8), name="strokes")
        desk.controller.choose(image, strokes)
        desk.controller.export(str(desk.folder / "out.dcm"))
        qtbot.waitUntil(lambda: not desk.state.exporting, timeout=5000)
        assert "belongs to a DICOM series" in told[-1]
        assert not (desk.folder / "out.dcm").exists()

    def test_that_are_cancelled_end_at_once(self, desk: Desk, qtbot: QtBot) -> None:
        desk.open_stack()
        asked = self.start(desk)
        desk.controller.cancel()
        assert desk.state.status == "Cancelling …"
        cancelling = [desk.state.cancelling]
        assert desk.link.taken(messages.CancelFiles)
        desk.end(asked)
        assert desk.state.progress is None
        assert [*cancelling, desk.state.cancelling] == [True, False]
        qtbot.wait(50)
        assert not desk.link.restarts

    def test_in_the_middle_of_a_long_chunk_too(
        self, desk: Desk, qtbot: QtBot, told: list[str]
    ) -> None:
        desk.controller._run._cancelling.setInterval(1)
        desk.open_stack()
        self.start(desk)
        desk.controller.cancel()
        qtbot.waitUntil(lambda: bool(desk.link.restarts), timeout=1000)
        desk.link.died.emit("The prediction was cancelled, so …", True)
        assert desk.state.progress is None
        assert desk.state.status == "Cancelled; what was predicted stays."
        assert desk.state.cannot_predict == "Starting, a few seconds …"
        assert not told

    def test_whose_engine_dies_are_told(self, desk: Desk, told: list[str]) -> None:
        desk.open_stack()
        self.start(desk)
        desk.link.died.emit("It ended; it is started again.", True)
        assert told == ["It ended; it is started again."]
        assert desk.state.progress is None
        desk.link.start()
        assert not desk.state.cannot_predict

    def test_of_a_folder_name_failures_at_the_end(
        self, desk: Desk, told: list[str]
    ) -> None:
        desk.wish(what="folder")
        assert desk.state.cannot_predict == "Choose the folder of the images."
        desk.wish(images=str(desk.folder))
        assert desk.state.cannot_predict == "Choose the folder for the results."
        desk.wish(out=str(desk.folder / "out"), suffix=".nrrd")
        desk.press()
        (asked,) = desk.link.taken(messages.PredictFiles)
        assert asked.job == messages.FolderJob(
            images=str(desk.folder), out=str(desk.folder / "out"), suffix=".nrrd"
        )
        names = [f"{k}.tif" for k in range(5)]
        for place, name in enumerate(names):
            desk.link.tell(
                messages.FileProgress(
                    generation=asked.generation,
                    name=name,
                    place=place,
                    n_images=5,
                    done=1,
                    total=2,
                    px_per_s=2.5e6,
                    left_s=75.0,
                )
            )
            assert desk.state.progress == pytest.approx((place + 0.5) / 5)
            words = f"{place + 1} of 5: {name}; 2.50 Mpx/s, 0:01:15 left"
            assert desk.state.speed == words
            outcome: dict[str, Any] = {"failure": "damaged."}
            if place == 0:
                outcome = {"paths": ["/a"], "notes": ["0.nrrd was there already."]}
            desk.told_of_file(asked, name=name, place=place, n_images=5, **outcome)
        assert not told
        desk.end(asked)
        assert told == [
            f"1 of 5 images predicted, 1 of them before, in {desk.folder / 'out'}.",
            "'1.tif': damaged. '2.tif': damaged. '3.tif': damaged. 1 more failed.",
        ]
        assert desk.state.status == (
            f"{told[0]} Not predicted: 1.tif, 2.tif, 3.tif and 1 more."
        )


class TestModel:
    @pytest.fixture
    def training(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        training = SimpleNamespace(link=FakeLink(), state=State())
        for module in (predict_controller, predict_run):
            monkeypatch.setattr(module, "find_training", lambda _: training)
        return training

    def test_of_the_training_is_copied_as_it_is_now(
        self, desk: Desk, training: Any
    ) -> None:
        desk.add_stack()
        desk.wish(model="")
        assert "Nothing is trained yet" in desk.state.cannot_predict
        training.state.unsaved = True
        desk.controller.look_for_models()
        desk.controller.predict()
        (asked,) = training.link.taken(messages.CopyModel)
        assert not desk.link.taken(messages.LoadModel)
        Path(asked.path).write_bytes(b"as learned")
        training.link.tell(messages.ModelCopied(path=asked.path))
        (loading,) = desk.link.taken(messages.LoadModel)
        assert loading.path == asked.path
        desk.tell_model(loading.path)
        assert desk.answer()
        assert not Path(asked.path).exists()
        assert training.state.unsaved
        # A second time, as learned then.
        desk.controller.predict()
        (again,) = training.link.taken(messages.CopyModel)
        Path(again.path).write_bytes(b"as learned then")
        training.link.tell(messages.ModelCopied(path=again.path))
        (loading,) = desk.link.taken(messages.LoadModel)
        assert loading.path == again.path != asked.path

    def test_whose_engine_dies_before_it_is_copied_is_told(
        self, desk: Desk, training: Any, told: list[str]
    ) -> None:
        desk.add_stack()
        training.state.unsaved = True
        desk.wish(model="")
        desk.controller.predict()
        training.link.died.emit("It ended.", True)
        assert desk.state.progress is None
        assert "press Predict again" in desk.state.status
        assert "press Predict again" in told[-1]

    def test_of_a_job_that_was_given_up_is_not_taken(self, desk: Desk) -> None:
        desk.add_stack()
        desk.controller.predict()
        (first,) = desk.link.taken(messages.LoadModel)
        desk.controller.cancel()
        other = desk.folder / "other.safetensors"
        other.write_bytes(b"another model")
        desk.wish(model=str(other))
        desk.controller.predict()
        desk.tell_model(first.path)
        assert not desk.link.taken(messages.Predict)
        desk.tell_model(str(other))
        assert desk.link.taken(messages.Predict)

    def test_that_cannot_be_copied_ends_it(
        self, desk: Desk, training: Any, told: list[str]
    ) -> None:
        desk.add_stack()
        training.state.unsaved = True
        desk.wish(model="")
        desk.controller.predict()
        training.link.tell(messages.Failed(request="copy-model", message="no model."))
        assert desk.state.progress is None
        assert desk.state.status == "no model."
        assert not told  # by the other dock alone

    def test_is_chosen_among_those_saved_and_opened(
        self, desk: Desk, training: Any
    ) -> None:
        from napari_sparseseg.gui.state import SavedModel

        saved = SavedModel("/a/first.safetensors", "2026-01-01T10:00", 50, 6, 0.75)
        training.state.models = (saved,)
        desk.controller.look_for_models()
        words = [each.words for each in desk.state.models]
        assert words == [
            "As trained now in Label and train",
            "first.safetensors: Dice 0.75, 6 strokes",
            "model.safetensors",
        ]

    def test_that_is_no_model_is_told(self, desk: Desk, told: list[str]) -> None:
        desk.add_stack()
        desk.controller.predict()
        desk.link.tell(messages.Failed(request="load-model", message="it is none."))
        assert told == ["It is none."]
        assert not desk.state.cannot_predict


class TestReasons:
    def test_without_a_dock_of_training(self, desk: Desk) -> None:
        desk.add_stack()
        desk.wish(model="")
        assert desk.state.cannot_predict.startswith("Open the dock Label and train")

    def test_without_an_image(self, desk: Desk) -> None:
        assert desk.state.cannot_predict == "Open an image first."
        assert set(desk.state.refused) == {"view", "plane", "stack", "slide"}

    def test_of_an_image_in_memory(self, desk: Desk) -> None:
        desk.add_stack()
        assert set(desk.state.refused) == {"slide"}
        desk.wish(what="stack", smooth_planes=1.0)
        assert "opened from a file" in desk.state.cannot_predict
        flat = desk.viewer.add_image(np.zeros((9, 9)), name="flat")
        desk.controller.choose(flat, None)
        assert set(desk.state.refused) == {"stack", "slide"}

    def test_of_smoothing_and_a_layer_of_how_sure(self, desk: Desk) -> None:
        desk.open_stack()
        desk.wish(what="stack", smooth_planes=1.0, sureness="confidence")
        assert "set Smooth across planes to none" in desk.state.wishes.no_sureness
        # It is predicted all the same, as the dock shows it: without that layer.
        desk.press()
        (asked,) = desk.link.taken(messages.PredictFiles)
        assert asked.smooth_planes == 1.0

    def test_of_a_view_in_3d(self, desk: Desk) -> None:
        image = desk.add_stack()
        desk.viewer.dims.ndisplay = 3
        desk.controller.choose(image, None)
        assert desk.state.cannot_predict == "Go back to 2D, to a plane of the image."

    def test_of_an_engine_that_starts_slowly(self, desk: Desk) -> None:
        desk.add_stack()
        desk.link.died.emit("It ended.", True)
        assert desk.state.cannot_predict == STARTING
        desk.link.slow.emit("Starting for 12 seconds: PyTorch is being loaded.")
        assert "PyTorch" in desk.state.cannot_predict
        desk.link.start()
        assert not desk.state.cannot_predict
        desk.link.died.emit("It ended.", True)
        assert desk.state.cannot_predict == STARTING

    def test_while_one_runs_and_without_an_engine(self, desk: Desk) -> None:
        desk.add_stack()
        desk.press()
        assert desk.state.cannot_predict == "A prediction runs; cancel it first."
        desk.link.died.emit("It broke.", False)
        assert "has stopped" in desk.state.cannot_predict


def test_the_level_is_the_coarsest_that_is_fine_enough() -> None:
    levels = [np.zeros((n, n)) for n in (64, 32, 16)]
    image = Image(levels, multiscale=True, scale=(0.5, 0.5), units=("um", "um"))
    assert [level_for(image, um) for um in (None, 0.25, 0.5, 1.0, 1.9, 9)] == [
        *(0, 0, 0, 1, 1, 2)
    ]


def test_what_runs_is_in_the_activity_dock(desk: Desk, qtbot: QtBot) -> None:
    desk.add_stack()
    desk.wish(what="stack")
    desk.press()
    desk.answer()
    qtbot.waitUntil(lambda: any(e.n == 33 for e in progress._all_instances))
    desk.controller.cancel()
    qtbot.waitUntil(lambda: not progress._all_instances)


def test_times_are_worded() -> None:
    assert [clock(s) for s in (0, 75.4, 7322)] == ["0:00:00", "0:01:15", "2:02:02"]


def test_what_was_kept_is_gone_with_the_dock(desk: Desk) -> None:
    desk.open_stack()
    desk.wish(what="stack")
    desk.press()
    assert list(desk.folder.glob(f"{PREFIX}*"))
    desk.controller.close()
    assert not list(desk.folder.glob(f"{PREFIX}*"))
