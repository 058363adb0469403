"""Weights that are not there are offered, come in the background, or from a file."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import pytest
from qtpy.QtWidgets import QFileDialog

from napari_sparseseg.gui import weights_download
from napari_sparseseg.gui.encoders import why_missing
from napari_sparseseg.gui.weights_widget import FILE, WeightsWidget, megabytes
from napari_sparseseg.networks import published_weights
from napari_sparseseg.networks.published_weights import (
    LICENCE,
    PUBLISHED,
    PublishedWeights,
    published_path,
)
from tests.gui.mouse import choose

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from tests.conftest import FileServer

pytestmark = pytest.mark.usefixtures("no_leaks")

CONTENT = b"weights" * 300_000


@pytest.fixture
def server(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, file_server: FileServer
) -> FileServer:
    """Publish weights of ResNet-18 on this computer."""
    prefix = hashlib.sha256(CONTENT).hexdigest()[:8]
    published = PublishedWeights((prefix,), len(CONTENT) / 2**20)
    monkeypatch.setitem(PUBLISHED, "resnet18", published)
    monkeypatch.setattr(published_weights, "PUBLISHED_AT", file_server.url)
    monkeypatch.setattr(weights_download, "_LAST", {})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file_server.parts = [CONTENT]
    return file_server


@pytest.fixture
def widget(no_leaks: None, qtbot: QtBot, server: FileServer) -> WeightsWidget:
    """Wish for the published weights."""
    return make(qtbot)


def make(qtbot: QtBot) -> WeightsWidget:
    widget = WeightsWidget()
    qtbot.addWidget(widget)
    widget.show_weights(("resnet18",), "imagenet")
    return widget


def collect(widget: WeightsWidget) -> list[str]:
    told: list[str] = []
    widget.chosen.connect(told.append)
    widget.arrived.connect(lambda: told.append("arrived"))
    return told


def test_size_and_licence_are_said_before_anything_is_fetched(
    widget: WeightsWidget, server: FileServer
) -> None:
    assert not widget.isHidden()
    assert widget.words.text().startswith("ResNet-18: 2 MB")
    assert LICENCE in widget.words.text()
    assert widget.cancel_button.isHidden()
    assert not server.asked
    # 527.8 MiB.
    assert megabytes("vgg16") == 553


@pytest.mark.parametrize("encoders", [(), ("resnet18",)])
def test_where_nothing_is_missing_nothing_is_offered(
    widget: WeightsWidget, encoders: tuple[published_weights.EncoderName, ...]
) -> None:
    told = collect(widget)
    widget.show_weights(encoders, "none")
    assert widget.isHidden()
    assert told == []


def test_a_download_goes_on_beside_the_window(
    widget: WeightsWidget, server: FileServer, qtbot: QtBot
) -> None:
    size = len(CONTENT) // 10
    server.parts = [CONTENT[n * size : (n + 1) * size] for n in range(10)]
    server.pause_s = 0.05
    told = collect(widget)
    started = time.monotonic()
    widget.download_button.click()
    assert time.monotonic() - started < 0.2
    assert widget.download_button.isHidden()
    qtbot.waitUntil(lambda: widget.bar.value() == 1)
    assert "1 of 2 MB" in widget.words.text()
    qtbot.waitUntil(widget.isHidden)
    assert published_path("resnet18").read_bytes() == CONTENT
    assert told == ["arrived"]


def test_two_docks_have_one_download(
    widget: WeightsWidget, server: FileServer, qtbot: QtBot
) -> None:
    server.pause_s = 0.3
    other = make(qtbot)
    told = collect(other)
    widget.download_button.click()
    qtbot.waitUntil(other.download_button.isHidden)
    other._download()
    qtbot.waitUntil(lambda: widget.isHidden() and other.isHidden())
    assert len(server.asked) == 1
    assert told == ["arrived"]


def test_all_that_is_missing_is_one_offer_and_one_download(
    widget: WeightsWidget,
    server: FileServer,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PUBLISHED, "resnet50", PUBLISHED["resnet18"])
    told = collect(widget)
    widget.show_weights(("resnet18", "resnet50"), "imagenet")
    assert widget.words.text().startswith("ResNet-18 and ResNet-50: 4 MB, to be")
    server.pause_s = 60
    widget.download_button.click()
    qtbot.waitUntil(lambda: len(server.asked) == 2)
    assert "ResNet-18 and ResNet-50: 0 of 4 MB" in widget.words.text()
    widget.cancel_button.click()
    assert not widget.download_button.isHidden()
    server.pause_s = 0
    widget.download_button.click()
    qtbot.waitUntil(widget.isHidden)
    for encoder in ("resnet18", "resnet50"):
        assert published_path(encoder).read_bytes() == CONTENT
    assert {*told} == {"arrived"}


def test_what_is_left_of_a_download_is_offered_again(
    widget: WeightsWidget, server: FileServer, qtbot: QtBot
) -> None:
    path = published_path("resnet18")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-2000])
    widget.show_weights(("resnet18",), "imagenet")
    assert not widget.download_button.isHidden()
    widget.download_button.click()
    qtbot.waitUntil(widget.isHidden)
    assert path.read_bytes() == CONTENT


def test_a_download_can_be_cancelled_and_begun_again(
    widget: WeightsWidget, server: FileServer, qtbot: QtBot
) -> None:
    server.pause_s = 60
    widget.download_button.click()
    qtbot.waitUntil(lambda: bool(server.asked))
    widget.cancel_button.click()
    assert not widget.download_button.isHidden()
    assert widget.words.text().startswith("ResNet-18: 2 MB")
    server.pause_s = 0
    widget.download_button.click()
    qtbot.waitUntil(widget.isHidden)
    assert published_path("resnet18").exists()


@pytest.mark.parametrize("way", ["no server", "another file"])
def test_offline_it_says_what_to_do(
    widget: WeightsWidget,
    server: FileServer,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    if way == "no server":
        url = "http://127.0.0.1:9"
        monkeypatch.setattr(published_weights, "PUBLISHED_AT", url)
    else:
        server.parts = [b"a page to log in"]
    told = collect(widget)
    widget.download_button.click()
    qtbot.waitUntil(lambda: "failed" in widget.words.text())
    said = widget.words.text()
    assert ("refused" in said) if way == "no server" else ("SHA-256" in said)
    assert f"{published_weights.PUBLISHED_AT}/{published_path('resnet18').name}" in said
    assert "or press Choose a file" in said
    assert "\n" not in said
    assert not widget.file_button.isHidden()
    assert not widget.download_button.isHidden()
    monkeypatch.setattr(
        QFileDialog, "getOpenFileName", lambda *_: ("/usb/resnet18.pth", "")
    )
    widget.file_button.click()
    assert told == ["/usb/resnet18.pth"]


def test_offline_what_two_encoders_need_can_be_put_where_it_says(
    widget: WeightsWidget,
    server: FileServer,
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PUBLISHED, "resnet50", PUBLISHED["resnet18"])
    monkeypatch.setattr(published_weights, "PUBLISHED_AT", "http://127.0.0.1:9")
    encoders: tuple[published_weights.EncoderName, ...] = ("resnet18", "resnet50")
    widget.show_weights(encoders, "imagenet", {FILE: "A file is of one encoder."})
    told = collect(widget)
    widget.download_button.click()
    qtbot.waitUntil(lambda: "failed" in widget.words.text())
    said = widget.words.text()
    assert not widget.file_button.isEnabled()
    assert "Choose a file" not in said
    folder = published_path("resnet18").parent
    assert said.endswith(f"put them into the folder {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    for encoder in encoders:
        path = published_path(encoder)
        assert f"http://127.0.0.1:9/{path.name}" in said
        path.write_bytes(CONTENT)
    qtbot.waitUntil(lambda: told == ["arrived"])
    assert widget.isHidden()


def test_an_unexpected_error_is_told_too(
    widget: WeightsWidget, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(weights_download, "fetch_in_parts", fail)
    widget.download_button.click()
    qtbot.waitUntil(lambda: "odd" in widget.words.text())


def test_weights_that_came_in_another_way_are_noticed(
    widget: WeightsWidget, server: FileServer, qtbot: QtBot
) -> None:
    told = collect(widget)
    assert "Download" in why_missing("resnet18", "imagenet", "Features")
    path = published_path("resnet18")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    qtbot.waitUntil(lambda: told == ["arrived"])
    assert not server.asked
    assert why_missing("resnet18", "imagenet", "Features") == ""


def test_a_choice_is_wished_for_and_a_file_asked_for(
    widget: WeightsWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["", "/data/mine.safetensors"]
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (given.pop(0), ""))
    told = collect(widget)
    choose(widget.combo, "none")
    choose(widget.combo, FILE)
    choose(widget.combo, FILE)
    assert told == ["none", "/data/mine.safetensors"]
    # What is not granted is not shown.
    assert widget.combo.currentData() == "imagenet"
    widget.show_weights(("resnet18",), "/data/mine.safetensors")
    assert widget.combo.currentText() == "mine.safetensors"


def test_a_choice_that_is_locked_says_why(widget: WeightsWidget) -> None:
    widget.lock("not now")
    assert not widget.combo.isEnabled()
    assert widget.combo.toolTip() == "not now"
    assert not widget.file_button.isEnabled()
    widget.lock("")
    assert widget.combo.isEnabled()
