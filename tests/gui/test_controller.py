"""What the user wishes reaches viewer, state and engine; without a window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sparseseg.annotations.classes import ClassTable, read_class_table
from napari_sparseseg.engine import messages
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import engine_news, plane_files, planes
from napari_sparseseg.gui.class_control import FIRST_CLASSES
from napari_sparseseg.gui.encoders import ENCODERS, encoders_of
from napari_sparseseg.gui.layer_keys import CLASSES_KEY
from napari_sparseseg.gui.planes import PlaneKey
from napari_sparseseg.gui.prediction_layer import is_prediction
from napari_sparseseg.gui.session_labels import restore
from tests.conftest import pretend_fetched

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

    from tests.gui.conftest import Table

SIDE = 64


def score(overall: float = 0.9) -> messages.Score:
    return messages.Score(overall=overall, dice={1: overall}, strokes={1: 3})


def validated(step: int, shown: messages.Shown = "both") -> messages.Validated:
    scores: dict[messages.Shown, messages.Score | None] = {shown: score()}
    return messages.Validated(step=step, scores=scores, shown=shown, reason="why")


def test_begins_with_background_and_one_more_class(table: Table) -> None:
    assert table.state.classes == FIRST_CLASSES
    assert table.state.selected == 1
    (sent,) = table.link.taken(messages.UseClasses)
    assert ClassTable.from_json(sent.classes) == FIRST_CLASSES


def test_new_labels_lie_on_the_image_ready_to_be_painted(table: Table) -> None:
    image = table.add_image()
    image.scale, image.translate = (0.5, 0.5), (3, 4)
    table.controller.pairs.choose(image, None)
    layer = table.controller.pairs.new_labels()
    assert layer is not None
    assert layer.data.shape == (SIDE, SIDE)
    assert not layer.data.any()
    np.testing.assert_array_equal(layer.scale, image.scale)
    np.testing.assert_array_equal(layer.translate, image.translate)
    assert table.viewer.layers.selection.active is layer
    assert (layer.mode, layer.selected_label) == ("paint", 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [((), "at least two classes"), ((2,), "Only 'structure' is painted"), ((1, 2), "")],
)
def test_says_why_there_is_nothing_to_train(
    table: Table, qtbot: QtBot, values: tuple[int, ...], words: str
) -> None:
    table.add_painted(*values)
    table.wait_for_counts(qtbot, *values)
    assert words in table.state.cannot_train
    assert bool(words) == bool(table.state.cannot_train)


def test_train_sends_images_and_strokes_and_starts(table: Table, qtbot: QtBot) -> None:
    image, layer = table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.use_settings(messages.TrainingSettings(balance="instance", seed=3))
    table.controller.train()
    (put,) = table.link.taken(messages.PutImage)
    assert put.name == "tile"
    np.testing.assert_array_equal(np.load(put.pixels), image.data)
    np.testing.assert_array_equal(np.load(put.labels), layer.data)
    (start,) = table.link.taken(messages.Start)
    assert (start.settings.balance, start.settings.seed) == ("instance", 3)
    assert not start.resume


def test_train_waits_for_weights_that_are_not_there(
    table: Table, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    wished = messages.TrainingSettings(net="vgg-fcn", encoder_weights="imagenet")
    table.controller.use_settings(wished)
    assert "ImageNet features of VGG16" in table.state.cannot_train
    table.controller.train()
    assert not table.link.taken(messages.Start)
    pretend_fetched("vgg16")
    table.controller.look_for_weights()
    table.controller.train()
    (start,) = table.link.taken(messages.Start)
    assert start.settings == wished
    assert table.state.model == "Network: VGG16-FCN, features from ImageNet"


def test_a_training_goes_on_without_the_weights_that_it_began_with(
    table: Table, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = pretend_fetched("vgg16")
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    wished = messages.TrainingSettings(net="vgg-fcn", encoder_weights="imagenet")
    table.controller.use_settings(wished)
    table.controller.train()
    table.link.tell(messages.PhaseChanged(phase="running", step=30))
    table.link.tell(messages.PhaseChanged(phase="idle", step=30))
    path.unlink()
    table.controller.look_for_weights()
    assert not table.state.cannot_train
    table.link.sent.clear()
    table.controller.train()
    (start,) = table.link.taken(messages.Start)
    assert start.resume
    table.link.tell(messages.PhaseChanged(phase="idle", step=30))
    # Another training begins anew.
    table.controller.use_settings(replace(wished, smoothness=0.5))
    assert "ImageNet features of VGG16" in table.state.cannot_train


def test_settings_that_a_network_cannot_have_are_not_taken(table: Table) -> None:
    wished = messages.TrainingSettings(encoder_weights="imagenet", freeze_encoder=True)
    table.controller.use_settings(wished)
    assert table.state.settings == messages.TrainingSettings()


def test_train_waits_for_what_the_quick_start_sees(
    table: Table, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    wished = messages.TrainingSettings(net="vgg-fcn", head_features="resnet18")
    table.controller.use_settings(wished)
    for encoder in encoders_of(table.state.settings, ()):
        assert f"features of {ENCODERS[encoder]}" in table.state.cannot_train
        pretend_fetched(encoder)
        table.controller.look_for_weights()
    assert encoder == "resnet18"
    assert not table.state.cannot_train


def test_a_file_is_given_up_with_the_device_whose_encoder_it_is_of(
    table: Table,
) -> None:
    table.state.devices = (("cuda", "NVIDIA H200"), ("cpu", "CPU"))
    wished = messages.TrainingSettings(
        net="unet-resnet50", encoder_weights="/data/resnet50.pth"
    )
    table.controller.use_settings(wished)
    assert table.state.settings == wished
    table.controller.use_settings(replace(wished, device="cpu"))
    assert table.state.settings.encoder_weights == "none"


def test_strokes_reach_a_running_training(table: Table, qtbot: QtBot) -> None:
    _, layer = table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    table.link.tell(messages.PhaseChanged(phase="running", step=0))
    table.link.taken(messages.PutImage)
    layer.paint((50, 50), 1)
    qtbot.waitUntil(
        lambda: any(isinstance(each, messages.PutImage) for each in table.link.sent),
        timeout=5000,
    )
    (put,) = table.link.taken(messages.PutImage)
    np.testing.assert_array_equal(np.load(put.labels), layer.data)
    layer.undo()
    qtbot.waitUntil(
        lambda: any(isinstance(each, messages.PutImage) for each in table.link.sent),
        timeout=5000,
    )
    (put,) = table.link.taken(messages.PutImage)
    assert np.load(put.labels)[50, 50] == 0


def test_strokes_are_not_sent_where_nothing_is_trained(
    table: Table, qtbot: QtBot
) -> None:
    _, layer = table.add_painted(1, 2)
    layer.paint((50, 50), 1)
    qtbot.wait(300)
    assert not table.link.taken(messages.PutImage)
    (path,) = table.mirror.annotated(layer).values()
    np.testing.assert_array_equal(np.load(path), layer.data)


def test_pairs_that_are_not_ticked_are_taken_out(table: Table, qtbot: QtBot) -> None:
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    table.link.tell(messages.PhaseChanged(phase="running", step=0))
    table.controller.pairs.tick(0, False)
    assert [each.name for each in table.link.taken(messages.RemoveImage)] == ["tile"]
    assert not table.state.counts
    table.controller.pairs.tick(0, True)
    assert [each.name for each in table.link.taken(messages.PutImage)] == [
        "tile",
        "tile",
    ]


def test_labels_of_another_shape_are_refused(table: Table, told: list[str]) -> None:
    image = table.add_image()
    layer = table.viewer.add_labels(np.zeros((SIDE, SIDE // 2), np.uint8))
    table.controller.pairs.choose(image, layer)
    assert not table.state.pairs
    assert len(told) == 1
    assert "has shape (64, 32), but the image 'tile' has (64, 64)" in told[0]


@pytest.mark.parametrize("case", ["no image", "misfit", "taken out", "beside"])
def test_strokes_are_on_disk_whether_they_are_learned_or_not(
    table: Table, qtbot: QtBot, case: str, told: list[str]
) -> None:
    if case == "no image":
        layer = table.viewer.add_labels(np.zeros((SIDE, SIDE), np.uint8))
    elif case == "misfit":
        image = table.add_image()
        layer = table.viewer.add_labels(np.zeros((SIDE, SIDE // 2), np.uint8))
        table.controller.pairs.choose(image, layer)
        assert len(told) == 1
    elif case == "taken out":
        _, layer = table.add_painted(1, 2)
        table.controller.pairs.remove(0)
    else:
        table.add_painted(1, 2)
        layer = table.viewer.add_labels(np.zeros((SIDE, SIDE), np.uint8))
    table.controller.annotations.flush()
    layer.paint((50, 20), 7)

    def is_kept() -> bool:
        files = table.mirror.annotated(layer).values()
        return any(np.array_equal(np.load(path), layer.data) for path in files)

    qtbot.waitUntil(is_kept, timeout=5000)
    # Nobody learns that.
    assert 7 not in table.state.classes.values
    # Deleted right after a stroke, and painted on by nobody any more.
    layer.paint((55, 20), 7)
    last = layer.data.copy()
    table.viewer.layers.remove(layer)
    layer.paint((60, 20), 7)
    table.controller.annotations.flush()
    labels = restore(table.mirror.folder).labels[-1]
    assert not labels.present
    np.testing.assert_array_equal(labels.data, last)


def test_labels_that_lose_their_shape_are_named(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    _, layer = table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    layer.data = np.zeros((SIDE, SIDE // 2), np.uint8)
    qtbot.waitUntil(lambda: bool(table.state.pairs[0].problem), timeout=5000)
    assert "has shape (64, 32)" in told[0]
    assert table.state.cannot_train


def test_classes_that_labels_bring_along_are_taken(table: Table) -> None:
    classes = ClassTable().add("tumour", (255, 0, 0)).add("stroma", (0, 255, 0))
    image = table.add_image()
    layer = table.viewer.add_labels(
        np.zeros((SIDE, SIDE), np.uint8), metadata={CLASSES_KEY: classes.to_json()}
    )
    table.controller.pairs.choose(image, layer)
    assert table.state.classes == classes
    np.testing.assert_allclose(layer.get_color(1), (1, 0, 0, 1))


def test_values_without_a_class_get_one(table: Table) -> None:
    _, layer = table.add_painted(1, 2, 5)
    assert table.state.classes.values == (1, 2, 5)
    assert table.state.classes.by_value(5).name == "class 5"
    assert layer.get_color(5) is not None


class TestClasses:
    """Changes of the class table reach layers and engine."""

    def test_added(self, table: Table) -> None:
        table.add_painted(1, 2)
        table.link.taken(messages.UseClasses)
        table.controller.classes.add("vessel")
        assert table.state.classes.names == ("background", "structure", "vessel")
        assert table.state.selected == 3
        (sent,) = table.link.taken(messages.UseClasses)
        assert ClassTable.from_json(sent.classes) == table.state.classes

    def test_of_a_name_that_is_taken_is_refused(
        self, table: Table, told: list[str]
    ) -> None:
        table.controller.classes.add("background")
        assert table.state.classes == FIRST_CLASSES
        assert len(told) == 1

    def test_recoloured(self, table: Table) -> None:
        _, layer = table.add_painted(1, 2)
        table.controller.classes.recolour(2, (0, 0, 255))
        np.testing.assert_allclose(layer.get_color(2), (0, 0, 1, 1))

    def test_deleted_with_their_strokes_which_undo_brings_back(
        self, table: Table, qtbot: QtBot
    ) -> None:
        _, layer = table.add_painted(1, 2)
        table.wait_for_counts(qtbot, 1, 2)
        table.controller.classes.delete(2)
        assert table.state.classes.values == (1,)
        assert set(np.unique(layer.data)) == {0, 1}
        table.wait_for_counts(qtbot, 1)
        layer.undo()
        assert set(np.unique(layer.data)) == {0, 1, 2}

    def test_selected_is_the_label_that_is_painted(self, table: Table) -> None:
        _, layer = table.add_painted(1, 2)
        table.controller.classes.select(2)
        assert layer.selected_label == 2


class TestPrediction:
    """Predictions are asked for, shown in place, and late tiles are dropped."""

    @pytest.fixture
    def learned(self, table: Table, qtbot: QtBot) -> Table:
        table.add_painted(1, 2)
        table.wait_for_counts(qtbot, 1, 2)
        table.link.tell(messages.HeadFitted(scale=0.5, score=None))
        qtbot.waitUntil(lambda: table.state.progress is not None, timeout=5000)
        return table

    def test_is_asked_for_as_soon_as_there_is_a_head(self, learned: Table) -> None:
        (asked,) = learned.link.taken(messages.Predict)
        assert np.load(asked.pixels).shape == (SIDE, SIDE, 3)
        assert np.load(asked.labels).shape == (SIDE, SIDE)
        assert asked.confidence is None
        assert learned.state.unsaved

    def test_tiles_come_into_one_layer_under_the_strokes(self, learned: Table) -> None:
        (asked,) = learned.link.taken(messages.Predict)
        np.load(asked.labels, mmap_mode="r+")[:32] = 2
        region = (0, 0, 32, SIDE)
        tile = messages.TileDone(generation=asked.generation, region=region, share=0.5)
        learned.link.tell(tile)
        learned.link.tell(tile)
        names = [layer.name for layer in learned.viewer.layers]
        assert names == ["tile", "prediction of tile", "strokes"]
        layer = learned.viewer.layers[1]
        assert (layer.data[:32] == 2).all()
        assert not layer.data[32:].any()
        assert is_prediction(layer)
        assert learned.state.progress == 0.5
        assert learned.viewer.layers.selection.active is learned.viewer.layers[2]

    def test_late_tiles_are_dropped(self, learned: Table, qtbot: QtBot) -> None:
        (asked,) = learned.link.taken(messages.Predict)
        learned.link.tell(validated(25))
        qtbot.waitUntil(
            lambda: any(isinstance(r, messages.Predict) for r in learned.link.sent)
        )
        learned.link.tell(
            messages.TileDone(
                generation=asked.generation, region=(0, 0, 8, 8), share=0.1
            )
        )
        assert len(learned.viewer.layers) == 2

    def test_off_asks_for_none(self, learned: Table, qtbot: QtBot) -> None:
        learned.controller.set_live("off")
        learned.link.sent.clear()
        learned.link.tell(validated(25))
        qtbot.wait(300)
        assert not learned.link.taken(messages.Predict)

    def test_once_asks_for_one(self, learned: Table, qtbot: QtBot) -> None:
        learned.link.sent.clear()
        learned.controller.set_live("once")
        learned.link.tell(validated(25))
        qtbot.wait(300)
        assert len(learned.link.taken(messages.Predict)) == 1

    def test_is_exported_with_its_classes(
        self, learned: Table, tmp_path: Path, told: list[str]
    ) -> None:
        from PIL import Image as Picture

        learned.controller.export(str(tmp_path / "early.png"))
        assert "no prediction" in told[0]
        (asked,) = learned.link.taken(messages.Predict)
        np.load(asked.labels, mmap_mode="r+")[:] = 2
        learned.link.tell(
            messages.TileDone(
                generation=asked.generation, region=(0, 0, SIDE, SIDE), share=1
            )
        )
        learned.controller.export(str(tmp_path / "labels.png"))
        written = np.array(Picture.open(tmp_path / "labels.png"))
        assert (written == 2).all()
        assert (tmp_path / "labels.classes.json").exists()

    def test_is_exported_with_a_word_on_what_it_lacks(
        self, learned: Table, tmp_path: Path, told: list[str], qtbot: QtBot
    ) -> None:
        (asked,) = learned.link.taken(messages.Predict)
        np.load(asked.labels, mmap_mode="r+")[:] = 2

        def export_after(region: messages.Region, asked: messages.Predict) -> str:
            learned.link.tell(
                messages.TileDone(generation=asked.generation, region=region, share=0.5)
            )
            learned.controller.export(str(tmp_path / "labels.png"))
            return told.pop()

        half = export_after((0, 0, 32, SIDE), asked)
        assert half.startswith(f"Written: {tmp_path / 'labels.png'} and ")
        assert half.endswith(".json. 50 % of it was not predicted and is 0.")
        whole = export_after((32, 0, SIDE, SIDE), asked)
        assert whole.endswith("labels.classes.json.")
        learned.link.tell(validated(25))
        (again,) = learned.wait_for(qtbot, messages.Predict)
        np.load(again.labels, mmap_mode="r+")[:] = 1
        old = export_after((0, 0, SIDE, 48), again)
        assert old.endswith(".json. 25 % of it is of an earlier model.")

    def test_of_a_loaded_model_is_exported_with_the_models_classes(
        self, learned: Table, tmp_path: Path, told: list[str]
    ) -> None:
        classes = ClassTable.from_values([7])
        loaded = messages.ModelLoaded(
            path="m.safetensors",
            network="unet",
            classes=classes.to_json(),
            in_channels=3,
            shown="head",
            um_per_px=None,
        )
        learned.link.tell(loaded)
        assert learned.state.model == "Network: U-Net"
        asked = learned.link.taken(messages.Predict)[-1]
        np.load(asked.labels, mmap_mode="r+")[:] = 7
        learned.link.tell(
            messages.TileDone(
                generation=asked.generation, region=(0, 0, SIDE, SIDE), share=1
            )
        )
        learned.controller.export(str(tmp_path / "labels.png"))
        assert read_class_table(tmp_path / "labels.classes.json") == classes
        assert all(sentence.startswith("Written") for sentence in told)

    def test_of_a_loaded_model_keeps_its_classes_whatever_is_edited(
        self, learned: Table
    ) -> None:
        """Until a training predicts again."""
        classes = ClassTable.from_values([1, 2, 7])
        loaded = messages.ModelLoaded(
            path="m.safetensors",
            network="unet",
            classes=classes.to_json(),
            in_channels=3,
            shown="head",
            um_per_px=None,
        )
        learned.link.tell(messages.PhaseChanged(phase="idle", step=25))
        unsaved = [learned.state.unsaved]
        learned.link.tell(loaded)
        assert [*unsaved, learned.state.unsaved] == [True, False]
        learned.controller.classes.rename(1, "stroma")
        assert learned.controller.targets.classes == classes
        learned.controller.train()
        assert learned.controller.targets.classes == learned.state.classes
        learned.controller.classes.rename(1, "gland")
        assert learned.controller.targets.classes == learned.state.classes


def test_curves_grow_with_what_the_engine_tells(table: Table) -> None:
    table.link.tell(messages.StepDone(step=5, loss=0.7, learning_rate=1e-3))
    table.link.tell(validated(25))
    assert table.state.losses == ((5, 0.7),)
    assert [point.step for point in table.state.curve] == [25]
    assert (table.state.shown, table.state.reason) == ("both", "why")
    assert table.state.unsaved
    table.link.tell(messages.ModelSaved(path="m.safetensors"))
    assert not table.state.unsaved


def test_labels_lie_above_an_image_that_was_opened_after_them(table: Table) -> None:
    labels = table.viewer.add_labels(np.zeros((SIDE, SIDE), np.uint8), name="strokes")
    other = table.add_image("other")
    image = table.add_image()
    table.controller.pairs.choose(image, labels)
    assert list(table.viewer.layers) == [other, image, labels]
    assert table.viewer.layers.selection.active is labels


def test_losses_are_thinned_out(table: Table) -> None:
    for step in range(engine_news.MOST_LOSSES + 5):
        table.link.tell(messages.StepDone(step=step, loss=1, learning_rate=1))
    assert len(table.state.losses) < engine_news.MOST_LOSSES
    assert table.state.losses[-1][0] == engine_news.MOST_LOSSES + 4


def test_after_the_engine_died_the_training_goes_on(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    table.link.tell(messages.PhaseChanged(phase="running", step=30))
    table.link.sent.clear()
    table.link.died.emit("The engine ended; it is started again.", True)
    assert told == ["The engine ended; it is started again."]
    assert (table.state.engine, table.state.phase) == ("starting", "idle")
    assert table.state.cannot_train
    table.link.start()
    assert table.state.engine == "ready"
    assert len(table.link.taken(messages.PutImage)) == 1
    (start,) = table.link.taken(messages.Start)
    assert start.resume


def test_an_engine_that_cannot_be_started_is_said(table: Table) -> None:
    table.link.died.emit("It is broken.", False)
    assert table.state.engine == "broken"
    assert "has stopped" in table.state.cannot_train


def test_failures_are_shown(table: Table, told: list[str]) -> None:
    table.link.tell(messages.Failed(request="training", message="No memory."))
    assert told == ["No memory."]
    assert table.state.status == "No memory."
    table.link.tell(
        messages.Failed(request="training", message="No memory.", details="Traceback")
    )
    assert told[1].startswith("No memory. Details: ")


def test_a_model_of_other_images_is_no_failure(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, list[str]] = {"show_info": [], "show_error": []}
    for name, sentences in shown.items():
        monkeypatch.setattr(engine_news, name, sentences.append)
    for error in ("ImageError", "RuntimeError"):
        failed = messages.Failed(request="predict", message=error, error=error)
        table.link.tell(failed)
    assert shown == {"show_info": ["ImageError"], "show_error": ["RuntimeError"]}


def test_what_is_not_predicted_is_named(
    table: Table, qtbot: QtBot, told: list[str]
) -> None:
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.prediction.model_changed()
    (asked,) = table.link.taken(messages.Predict)

    def fail(generation: int) -> None:
        message = "the image is odd."
        table.link.tell(
            messages.Failed(request="predict", message=message, generation=generation)
        )

    fail(asked.generation - 1)  # of one that nobody waits for any more
    assert not told
    assert table.state.progress == 0
    fail(asked.generation)
    assert told == ["'tile' is not predicted: the image is odd."]
    assert table.state.progress is None


def test_deleted_layers_are_forgotten(table: Table, qtbot: QtBot) -> None:
    _, layer = table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.viewer.layers.remove(layer)
    table.controller.on_layer_removed(layer)
    assert not table.state.pairs
    assert not table.state.counts


def test_large_images_are_read_while_they_are_painted(
    table: Table, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[Thread] = []

    def read(*which: Any) -> NDArray[Any]:
        threads.append(current_thread())
        return planes.read_plane(*which)

    monkeypatch.setattr(plane_files, "read_plane", read)
    monkeypatch.setattr(plane_files, "QUICK_BYTES", SIDE * SIDE)
    image, _ = table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    (put,) = table.link.taken(messages.PutImage)
    np.testing.assert_array_equal(np.load(put.pixels), image.data)
    assert len(threads) == 1
    assert threads[0] is not main_thread()


def test_pixels_that_are_learned_from_stay(
    table: Table, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.add_painted(1, 2)
    table.wait_for_counts(qtbot, 1, 2)
    table.controller.train()
    (put,) = table.link.taken(messages.PutImage)
    monkeypatch.setattr(plane_files, "MOST_BYTES", 0)
    monkeypatch.setattr(plane_files, "FORGOTTEN_S", 0)
    files = table.controller._files
    files.pixels(table.add_image("second"), PlaneKey())
    files.pixels(table.add_image("third"), PlaneKey())
    assert Path(put.pixels).exists()
    table.controller.pairs.tick(0, False)
    files.pixels(table.add_image("fourth"), PlaneKey())
    assert not Path(put.pixels).exists()


def test_closing_goes_on_where_a_part_of_it_fails(
    table: Table, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    def fail() -> None:
        raise OutputError("No room.")

    path = table.controller._files.pixels(table.add_image(), PlaneKey())
    for part in (table.controller.annotations, table.mirror):
        monkeypatch.setattr(part, "close", fail)
    table.controller.close()
    assert told == ["No room."] * 2
    assert table.link.stopped
    assert not path.exists()


def test_closing_ends_the_engine(table: Table) -> None:
    table.controller.close()
    assert table.link.stopped
