"""The network is chosen in words, and features only where it has some."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_sparseseg.engine.messages import MaskSettings, TrainingSettings
from napari_sparseseg.gui.encoders import (
    consistent,
    encoder_of,
    encoder_of_masks,
)
from napari_sparseseg.gui.network_rows import RANDOM_FEATURES, NetworkRows
from napari_sparseseg.gui.network_words import NETWORKS, words_on
from napari_sparseseg.networks.network_names import WHEN_TO_CHOOSE, NetworkName

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
    """Make the rows of the state, which takes all settings that are wished for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    widget = QWidget()
    qtbot.addWidget(widget)
    rows = NetworkRows(state, QFormLayout(widget))
    rows.changed.connect(lambda wish: setattr(state, "settings", wish))
    yield rows


def choose(combo: Any, data: str) -> None:
    combo.setCurrentIndex(combo.findData(data))


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
        assert rows.net.currentText() == NETWORKS[name]


def test_features_are_chosen_where_the_network_has_some(
    rows: NetworkRows, state: State
) -> None:
    assert rows.weights.combo.isHidden()
    assert rows.freeze.isHidden()
    choose(rows.net, "unet-vgg16")
    assert not rows.weights.combo.isHidden()
    assert not rows.freeze.isHidden()
    assert rows.freeze.toolTip() == RANDOM_FEATURES
    rows.weights.chosen.emit("imagenet")
    assert rows.freeze.isEnabled()
    rows.freeze.click()
    assert state.settings == TrainingSettings(
        net="unet-vgg16", encoder_weights="imagenet", freeze_encoder=True
    )


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
    assert encoder_of(settings, []) == "resnet18"
    assert encoder_of(settings, [GPU, CPU]) == "resnet50"
    assert encoder_of(replace(settings, device="cpu"), [GPU, CPU]) == "resnet18"
    assert encoder_of(replace(settings, preset="light"), [GPU]) == "resnet18"
    assert encoder_of(TrainingSettings(), [GPU]) is None


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
    ],
)
def test_what_a_network_cannot_do_is_not_wished_for(
    wished: dict[str, Any], taken: dict[str, Any]
) -> None:
    assert consistent(TrainingSettings(**wished)) == TrainingSettings(**taken)


def test_networks_are_said_in_words() -> None:
    assert words_on("unet", "none", is_frozen=False) == "Network: U-Net"
    said = words_on("vgg-fcn", "/data/vgg16.pth", is_frozen=True)
    assert (
        said
        == f"Network: {NETWORKS['vgg-fcn']}, features from vgg16.pth, kept as they are"
    )
    assert words_on("deeplabv3", "imagenet", is_frozen=False).endswith("from ImageNet")
    assert words_on("newer", "none", is_frozen=False) == "Network: newer"
