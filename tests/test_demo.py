"""The demo leaves labels, pictures, models and honest scores."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from shutil import which
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from skimage.io import imread
from sklearn.metrics import accuracy_score, f1_score

from napari_sparseseg.api import predict
from napari_sparseseg.demo import (
    LEARNED,
    UNSEEN,
    SampleDone,
    iter_demo,
    photograph_window,
)
from napari_sparseseg.io.model_file import load_model
from napari_sparseseg.io.pictures import overlay
from napari_sparseseg.learning.events import HeadFitted
from napari_sparseseg.learning.head_fitting import HeadOptions
from napari_sparseseg.learning.options import TrainingOptions
from napari_sparseseg.samples import Sample, immunohistochemistry, tissue_phantom

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PHANTOM, NEW = f"tissue_phantom_{LEARNED}", f"tissue_phantom_{UNSEEN}"


def small_phantom(seed: int) -> Sample:
    return tissue_phantom(seed, (144, 128))


def small_tile() -> Sample:
    sample = immunohistochemistry()
    y, x = (slice(start, start + 128) for start in busiest_corner(sample))
    return dataclasses.replace(
        sample, image=sample.image[y, x], labels=sample.labels[y, x]
    )


def busiest_corner(sample: Sample) -> tuple[int, int]:
    """Return (y, x) of the corner of 128 x 128 pixels with most classes."""
    places = [(y, x) for y in range(0, 385, 32) for x in range(0, 385, 32)]
    return max(
        places,
        key=lambda at: len(
            np.unique(sample.labels[at[0] : at[0] + 128, at[1] : at[1] + 128])
        ),
    )


def check(out: Path, events: list[Any], phantoms: dict[str, Sample]) -> None:
    """Check everything that a demo leaves in a folder."""
    tile, learned = (each for each in events if isinstance(each, SampleDone))
    # At one resolution or, if there is time, at two.
    assert 2 <= sum(isinstance(event, HeadFitted) for event in events) <= 4
    assert tile.name == "immunohistochemistry"
    assert tile.scores == {}
    assert learned.name == PHANTOM
    unseen = f"{NEW} (unseen)"
    assert list(learned.scores) == [PHANTOM, unseen]
    names = [tile.name, PHANTOM, unseen]
    assert {path.name for path in out.iterdir()} == {
        "scores.json",
        *(f"{name}.png" for name in names),
        *(f"{name}.classes.json" for name in names),
        *(f"{each.name} (picture).png" for each in (tile, learned)),
        *(f"{each.name}.safetensors" for each in (tile, learned)),
    }

    content = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert set(content["scores"]) == {PHANTOM, unseen}
    model = load_model(out / f"{PHANTOM}.safetensors")
    for name, sample in ((PHANTOM, phantoms[PHANTOM]), (unseen, phantoms[NEW])):
        assert sample.truth is not None
        found = imread(out / f"{name}.png")
        expected = predict(model, sample.image, pixel_size_um=sample.um_per_px)
        np.testing.assert_array_equal(found, expected)
        truth, labels = sample.truth.ravel(), found.ravel()
        dice = f1_score(truth, labels, average=None, zero_division=0)
        scores = content["scores"][name]
        assert list(scores["dice"]) == list(sample.classes.names)
        assert list(scores["dice"].values()) == pytest.approx(dice.tolist())
        assert scores["pixel_accuracy"] == pytest.approx(accuracy_score(truth, labels))
        # The most frequent class alone would give 0.2 or less.
        assert scores["overall_dice"] > 0.4

    picture = imread(learned.picture)
    for sample, name in ((phantoms[PHANTOM], PHANTOM), (phantoms[NEW], unseen)):
        strokes = overlay(sample.image, sample.labels, sample.classes, opacity=1)
        assert holds(picture, strokes) == (name == PHANTOM)
        assert holds(picture, sample.image) == (name == unseen)
        assert sample.truth is not None
        for labels in (sample.truth, imread(out / f"{name}.png")):
            assert holds(picture, overlay(sample.image, labels, sample.classes))
    assert imread(tile.picture).shape[2] == 3


def holds(picture: NDArray[np.uint8], part: NDArray[np.uint8]) -> bool:
    """Tell whether the pixels of *part* stand somewhere in *picture*."""
    rows = [row.tobytes() for row in picture]
    wanted = [row.tobytes() for row in part]
    return any(
        all(line in row for line, row in zip(wanted, rows[start:], strict=False))
        for start in range(len(rows) - len(wanted) + 1)
    )


def test_leaves_everything_for_small_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sparseseg.demo.tissue_phantom", small_phantom)
    monkeypatch.setattr("napari_sparseseg.demo.immunohistochemistry", small_tile)
    quick = partial(TrainingOptions, head=HeadOptions(steps=60, batch=512))
    monkeypatch.setattr("napari_sparseseg.api.TrainingOptions", quick)
    out = tmp_path / "deep" / "demo"
    events = list(iter_demo(out, seconds=0.5, seed=3))
    check(out, events, {PHANTOM: small_phantom(LEARNED), NEW: small_phantom(UNSEEN)})
    content = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert (content["seed"], content["seconds"]) == (3, 0.5)
    assert load_model(out / f"{PHANTOM}.safetensors").info.training["seed"] == 3


@pytest.mark.slow
def test_leaves_everything_for_the_samples_themselves(tmp_path: Path) -> None:
    events = list(iter_demo(tmp_path, seconds=2))
    phantoms = {PHANTOM: tissue_phantom(LEARNED), NEW: tissue_phantom(UNSEEN)}
    check(tmp_path, events, phantoms)


@pytest.mark.slow
@pytest.mark.skipif(not which("Xvfb"), reason="needs Xvfb")
def test_photographs_the_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for name in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home))
    paths = photograph_window(tmp_path / "out")
    assert paths == sorted((tmp_path / "out").iterdir())
    strokes, first, learned = (imread(path)[..., :3].astype(int) for path in paths)
    assert strokes.shape == first.shape == learned.shape
    # The prediction covers the image, and the curves a part of the dock.
    height, width = strokes.shape[:2]
    middle = np.s_[height // 3 : height // 2, width // 3 : width // 2]
    assert (abs(first[middle] - strokes[middle]).max(axis=2) > 20).mean() > 0.5
    right = np.s_[:, -width // 5 :]
    assert (abs(learned[right] - first[right]).max(axis=2) > 20).mean() > 0.02
    assert not home.exists()
