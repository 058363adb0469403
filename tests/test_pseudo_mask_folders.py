"""Pseudo-masks of folders, by the command: what is read, written, spared and told."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors.torch import save_file
from skimage.io import imread
from torchvision.models import get_model

from napari_sparseseg.annotations.boxes import Box, write_boxes
from napari_sparseseg.annotations.classes import (
    ClassTable,
    read_class_table,
    write_class_table,
)
from napari_sparseseg.errors import LabelError
from napari_sparseseg.io.images import is_prediction
from napari_sparseseg.pseudo_mask_folders import list_boxes, read_box_pairs
from napari_sparseseg.pseudo_masks.methods import iter_pseudo_masks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.conftest import Run

    Spoil = Callable[[Path], object]

TABLE = ClassTable.from_values([1, 3, 4])

#: Around the bright disc in each image.
DISC = Box(20, 30, 41, 51, 3)

MAKE = ("pseudo-masks", "images", "boxes", "--out", "out")
BOX = (*MAKE, "--method", "box")
CAM = (*MAKE, "--method", "cam", "--backbone", "resnet18", "--epochs", "1")


def scan(seed: int = 0) -> NDArray[np.int16]:
    """Give a plane in HU with a bright disc on noise."""
    image = np.random.default_rng(seed).normal(0, 15, (64, 80))
    y, x = np.mgrid[:64, :80]
    image[(y - 30) ** 2 + (x - 40) ** 2 <= 100] += 150
    return image.astype(np.int16)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with two images in HU, their boxes and a class table."""
    for name in ("images", "boxes"):
        (tmp_path / name).mkdir()
    for seed, stem in enumerate(("a", "b_1.5mm")):
        tifffile.imwrite(tmp_path / "images" / f"{stem}.tif", scan(seed))
        write_boxes(tmp_path / "boxes" / f"{stem}.json", [DISC, Box(0, 0, 5, 9, 4)])
    write_class_table(tmp_path / "boxes" / "classes.json", TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class TestWriting:
    def test_label_maps_have_the_class_values_of_the_boxes(
        self, run: Run, place: Path
    ) -> None:
        assert run(*BOX).code == 0
        expected = np.full((64, 80), 1)
        expected[20:41, 30:51] = 3
        expected[:5, :9] = 4
        for stem in ("a", "b_1.5mm"):
            path = place / "out" / f"{stem}.png"
            with Image.open(path) as image:
                assert image.mode == "L"
                np.testing.assert_array_equal(np.asarray(image), expected)
            np.testing.assert_array_equal(imread(path), expected)
            assert is_prediction(path)
            assert read_class_table(place / "out" / f"{stem}.classes.json") == TABLE
            inside = tifffile.imread(place / "out" / "maps" / f"{stem}.tif")
            assert inside.dtype == np.float32
            np.testing.assert_array_equal(inside, expected > 1)
        assert sorted(path.name for path in (place / "out").iterdir()) == [
            "a.classes.json",
            "a.png",
            "b_1.5mm.classes.json",
            "b_1.5mm.png",
            "maps",
            "pseudo_masks.json",
        ]

    def test_large_class_values_are_kept(self, run: Run, place: Path) -> None:
        (place / "boxes" / "classes.json").unlink()
        write_boxes(place / "boxes" / "a.json", [Box(1, 2, 3, 4, 60000)])
        assert run(*BOX, "--background", 300).code == 0
        labels = imread(place / "out" / "a.png")
        assert labels.dtype == np.uint16
        assert set(np.unique(labels)) == {300, 60000}
        assert not (place / "out" / "a.classes.json").exists()

    def test_a_network_learns_in_the_window(self, run: Run, place: Path) -> None:
        done = run(*CAM, "--window", 40, 400, "--seed", 3, "--json", "-")
        assert done.code == 0, done.err
        record = json.loads((place / "out" / "pseudo_masks.json").read_text())
        assert record["method"] == "cam"
        assert record["weights"] == "random"
        assert (record["seed"], record["steps"]) == (3, 1)
        assert record["crf"] is not None
        assert record["normalisation"]["low"] == -160
        assert record["boxes"] == {"a": 2, "b_1.5mm": 2}
        assert {"napari-sparseseg", "torch", "numpy"} <= record["versions"].keys()
        assert record["failures"] == record["notes"] == []
        assert done.json == record | {"made": ["a", "b_1.5mm"]}
        inside = tifffile.imread(place / "out" / "maps" / "a.tif")
        assert 0 <= inside.min() < inside.max() <= 1
        assert not inside[45:].any()
        labels = imread(place / "out" / "a.png")
        assert (labels[45:] == 1).all()
        assert set(np.unique(labels)) <= {0, 1, 3, 4}

    def test_the_same_command_gives_the_same_files(self, run: Run, place: Path) -> None:
        assert run(*CAM).code == 0
        first = snapshot(place / "out")
        assert run(*CAM).code == 0
        assert snapshot(place / "out") == first

    @pytest.mark.parametrize("wish", ["--no-crf", "--crf"])
    def test_the_crf_can_be_left_out_or_asked_for(
        self, run: Run, place: Path, wish: str
    ) -> None:
        assert run(*CAM, wish).code == 0
        record = json.loads((place / "out" / "pseudo_masks.json").read_text())
        assert (record["crf"] is None) == (wish == "--no-crf")
        inside = tifffile.imread(place / "out" / "maps" / "a.tif")
        labels = imread(place / "out" / "a.png")
        assert np.array_equal(labels > 1, inside > 0.5) == (wish == "--no-crf")

    def test_methods_without_training_ignore_its_limits(
        self, run: Run, place: Path
    ) -> None:
        assert run(*BOX, "--seconds", 1, "--epochs", 2, "--seed", 9).code == 0
        assert (place / "out" / "a.png").exists()

    def test_an_interruption_keeps_what_is_done_but_no_record(
        self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*arguments: Any) -> Any:
            events = iter_pseudo_masks(*arguments)
            for _ in range(3):
                yield next(events)
            raise KeyboardInterrupt

        assert run(*BOX).code == 0
        assert (place / "out" / "pseudo_masks.json").exists()
        monkeypatch.setattr(
            "napari_sparseseg.pseudo_masks.api.iter_pseudo_masks", interrupted
        )
        assert run(*BOX, "--method", "ellipse").code == 130
        assert not (place / "out" / "pseudo_masks.json").exists()
        assert imread(place / "out" / "a.png")[20, 30] == 0
        assert imread(place / "out" / "b_1.5mm.png")[20, 30] == 3


class TestReading:
    def test_matches_images_and_boxes_by_stem(self, place: Path) -> None:
        (place / "boxes" / "b_1.5mm.json").rename(place / "boxes" / "c.json")
        inputs = read_box_pairs(place / "images", place / "boxes", None)
        assert [*inputs.images] == [*inputs.boxes] == ["a"]
        assert inputs.boxes["a"] == (DISC, Box(0, 0, 5, 9, 4))
        assert inputs.classes == TABLE
        assert inputs.notes == ["b_1.5mm: no boxes, left out"]
        (failure,) = inputs.failures
        assert failure.startswith("c: there are boxes in")

    def test_takes_single_files(self, run: Run, place: Path) -> None:
        pair = ("images/b_1.5mm.tif", "boxes/b_1.5mm.json")
        done = run("pseudo-masks", *pair, "--out", "out", "--method", "box")
        assert done.code == 0
        assert [path.name for path in (place / "out").glob("*.png")] == ["b_1.5mm.png"]

    def test_leaves_out_what_are_no_boxes(self, place: Path) -> None:
        folder = place / "boxes"
        for name in ("a.classes.json", ".hidden.json", "pseudo_masks.json", "a.txt"):
            (folder / name).write_text("{}")
        assert [*list_boxes(folder)] == ["a", "b_1.5mm"]

    def test_a_class_table_that_is_given_wins(self, place: Path) -> None:
        (place / "boxes" / "classes.json").write_text("{")
        write_class_table(place / "given.json", TABLE.renamed(3, "liver"))
        inputs = read_box_pairs(place / "images", place / "boxes", place / "given.json")
        assert inputs.classes == TABLE.renamed(3, "liver")

    def test_boxes_of_real_images_are_read(self, data_dir: Path) -> None:
        train = data_dir / "ircadb" / "train"
        inputs = read_box_pairs(
            train / "images", train / "boxes", data_dir / "ircadb" / "classes.json"
        )
        assert len(inputs.images) == 24
        assert not inputs.failures
        assert {box.class_value for each in inputs.boxes.values() for box in each} == {
            3,
            4,
        }


class TestTalking:
    def test_odd_boxes_are_told(self, run: Run, place: Path) -> None:
        odd = [DISC, DISC, Box(-3, 0, 200, 9, 4), Box(70, 0, 90, 5, 3)]
        write_boxes(place / "boxes" / "a.json", odd)
        write_boxes(place / "boxes" / "b_1.5mm.json", [])
        done = run(*BOX)
        assert done.code == 0
        for words in (
            "a: 1 box clipped to the image",
            "a: 1 box skipped for having no pixel in the image",
            "a: 1 box skipped, since the same box was given before",
            "b_1.5mm: no box, left out",
            "1 pseudo-mask(s) by box are in out",
        ):
            assert words in done.out
        record = json.loads((place / "out" / "pseudo_masks.json").read_text())
        assert len(record["notes"]) == 4
        assert not (place / "out" / "b_1.5mm.png").exists()

    def test_progress_is_told_in_lines_or_by_a_bar(
        self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done = run(*CAM)
        outside, weights, *lines = done.out.splitlines()
        assert outside.startswith("outside of all boxes is 'class 1'; --background")
        assert weights.startswith("learning starts from random weights")
        assert lines == [
            "starting",
            "learning, epoch 1",
            "0/2 a, box 1",
            "0/2 a, box 2",
            "1/2 a",
            "1/2 b_1.5mm, box 1",
            "1/2 b_1.5mm, box 2",
            "2/2 b_1.5mm",
            "2 pseudo-mask(s) by cam are in out",
        ]
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert "━" in run(*BOX).out

    def test_has_help(self, run: Run) -> None:
        done = run("pseudo-masks", "--help")
        assert done.code == 0
        assert "Usage" in done.out


# Some or all of the input is bad.


def boxes_become(*boxes: Box, stems: tuple[str, ...] = ("a", "b_1.5mm")) -> Spoil:
    def spoil(place: Path) -> None:
        for stem in stems:
            write_boxes(place / "boxes" / f"{stem}.json", boxes)

    return spoil


def write(name: str, content: bytes) -> Spoil:
    return lambda place: (place / name).write_bytes(content)


def weights_of_squeezenet(place: Path) -> None:
    state = get_model("squeezenet1_1", weights=None).state_dict()
    save_file(state, place / "w.safetensors")


def with_nan(place: Path) -> None:
    image = scan().astype(np.float32)
    image[3, 4] = np.nan
    tifffile.imwrite(place / "images" / "a.tif", image)


def several_planes(place: Path) -> None:
    tifffile.imwrite(place / "images" / "a.tif", np.stack([scan()] * 5))


EVERYTHING = Box(0, 0, 64, 80, 3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (boxes_become(Box(1, 1, 9, 9, 2), stems=("a",)), "class table: 2 of 1 box"),
        (
            boxes_become(Box(1, 1, 9, 9, 3, (2,)), stems=("a",)),
            "on plane 2 lies on a plane of a volume, but only 2-D images are read",
        ),
        (write("boxes/a.json", b"[{"), "are not a JSON file"),
        (write("boxes/a.json", b'[{"class": 3}]'), "missing keys: box_yx"),
        (write("boxes/a.json", b'{"class": 3}'), "expected is a list"),
        (write("boxes/z.json", b"[]"), "z: there are boxes in boxes, but no image"),
        (write("images/a.tif", b"no image"), "a.tif is neither a PNG"),
        (with_nan, "1 of 5120 values that are not finite"),
        (several_planes, "only 2-D images"),
    ],
)
def test_one_bad_input_does_not_keep_the_others_from_being_made(
    run: Run, place: Path, spoil: Spoil, words: str
) -> None:
    spoil(place)
    done = run(*BOX, "--json", "-")
    assert done.code == 1
    (failure,) = done.json["failures"]
    assert words in failure
    assert failure in done.err
    assert "b_1.5mm" in done.json["made"]
    record = json.loads((place / "out" / "pseudo_masks.json").read_text())
    assert record["failures"] == [failure]


@pytest.mark.parametrize(
    ("spoil", "arguments", "words"),
    [
        (boxes_become(), BOX, "no box on any of the 2 image"),
        (boxes_become(Box(99, 0, 120, 9, 3)), BOX, "no box on any of the 2 image"),
        (boxes_become(Box(1, 1, 9, 9, 2)), BOX, "none of the images can be used: a: "),
        (boxes_become(EVERYTHING), CAM, "leave no room for examples of background"),
        (boxes_become(Box(-9, -9, 99, 99, 3)), CAM, "leave no room for examples"),
        (
            weights_of_squeezenet,
            (*CAM, "--weights", "w.safetensors"),
            "weights of another network than resnet18",
        ),
        (boxes_become(DISC), (*CAM, "--weights", "w.pth"), "w.pth cannot be read"),
        (boxes_become(DISC), (*BOX, "--crf"), "nothing to refine"),
        (boxes_become(DISC), (*MAKE, "--method", "sam"), "'sam'; expected one of box"),
        (boxes_become(DISC), (*BOX, "--background", "liver"), "no class 'liver'"),
        (boxes_become(DISC), (*BOX, "--background", "3"), "boxes of this class"),
        (boxes_become(DISC), (*CAM, "--backbone", "vgg16"), "'vgg16'; expected"),
        (boxes_become(DISC), (*CAM, "--seconds", "0"), "0.0 seconds"),
        (boxes_become(DISC), (*CAM, "--epochs", "-1"), "epochs is -1"),
        (boxes_become(DISC), (*BOX, "--window", "40", "-1"), "width -1.0"),
        (boxes_become(DISC), (*BOX, "--classes", "no.json"), "no.json cannot be read"),
        (write("boxes/classes.json", b"{"), BOX, "is not a JSON file"),
        (
            boxes_become(DISC),
            ("pseudo-masks", "images", "images", "--out", "out"),
            "images has no boxes in it",
        ),
        (
            boxes_become(DISC),
            ("pseudo-masks", "none", "boxes", "--out", "out"),
            "no file or folder none",
        ),
        (
            boxes_become(DISC),
            ("pseudo-masks", "images", "none", "--out", "out"),
            "none is no file of boxes",
        ),
        (
            boxes_become(DISC),
            ("pseudo-masks", "images/a.tif", "boxes/b_1.5mm.json", "--out", "out"),
            "no image in images/a.tif has boxes of the same name",
        ),
    ],
)
def test_bad_input_gives_one_sentence_and_writes_nothing(
    run: Run, place: Path, spoil: Spoil, arguments: tuple[str, ...], words: str
) -> None:
    spoil(place)
    before = snapshot(place)
    done = run(*arguments)
    assert done.code == 2
    (sentence,) = done.err.splitlines()
    assert sentence.startswith("error: ")
    assert words in sentence
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.png", lambda path: Image.new("L", (80, 64), 3).save(path)),
        ("a.tif", lambda path: tifffile.imwrite(path, np.ones((64, 80), np.uint8))),
        (
            "maps/a.tif",
            lambda path: tifffile.imwrite(path, np.ones((64, 80), np.float32)),
        ),
        ("maps/a.tif", lambda path: path.write_text("notes")),
        ("pseudo_masks.json", lambda path: path.write_text('{"mine": 1}')),
    ],
)
def test_what_a_user_made_is_not_replaced(
    run: Run, place: Path, name: str, make: Callable[[Path], object]
) -> None:
    path = place / "out" / name
    path.parent.mkdir(parents=True)
    make(path)
    before = snapshot(place)
    done = run(*BOX)
    assert done.code == 2
    assert f"{os.path.join('out', name)} was not made by this command" in done.err
    assert snapshot(place) == before


def own_table(place: Path) -> None:
    """Give one of the boxes files a class table of its own."""
    path = place / "boxes" / "a.classes.json"
    write_class_table(path, TABLE.renamed(3, "liver"))


def broken_table(place: Path) -> None:
    (place / "boxes" / "a.classes.json").write_text("{")


@pytest.mark.parametrize("make", [own_table, broken_table])
def test_class_tables_of_others_are_not_replaced(
    run: Run, place: Path, make: Spoil
) -> None:
    make(place)
    write_class_table(place / "given.json", TABLE)
    wish = ("pseudo-masks", "images", "boxes", "--out", "boxes", "--method", "box")
    before = snapshot(place)
    done = run(*wish, "--classes", "given.json")
    assert done.code == 2
    (sentence,) = done.err.splitlines()
    name = os.path.join("boxes", "a.classes.json")
    assert f"{name} was not made by this command" in sentence
    assert snapshot(place) == before


def test_class_tables_of_pseudo_masks_and_equal_ones_are_replaced(
    run: Run, place: Path
) -> None:
    write_class_table(place / "boxes" / "a.classes.json", TABLE)
    wish = ("pseudo-masks", "images", "boxes", "--out", "boxes", "--method", "box")
    assert run(*wish).code == 0
    # Now there are label maps of this command, and their tables.
    renamed = TABLE.renamed(3, "liver")
    write_class_table(place / "given.json", renamed)
    assert run(*wish, "--classes", "given.json").code == 0
    assert read_class_table(place / "boxes" / "a.classes.json") == renamed


def test_images_are_not_replaced_by_their_masks(run: Run, place: Path) -> None:
    before = snapshot(place)
    done = run("pseudo-masks", "images", "boxes", "--out", "images", "--method", "box")
    assert done.code == 2
    assert "and 1 more" in done.err
    assert snapshot(place) == before


def test_no_images_in_the_boxes_folder_is_told(place: Path) -> None:
    (place / "boxes" / "a.json").unlink()
    (place / "boxes" / "b_1.5mm.json").unlink()
    with pytest.raises(LabelError, match="has no boxes in it"):
        list_boxes(place / "boxes")
