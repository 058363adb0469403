"""Several images learned together, in a real window with a real engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image as Picture

from napari_sparseseg.annotations.classes import read_class_table, write_class_table
from tests.gui.test_journey import User

if TYPE_CHECKING:
    from pathlib import Path

    import napari

    from napari_sparseseg.gui.label_and_train import LabelAndTrain

#: Of the images only a corner is used.
SIDE = 320


def write_corners(source: Path, place: Path) -> dict[str, np.ndarray]:
    """Write corners of three images with their strokes; return the truth by stem."""
    classes = read_class_table(source.parent / "classes.json")
    truth = {}
    for image in sorted((source / "images").iterdir())[:3]:
        stem = image.stem
        corners = [
            np.array(Picture.open(source / each / f"{stem}.png"))[:SIDE, :SIDE]
            for each in ("images", "strokes_2.5pct", "dense")
        ]
        Picture.fromarray(corners[0]).save(place / f"{stem}.png")
        Picture.fromarray(corners[1]).save(place / f"{stem}_labels.png")
        write_class_table(place / f"{stem}_labels.classes.json", classes)
        truth[stem] = corners[2]
    return truth


@pytest.mark.slow
def test_each_image_has_a_score_that_follows_new_strokes(
    window: tuple[napari.Viewer, LabelAndTrain], tmp_path: Path, data_dir: Path
) -> None:
    truth = write_corners(data_dir / "glas" / "train", tmp_path)
    user = User(*window, tmp_path)
    state, control = user.state, window[1].controller
    control.set_live("off")
    control.list.add([str(tmp_path)])
    user.wait(lambda: len(state.pairs) == 3 and not control.list.is_opening)
    user.wait(lambda: not state.cannot_train)
    user.click(user.dock.training.train_button)

    def scores() -> list[float | None]:
        return [row.score for row in state.pairs]

    user.wait(lambda: None not in scores())
    first = scores()
    assert all(each is not None and 0 <= each <= 1 for each in first)
    user.click(user.dock.pairs.next_button)
    user.wait(lambda: state.pairs[1].is_chosen)
    labels, n_strokes = control.pairs.labels, state.pairs[1].strokes
    assert labels is not None
    rng = np.random.default_rng(0)
    for value in (1, 2):
        free = (truth[state.pairs[1].image] == value) & (labels.data == 0)
        for y, x in rng.permutation(np.argwhere(free))[:8]:
            labels.data_setitem((y, x), value)
    user.wait(lambda: state.pairs[1].strokes > n_strokes)
    user.wait(lambda: None not in scores() and scores() != first)
    user.take_picture("scores")
