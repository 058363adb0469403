"""What is predicted, when it is asked for, and which tiles are shown."""

from __future__ import annotations

from threading import Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from napari_sparseseg.engine.messages import (
    CancelPrediction,
    Predict,
    Predicted,
    TileDone,
)
from napari_sparseseg.errors import OutputError
from napari_sparseseg.gui import live_prediction
from napari_sparseseg.gui.live_prediction import DEBOUNCE_MS, STILL_MS, LivePrediction
from napari_sparseseg.gui.prediction_target import MOST_PIXELS
from napari_sparseseg.gui.state import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

    from napari_sparseseg.engine.messages import Region
    from napari_sparseseg.gui.seen_targets import SeenTargets
    from napari_sparseseg.gui.state import Live


class Layer:
    """Of an image."""

    def __init__(self, name: str) -> None:
        self.image = SimpleNamespace(name=name)


class Target:
    """A plane that notes what is done with it."""

    um_per_px = 0.5

    def __init__(self, shape: tuple[int, int] = (64, 64), name: str = "chosen") -> None:
        self.is_large = shape[0] * shape[1] > MOST_PIXELS
        self.layer = Layer(name)
        self.in_background = name != "chosen"
        self.shown: list[Region] = []
        self.fresh = False
        self.problem = ""
        self.has_file = True
        self.ready: list[Callable[[], object]] = []

    def view(self) -> Region:
        return (0, 0, 8, 8)

    asked = view

    def has_all_seen(self) -> bool:
        return True

    def look(self) -> None:
        pass

    def has_pixels(self, ready: Callable[[], object]) -> bool:
        self.ready.append(ready)
        return self.has_file

    def pixels_file(self) -> str:
        if self.problem:
            raise OutputError(self.problem)
        return "pixels.npy"

    def labels_file(self) -> str:
        return "labels.npy"

    def confidence_file(self) -> None:
        return None

    def part(self) -> Any:
        return self

    def is_same_plane(self, other: Target) -> bool:
        return other is self

    def is_fresh(self) -> bool:
        return self.fresh

    def show(self, region: Region) -> None:
        self.shown.append(region)


class Scene:
    """A live loop, what it predicts, and what it sends."""

    def __init__(self) -> None:
        self.state = State()
        self.sent: list[Any] = []
        self.target: Target | None = Target()
        self.seen: list[Target] = []
        self.stale = 0
        self.live = LivePrediction(
            self.state, self.sent.append, cast("SeenTargets", self)
        )

    def chosen(self) -> Target | None:
        return self.target

    def others(self, after: Any = None) -> list[Target]:
        images = [target.layer.image for target in self.seen]
        start = images.index(after) + 1 if after in images else 0
        return self.seen[start:] + self.seen[:start]

    def mark_stale(self) -> None:
        self.stale += 1
        for target in filter(None, (self.target, *self.seen)):
            target.fresh = False

    def is_done(self, generation: int) -> None:
        self.live.on_predicted(
            Predicted(generation=generation, shown="head", step=0, seconds=0.1)
        )

    def tile(self, generation: int) -> None:
        self.live.on_tile(
            TileDone(generation=generation, region=(0, 0, 8, 8), share=0.25)
        )


@pytest.fixture
def scene(qtbot: QtBot) -> Scene:
    return Scene()


@pytest.fixture
def asked(scene: Scene) -> Predict:
    """Return the first request."""
    scene.live.model_changed()
    (request,) = scene.sent
    assert isinstance(request, Predict)
    return request


def wait(qtbot: QtBot) -> None:
    qtbot.wait(2 * DEBOUNCE_MS)


def test_without_a_model_nothing_is_asked(scene: Scene, qtbot: QtBot) -> None:
    scene.live.ask_soon()
    scene.live.ask()
    wait(qtbot)
    assert not scene.sent


def test_a_new_model_predicts_at_once(asked: Predict) -> None:
    assert (asked.pixels, asked.labels) == ("pixels.npy", "labels.npy")


def test_movements_of_the_camera_are_one_request(
    scene: Scene, asked: Predict, qtbot: QtBot
) -> None:
    scene.live.on_predicted(
        Predicted(generation=asked.generation, shown="head", step=0, seconds=0.1)
    )
    for _ in range(5):
        scene.live.view_changed()
    wait(qtbot)
    _, request = scene.sent
    assert (request.view, request.region) == ((0, 0, 8, 8), None)
    assert request.um_per_px == 0.5
    assert scene.state.progress == 0


def test_of_a_huge_plane_only_the_view_is_predicted(scene: Scene) -> None:
    scene.target = Target((5000, 5000))
    scene.live.model_changed()
    scene.live.ask()
    assert scene.sent[0].region == (0, 0, 8, 8)


@pytest.mark.parametrize("mode", ["off", "once"])
def test_only_live_predicts_by_itself(scene: Scene, qtbot: QtBot, mode: Any) -> None:
    scene.state.live = mode
    scene.live.model_changed()
    wait(qtbot)
    assert not scene.sent


def test_tiles_are_shown_until_all_is_done(scene: Scene, asked: Predict) -> None:
    assert scene.target is not None
    scene.tile(asked.generation)
    assert scene.target.shown == [(0, 0, 8, 8)]
    assert scene.state.progress == 0.25
    scene.live.on_predicted(
        Predicted(generation=asked.generation, shown="head", step=3, seconds=0.1)
    )
    assert scene.state.progress is None


def test_tiles_of_an_earlier_request_are_dropped(scene: Scene, asked: Predict) -> None:
    assert scene.target is not None
    scene.live.ask()
    scene.tile(asked.generation)
    assert not scene.target.shown
    scene.live.on_predicted(
        Predicted(generation=asked.generation, shown="head", step=3, seconds=0.1)
    )
    assert scene.state.progress == 0


def test_what_is_given_up_is_shown_no_more(scene: Scene, asked: Predict) -> None:
    assert scene.target is not None
    scene.live.cancel()
    scene.tile(asked.generation)
    assert not scene.target.shown
    assert isinstance(scene.sent[-1], CancelPrediction)
    assert scene.state.progress is None
    scene.live.cancel()
    assert len(scene.sent) == 2


def test_what_is_shown_is_marked_when_the_model_changes(
    scene: Scene, asked: Predict
) -> None:
    assert scene.stale == 1
    scene.live.model_changed()
    assert scene.stale == 2


def test_an_image_that_is_gone_is_given_up(scene: Scene, asked: Predict) -> None:
    target = scene.target
    assert target is not None
    scene.live.forget_image(cast("Any", object()))
    scene.tile(asked.generation)
    assert len(target.shown) == 1
    scene.live.forget_image(cast("Any", target.layer.image))
    scene.tile(asked.generation)
    assert len(target.shown) == 1
    assert isinstance(scene.sent[-1], CancelPrediction)


def test_what_cannot_be_asked_is_told_once(
    scene: Scene, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(live_prediction, "show_error", told.append)
    assert scene.target is not None
    scene.target.problem = "No room."
    scene.live.model_changed()
    for _ in range(2):
        scene.live.ask_soon()
        wait(qtbot)
    assert told == ["No room."]
    assert not scene.sent
    assert scene.state.progress is None
    scene.target.problem = ""
    scene.live.ask_soon()
    wait(qtbot)
    assert len(scene.sent) == 1
    scene.target.problem = "No room."
    scene.live.ask_soon()
    wait(qtbot)
    assert told == ["No room."] * 2


@pytest.mark.parametrize("live", ["live", "once"])
def test_what_must_be_read_first_is_asked_when_that_is_done(
    scene: Scene, qtbot: QtBot, live: Live
) -> None:
    target = scene.target
    assert target is not None
    target.has_file = False
    scene.live.model_changed()
    scene.state.live = live
    scene.live.ask()
    wait(qtbot)
    assert not scene.sent
    target.has_file = True
    thread = Thread(target=target.ready[-1])
    thread.start()
    thread.join()
    assert not scene.sent  # Not in that thread.
    wait(qtbot)
    assert len(scene.sent) == 1


def test_what_is_given_up_is_not_asked_when_it_was_read(
    scene: Scene, qtbot: QtBot
) -> None:
    target = scene.target
    assert target is not None
    target.has_file = False
    scene.live.model_changed()
    scene.state.live = "off"
    scene.live.cancel()
    target.has_file = True
    target.ready[-1]()
    wait(qtbot)
    assert not scene.sent


def test_without_a_target_nothing_is_asked(scene: Scene) -> None:
    scene.target = None
    scene.live.model_changed()
    scene.live.ask()
    assert not scene.sent


def test_what_is_on_its_way_is_not_asked_again(
    scene: Scene, asked: Predict, qtbot: QtBot
) -> None:
    scene.live.view_changed()
    wait(qtbot)
    assert scene.sent == [asked]
    scene.target = Target()
    scene.live.view_changed()
    wait(qtbot)
    assert len(scene.sent) == 2


def test_of_a_huge_plane_a_new_view_is_asked_for(scene: Scene, qtbot: QtBot) -> None:
    scene.target = Target((5000, 5000))
    scene.live.model_changed()
    scene.live.view_changed()
    wait(qtbot)
    assert len(scene.sent) == 2


def test_what_is_shown_already_is_not_asked_again(
    scene: Scene, asked: Predict, qtbot: QtBot
) -> None:
    scene.live.on_predicted(
        Predicted(generation=asked.generation, shown="head", step=0, seconds=0.1)
    )
    assert scene.target is not None
    scene.target.fresh = True
    scene.live.view_changed()
    wait(qtbot)
    assert scene.sent == [asked]


class TestBackground:
    """What is seen beside the chosen image is predicted behind it, one by one."""

    @pytest.fixture
    def scene(self, scene: Scene) -> Scene:
        scene.seen = [Target(name=name) for name in ("first", "second")]
        scene.live.model_changed()
        return scene

    @staticmethod
    def last(scene: Scene) -> Predict:
        request = scene.sent[-1]
        assert isinstance(request, Predict)
        return request

    def end(self, scene: Scene) -> None:
        """Let what was asked for last be complete."""
        name = scene.state.predicting
        for target in (scene.target, *scene.seen):
            if target is not None and target.layer.image.name == name:
                target.fresh = True
        scene.is_done(self.last(scene).generation)

    def test_comes_after_the_chosen_image(self, scene: Scene) -> None:
        asked = []
        for _ in range(3):
            asked.append((scene.state.predicting, self.last(scene).in_background))
            self.end(scene)
        assert asked == [("chosen", False), ("first", True), ("second", True)]
        assert len(scene.sent) == 3
        assert scene.state.progress is None

    def test_its_tiles_come_into_its_own_layer(self, scene: Scene) -> None:
        self.end(scene)
        scene.tile(self.last(scene).generation)
        assert [len(target.shown) for target in scene.seen] == [1, 0]
        assert scene.state.progress == 0.25

    def test_what_is_complete_is_not_asked_again(self, scene: Scene) -> None:
        """Be it not fresh then, which would be asked for ever."""
        for _ in range(3):
            scene.is_done(self.last(scene).generation)
        assert len(scene.sent) == 3

    def test_a_new_model_gives_it_up_and_begins_behind_it(self, scene: Scene) -> None:
        self.end(scene)
        before = self.last(scene)
        scene.live.model_changed()
        assert isinstance(scene.sent[-2], CancelPrediction)
        assert scene.state.predicting == "chosen"
        scene.tile(before.generation)
        assert not scene.seen[0].shown
        self.end(scene)
        assert scene.state.predicting == "second"
        self.end(scene)
        assert scene.state.predicting == "first"

    def test_a_model_gives_up_what_waits_for_pixels_of_the_chosen(
        self, scene: Scene
    ) -> None:
        self.end(scene)
        assert scene.target is not None
        scene.target.has_file = False
        scene.live.model_changed()
        assert isinstance(scene.sent[-1], CancelPrediction)

    def test_the_chosen_image_takes_its_place(self, scene: Scene, qtbot: QtBot) -> None:
        self.end(scene)
        assert scene.state.predicting == "first"
        scene.target = scene.seen.pop(0)
        scene.target.in_background = False
        scene.live.view_changed()
        wait(qtbot)
        assert not self.last(scene).in_background
        assert scene.state.predicting == "first"

    @pytest.mark.parametrize("is_seen", [True, False])
    def test_goes_on_while_it_is_seen(
        self, scene: Scene, qtbot: QtBot, is_seen: bool
    ) -> None:
        self.end(scene)
        if not is_seen:
            del scene.seen[0]
        sent = len(scene.sent)
        scene.live.view_changed()
        qtbot.wait(2 * STILL_MS)
        assert (len(scene.sent) == sent) == is_seen
        assert scene.state.predicting == ("first" if is_seen else "second")

    def test_what_comes_into_view_is_predicted(
        self, scene: Scene, qtbot: QtBot
    ) -> None:
        for _ in range(3):
            self.end(scene)
        scene.seen.append(Target(name="third"))
        scene.live.view_changed()
        qtbot.wait(2 * STILL_MS)
        assert scene.state.predicting == "third"

    def test_its_failure_is_nobodys_concern(self, scene: Scene) -> None:
        self.end(scene)
        assert not scene.live.fails(self.last(scene).generation)
        assert scene.state.predicting == "second"
        scene.seen[1].problem = "No room."
        scene.live.model_changed()
        self.end(scene)
        self.end(scene)
        assert scene.state.progress is None

    def test_of_what_was_superseded_no_failure_counts(self, scene: Scene) -> None:
        asked = self.last(scene)
        scene.live.ask()
        assert not scene.live.fails(asked.generation)
        assert scene.state.progress == 0
        assert scene.live.fails(self.last(scene).generation)
        assert scene.state.progress is None

    def test_waits_for_its_pixels(self, scene: Scene, qtbot: QtBot) -> None:
        first = scene.seen[0]
        first.has_file = False
        self.end(scene)
        assert scene.state.progress is None
        first.has_file = True
        first.ready[-1]()
        qtbot.wait(2 * STILL_MS)
        assert scene.state.predicting == "first"

    def test_off_ends_it(self, scene: Scene, qtbot: QtBot) -> None:
        self.end(scene)
        scene.state.live = "off"
        scene.live.cancel()
        qtbot.wait(2 * STILL_MS)
        assert isinstance(scene.sent[-1], CancelPrediction)

    def test_without_a_chosen_image_there_are_the_others(self, scene: Scene) -> None:
        self.end(scene)
        scene.target = None
        scene.live.model_changed()
        assert scene.state.predicting == "second"
