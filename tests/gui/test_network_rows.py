"""The network is chosen in words, and features only where it has some."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import platformdirs
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_sparseseg.engine.messages import MaskSettings, TrainingSettings
from napari_sparseseg.gui.encoders import (
    consistent,
    consistent_masks,
    encoder_of_masks,
    encoders_of,
)
from napari_sparseseg.gui.network_rows import (
    HEAD_FIRST,
    RANDOM_FEATURES,
    START_AT_RANDOM,
    NetworkRows,
    features_folder,
)
from napari_sparseseg.gui.network_words import NETWORKS, words_on
from napari_sparseseg.gui.weights_widget import FILE, megabytes
from napari_sparseseg.learning.feature_cache import FeatureCacheOptions
from napari_sparseseg.networks.network_names import WHEN_TO_CHOOSE, NetworkName
from tests.conftest import pretend_fetched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

    from napari_sparseseg.gui.state import State

pytestmark = pytest.mark.usefixtures("no_leaks")

CPU, GPU = ("cpu", "CPU, 2 cores"), ("cuda", "NVIDIA H200")


@pytest.fixture
def rows(
    no_leaks: None,
    qtbot: QtBot,
    state: State,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[NetworkRows]:
    """Make the rows of the state, which takes what is wished for as far as it can."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    widget = QWidget()
    qtbot.addWidget(widget)
    rows = NetworkRows(state, QFormLayout(widget))

    def take(wished: TrainingSettings) -> None:
        state.settings = consistent(wished, state.settings, state.devices)

    rows.changed.connect(take)
    yield rows


def choose(combo: Any, data: str) -> None:
    combo.setCurrentIndex(combo.findData(data))


def is_offered(rows: NetworkRows, weights: str) -> bool:
    combo = rows.weights.combo
    entries = combo.model()
    assert isinstance(entries, QStandardItemModel)
    entry = entries.item(combo.findData(weights))
    assert entry is not None
    return entry.isEnabled()


def said(rows: NetworkRows) -> str:
    return rows.weights.words.text()


def test_each_network_is_offered_with_when_to_choose_it(
    rows: NetworkRows, state: State
) -> None:
    names = [rows.net.itemData(place) for place in range(rows.net.count())]
    assert names == list(get_args(NetworkName))
    for place, name in enumerate(names):
        tip = rows.net.itemData(place, Qt.ItemDataRole.ToolTipRole)
        assert tip == f"{name}: {WHEN_TO_CHOOSE[name]}"
        choose(rows.net, name)
        assert state.settings.net == name
        assert rows.net_note.text() == WHEN_TO_CHOOSE[name]
        assert not any(other in rows.net_note.text() for other in names if "-" in other)
        assert rows.net.currentText() == NETWORKS[name]


def test_features_are_chosen_where_the_network_has_some(
    rows: NetworkRows, state: State
) -> None:
    assert rows.weights.combo.isHidden()
    assert rows.freeze.isHidden()
    assert rows.weights_note.text() == ""
    choose(rows.net, "unet-vgg16")
    assert rows.weights_note.text() == START_AT_RANDOM
    assert not rows.weights.combo.isHidden()
    assert not rows.freeze.isHidden()
    assert rows.freeze.toolTip() == RANDOM_FEATURES
    rows.weights.chosen.emit("imagenet")
    assert rows.weights_note.text() == ""
    assert rows.freeze.isEnabled()
    rows.freeze.click()
    assert state.settings == TrainingSettings(
        net="unet-vgg16", encoder_weights="imagenet", freeze_encoder=True
    )


def test_features_of_the_quick_start_are_never_random(
    rows: NetworkRows, state: State
) -> None:
    choose(rows.head, "resnet18")
    assert state.settings == TrainingSettings(
        head_features="resnet18", encoder_weights="imagenet"
    )
    assert not rows.weights.combo.isHidden()
    assert rows.freeze.isHidden()
    assert not is_offered(rows, "none")
    assert is_offered(rows, FILE)
    choose(rows.head, "fixed")
    assert state.settings == TrainingSettings()
    assert rows.weights.combo.isHidden()


def test_network_and_quick_start_have_one_kind_of_weights(
    rows: NetworkRows, state: State
) -> None:
    choose(rows.net, "unet-vgg16")
    rows.weights.chosen.emit("/data/vgg16.pth")
    choose(rows.head, "vgg16")
    assert state.settings.encoder_weights == "/data/vgg16.pth"
    choose(rows.head, "resnet18")
    assert state.settings.encoder_weights == "imagenet"
    assert not is_offered(rows, FILE)
    assert not rows.weights.file_button.isEnabled()
    arrived: list[bool] = []
    rows.weights_arrived.connect(lambda: arrived.append(True))
    sizes = megabytes("resnet18"), megabytes("vgg16")
    assert said(rows).startswith(f"VGG16 and ResNet-18: {sum(sizes)} MB, to be")
    pretend_fetched("vgg16")
    rows.weights.show_weights(("vgg16", "resnet18"), "imagenet")
    assert said(rows).startswith(f"ResNet-18: {sizes[0]} MB, to be")
    assert arrived == [True]
    pretend_fetched("resnet18")
    rows.weights.show_weights(("vgg16", "resnet18"), "imagenet")
    assert rows.weights.isHidden()
    assert arrived == [True, True]


def test_without_a_quick_start_it_sees_nothing(rows: NetworkRows, state: State) -> None:
    state.settings = TrainingSettings(head_start=False)
    assert rows.head.toolTip() == HEAD_FIRST
    assert not rows.head.isEnabled()
    state.settings = TrainingSettings()
    assert rows.head.isEnabled()


def test_it_is_said_where_features_of_images_are_kept(rows: NetworkRows) -> None:
    choose(rows.net, "unet-vgg16")
    rows.weights.chosen.emit("imagenet")
    for widget in (rows.freeze, rows.head):
        assert str(features_folder()) in widget.toolTip()
        assert "10 GiB" in widget.toolTip()


def test_that_is_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: tmp_path)
    options = FeatureCacheOptions()
    assert options.budget_bytes == 10 * 2**30
    options.open().write("0" * 64, [np.zeros((1, 2, 2), np.float16)], 2)
    (kept,) = features_folder().iterdir()
    assert kept.name.startswith("0" * 64)


def test_a_file_is_kept_for_networks_with_the_same_encoder(
    rows: NetworkRows, state: State
) -> None:
    choose(rows.net, "unet-vgg16")
    rows.weights.chosen.emit("/data/vgg16.pth")
    choose(rows.net, "vgg-fcn")
    assert state.settings.encoder_weights == "/data/vgg16.pth"
    choose(rows.net, "unet-resnet50")
    assert state.settings.encoder_weights == "none"
    rows.weights.chosen.emit("/data/resnet18.pth")
    choose(rows.preset, "paper")
    assert state.settings.encoder_weights == "none"


def test_the_encoder_is_that_of_the_device_that_computes() -> None:
    settings = TrainingSettings(net="deeplabv3")
    assert encoders_of(settings, []) == ("resnet18",)
    assert encoders_of(settings, [GPU, CPU]) == ("resnet50",)
    assert encoders_of(replace(settings, device="cpu"), [GPU, CPU]) == ("resnet18",)
    assert encoders_of(replace(settings, preset="light"), [GPU]) == ("resnet18",)
    assert encoders_of(TrainingSettings(), [GPU]) == ()


@pytest.mark.parametrize(
    ("wished", "encoders"),
    [
        ({}, ("vgg16",)),
        ({"head_start": False}, ()),
        ({"net": "vgg-fcn"}, ("vgg16",)),
        ({"net": "deeplabv3"}, ("resnet18", "vgg16")),
    ],
)
def test_so_is_that_of_the_quick_start(
    wished: dict[str, Any], encoders: tuple[str, ...]
) -> None:
    settings = TrainingSettings(head_features="vgg16", **wished)
    assert encoders_of(settings, [CPU]) == encoders


def test_so_is_that_of_masks() -> None:
    settings = MaskSettings(method="cam")
    assert encoder_of_masks(settings, [CPU]) == "resnet18"
    assert encoder_of_masks(settings, [GPU, CPU]) == "resnet50"
    assert encoder_of_masks(replace(settings, backbone="resnet18"), [GPU]) == "resnet18"
    assert encoder_of_masks(replace(settings, method="ellipse"), [GPU]) is None


@pytest.mark.parametrize(
    ("wished", "taken"),
    [
        ({"encoder_weights": "imagenet", "freeze_encoder": True}, {}),
        ({"net": "vgg-fcn", "freeze_encoder": True}, {"net": "vgg-fcn"}),
        (
            {"head_features": "vgg16"},
            {"head_features": "vgg16", "encoder_weights": "imagenet"},
        ),
        ({"head_features": "vgg16", "head_start": False}, {"head_start": False}),
        (
            {"head_features": "vgg16", "encoder_weights": "v", "freeze_encoder": True},
            {"head_features": "vgg16", "encoder_weights": "v"},
        ),
        (
            {"net": "deeplabv3", "head_features": "vgg16", "encoder_weights": "v"},
            {
                "net": "deeplabv3",
                "head_features": "vgg16",
                "encoder_weights": "imagenet",
            },
        ),
    ],
)
def test_what_a_network_cannot_do_is_not_wished_for(
    wished: dict[str, Any], taken: dict[str, Any]
) -> None:
    found = consistent(TrainingSettings(**wished), TrainingSettings(), [CPU])
    assert found == TrainingSettings(**taken)


def test_a_file_is_not_kept_for_the_encoder_of_another_device() -> None:
    before = TrainingSettings(net="deeplabv3", encoder_weights="/data/resnet50.pth")
    devices = [GPU, CPU]
    same, other = (replace(before, device=device) for device in ("cuda", "cpu"))
    assert consistent(same, before, devices) == same
    assert consistent(other, before, devices).encoder_weights == "none"
    # A file that is chosen with the device is of its encoder.
    assert consistent(other, TrainingSettings(), devices) == other


@pytest.mark.parametrize(
    ("changed", "is_kept"),
    [
        ({"device": "cpu"}, False),
        ({"backbone": "resnet18"}, False),
        # Unseen, as this method has no network, but not forgotten.
        ({"device": "cpu", "method": "box"}, False),
        ({"method": "box"}, True),
        ({"device": "cuda", "epochs": 3}, True),
        ({"device": "cpu", "backbone": "resnet50"}, True),
        ({"device": "cpu", "weights": "/data/resnet18.pth"}, True),
    ],
)
def test_nor_is_it_for_another_backbone_of_masks(
    changed: dict[str, Any], is_kept: bool
) -> None:
    before = MaskSettings(method="acol", weights="/data/resnet50.pth")
    wished = replace(before, **changed)
    taken = consistent_masks(wished, before, [GPU, CPU])
    assert taken == (wished if is_kept else replace(wished, weights="none"))


def test_networks_are_said_in_words() -> None:
    assert words_on("unet", "none", is_frozen=False) == "Network: U-Net"
    said = words_on("vgg-fcn", "/data/vgg16.pth", is_frozen=True)
    assert (
        said
        == f"Network: {NETWORKS['vgg-fcn']}, features from vgg16.pth, kept as they are"
    )
    assert words_on("deeplabv3", "imagenet", is_frozen=False).endswith("from ImageNet")
    assert words_on("newer", "none", is_frozen=False) == "Network: newer"
