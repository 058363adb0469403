"""Messages come through a stream as they were, and nothing else comes through."""

import dataclasses
import io
import json
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from napari_sparseseg.engine import messages
from napari_sparseseg.engine.messages import (
    EVENTS,
    LONGEST,
    PROTOCOL,
    REQUESTS,
    Alive,
    BoxedImage,
    CrfSettings,
    DrawnBox,
    Event,
    Failed,
    FolderJob,
    HeadFitted,
    MakeMasks,
    MaskSettings,
    MasksProgress,
    ModelLoaded,
    Predict,
    PutImage,
    Ready,
    RefineBox,
    Request,
    Score,
    Shutdown,
    Start,
    TrainingSettings,
    UseClasses,
    Validated,
    read_message,
    write_message,
)
from napari_sparseseg.errors import EngineError

DRAWN = DrawnBox(id=3, box={"class": 2, "box_yx": [4, 5, 6, 7]})
SCORE = Score(overall=0.5, dice={1: 0.25, 300: 0.75}, strokes={1: 2, 300: 1})

#: Values for entries without a default that are the same in all messages.
VALUES: dict[str, Any] = {
    "name": "a µm",
    "pixels": "/tmp/pixels.npy",
    "labels": "/tmp/labels.npy",
    "classes": {"version": 1, "classes": [{"value": 1, "name": "Bär"}]},
    "settings": TrainingSettings(scale=0.25, window=(40.0, 400.0), patch_px=64),
    "checkpoint": "/tmp/checkpoint",
    "generation": 7,
    "path": "/tmp/model.safetensors",
    "network": "unet",
    "versions": {"torch": "2"},
    "devices": ["cuda", "cpu"],
    "device_names": ["a GPU", "a CPU"],
    "phase": "running",
    "step": 12,
    "scale": 0.5,
    "score": SCORE,
    "loss": 0.125,
    "learning_rate": 1e-3,
    "scores": {"head": SCORE, "both": None},
    "shown": "both",
    "reason": "why",
    "micro_batch": 2,
    "region": (0, 1, 2, 3),
    "share": 0.5,
    "seconds": 0.75,
    "in_channels": 3,
    "um_per_px": 0.5,
    "request": "training",
    "message": "what happened",
    "id": 3,
    "box": (4, 5, 6, 7),
    "boxes": 2,
    "mask": "/tmp/mask.npy",
    "localization": "/tmp/localization.npy",
    "notes": ["1 box skipped."],
    "what": "learning",
    "done": 1,
    "total": 50,
    "place": 0,
    "n_images": 3,
    "paths": ["/tmp/a.nii.gz"],
    "job": FolderJob(images="/tmp/in", out="/tmp/out", suffix=".nrrd"),
    "images": [BoxedImage(name="a µm", pixels="p", boxes=[DRAWN])],
    "folder": "/tmp",
    "ids": {"a µm": [1, 3]},
    "module": "torch",
}

#: Their settings are others.
SETTINGS = {MakeMasks: MaskSettings(window=(40.0, 400.0), crf=False)}


def kinds_of(union: Any) -> tuple[type, ...]:
    members, _ = get_args(union)
    return get_args(members)


ALL = [
    *((kind, REQUESTS) for kind in kinds_of(Request)),
    *((kind, EVENTS) for kind in kinds_of(Event)),
]


def example(kind: Any) -> Any:
    needed = [
        each.name
        for each in dataclasses.fields(kind)
        if each.default is dataclasses.MISSING
        and each.default_factory is dataclasses.MISSING
    ]
    values = VALUES | ({"settings": SETTINGS[kind]} if kind in SETTINGS else {})
    return kind(**{name: values[name] for name in needed})


def through(message: Any, kinds: TypeAdapter[Any]) -> Any:
    stream = io.BytesIO()
    write_message(stream, message, kinds)
    stream.seek(0)
    return read_message(stream, kinds)


def frame(content: object) -> io.BytesIO:
    body = json.dumps(content).encode()
    return io.BytesIO(len(body).to_bytes(4, "big") + body)


def test_every_message_of_the_module_is_asked_for_or_told() -> None:
    defined = {
        each
        for each in vars(messages).values()
        if dataclasses.is_dataclass(each) and hasattr(each, "kind")
    }
    assert defined == {kind for kind, _ in ALL}


@pytest.mark.parametrize(("kind", "kinds"), ALL)
def test_a_message_comes_through_as_it_was(kind: Any, kinds: TypeAdapter[Any]) -> None:
    message = example(kind)
    arrived = through(message, kinds)
    assert type(arrived) is kind
    assert arrived == message


@pytest.mark.parametrize(
    ("message", "kinds"),
    [
        (PutImage(name="a", pixels="p", labels="l", um_per_px=0.25), REQUESTS),
        (Start(settings=TrainingSettings(), checkpoint="c", resume=True), REQUESTS),
        (
            Predict(
                generation=1,
                pixels="p",
                labels="l",
                confidence="c",
                region=(0, 0, 4, 4),
                view=(1, 1, 2, 2),
            ),
            REQUESTS,
        ),
        (
            RefineBox(
                generation=1,
                name="a",
                id=3,
                crf=True,
                crf_options=CrfSettings(theta_alpha=20.0, iterations=3),
                mask="m.npy",
            ),
            REQUESTS,
        ),
        (
            MasksProgress(what="learning", done=1, total=2, loss_a=0.5, loss_b=0.25),
            EVENTS,
        ),
        (HeadFitted(scale=0.5, score=None), EVENTS),
        (
            ModelLoaded(
                path="p",
                network="unet",
                classes={},
                in_channels=1,
                shown="head",
                um_per_px=None,
                training={"steps": 3, "held_out_dice": {"head": {"1": 0.5}}},
            ),
            EVENTS,
        ),
        (Failed(request="ready", message="no", details="a\nb"), EVENTS),
    ],
)
def test_what_has_a_default_comes_through_too(
    message: Any, kinds: TypeAdapter[Any]
) -> None:
    assert through(message, kinds) == message


def test_messages_come_one_after_the_other_and_then_nothing() -> None:
    stream = io.BytesIO()
    sent = [Alive(), Failed(request="a", message="b"), Alive()]
    for message in sent:
        write_message(stream, message, EVENTS)
    stream.seek(0)
    assert [read_message(stream, EVENTS) for _ in sent] == sent
    assert read_message(stream, EVENTS) is None


def test_class_values_are_numbers_again() -> None:
    scores: dict[Any, Score | None] = {"head": SCORE}
    sent = Validated(step=1, scores=scores, shown="head", reason="")
    arrived = through(sent, EVENTS)
    assert set(arrived.scores["head"].dice) == {1, 300}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"kind": "alive", "more": 1}, "more"),
        ({"kind": "dead"}, "dead"),
        ({"kind": "checkpoint"}, "step"),
        ({"kind": "checkpoint", "step": "many"}, "step"),
        ({"kind": "stop"}, "stop"),
        ([], "could not be understood"),
    ],
)
def test_what_is_not_known_is_refused(content: object, words: str) -> None:
    stream = frame({"protocol": PROTOCOL, "message": content})
    with pytest.raises(EngineError, match=words):
        read_message(stream, EVENTS)


@pytest.mark.parametrize(
    "content",
    [
        {"protocol": PROTOCOL, "message": {"kind": "alive"}, "more": 1},
        {"message": {"kind": "alive"}},
        [1],
        7,
    ],
)
def test_another_envelope_is_refused(content: object) -> None:
    with pytest.raises(EngineError):
        read_message(frame(content), EVENTS)


def test_another_protocol_is_refused_and_named() -> None:
    stream = frame({"protocol": PROTOCOL + 1, "message": {"kind": "alive"}})
    with pytest.raises(EngineError, match=f"protocol {PROTOCOL + 1}.*{PROTOCOL}"):
        read_message(stream, EVENTS)


@pytest.mark.parametrize("left_out", [1, 5, 20])
def test_a_message_that_is_cut_is_refused(left_out: int) -> None:
    stream = io.BytesIO()
    write_message(stream, UseClasses(classes={"a": 1}), REQUESTS)
    cut = io.BytesIO(stream.getvalue()[:-left_out])
    with pytest.raises(EngineError, match="cut"):
        read_message(cut, REQUESTS)


def test_what_others_print_into_the_stream_is_refused() -> None:
    stream = io.BytesIO(b"Downloading weights: 100%")
    with pytest.raises(EngineError, match=f"none is longer than {LONGEST}"):
        read_message(stream, EVENTS)


def test_a_stream_that_gives_a_byte_at_a_time_is_read() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(1, size or 0))

    whole = io.BytesIO()
    write_message(whole, Shutdown(), REQUESTS)
    assert read_message(Slow(whole.getvalue()), REQUESTS) == Shutdown()


def test_a_message_cannot_be_changed() -> None:
    ready = Ready(versions={}, devices=[], device_names=[])
    with pytest.raises(dataclasses.FrozenInstanceError):
        ready.devices = ["cpu"]  # type: ignore[misc]
