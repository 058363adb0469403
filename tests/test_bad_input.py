"""Whatever cannot be used gives one sentence and an exit code, and loses nothing."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from napari_sparseseg import api
from napari_sparseseg.annotations.classes import ClassTable, write_class_table
from napari_sparseseg.errors import ImageError, LabelError, OutputError
from napari_sparseseg.io.model_file import load_model
from napari_sparseseg.learning.losses import weighted_cross_entropy
from napari_sparseseg.prediction.predictor import predict_image
from napari_sparseseg.samples import Sample, tissue_phantom

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.conftest import Run

    Spoil = Callable[[Path], object]


QUICK = ("--scale", "0.25", "--preset", "light", "--head-start", "off")
STEMS = ("a", "b")
PIXEL = np.ones((1, 1), np.uint8)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return tissue_phantom(0, (128, 128))


@pytest.fixture(scope="module")
def model_bytes(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    trained = api.train(
        sample.image,
        sample.labels,
        classes=sample.classes,
        steps=1,
        scale=0.25,
        preset="light",
        head_start=False,
    )
    api.save_model(trained, path)
    return path.read_bytes()


@pytest.fixture
def place(
    tmp_path: Path,
    sample: Sample,
    model_bytes: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Go to a folder with images, strokes, truth, class table and model."""
    for name in ("images", "strokes", "truth"):
        (tmp_path / name).mkdir()
    assert sample.truth is not None
    for stem, rows in zip(STEMS, (slice(0, 64), slice(64, 128)), strict=True):
        save(tmp_path / "images" / f"{stem}.png", sample.image[rows])
        save(tmp_path / "strokes" / f"{stem}.png", sample.labels[rows])
        save(tmp_path / "truth" / f"{stem}.png", sample.truth[rows])
    write_class_table(tmp_path / "classes.json", sample.classes)
    (tmp_path / "m.safetensors").write_bytes(model_bytes)
    (tmp_path / "of_a_model.checkpoint.safetensors").write_bytes(model_bytes)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path: Path, array: NDArray[Any]) -> None:
    Image.fromarray(array).save(path)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def labels_become(change: Callable[[NDArray[Any]], NDArray[Any]], *stems: str) -> Spoil:
    """Return a function that changes label maps; they become TIFF files."""

    def spoil(place: Path) -> None:
        for stem in stems or STEMS:
            path = place / "strokes" / f"{stem}.png"
            labels = np.asarray(Image.open(path))
            path.unlink()
            tifffile.imwrite(path.with_suffix(".tif"), change(labels))

    return spoil


def images_become(change: Callable[[NDArray[Any]], NDArray[Any]], *stems: str) -> Spoil:
    """Return a function that changes images; they become TIFF files."""

    def spoil(place: Path) -> None:
        for stem in stems or STEMS:
            path = place / "images" / f"{stem}.png"
            image = np.asarray(Image.open(path))
            path.unlink()
            changed = change(image)
            photometric = "rgb" if changed.ndim == 3 else "minisblack"
            tifffile.imwrite(path.with_suffix(".tif"), changed, photometric=photometric)

    return spoil


def with_nan(image: NDArray[Any]) -> NDArray[np.float32]:
    spoiled = image.astype(np.float32)
    spoiled[3, 4] = np.nan
    return spoiled


def classes_of(*values: int) -> Spoil:
    table = ClassTable.from_values(values)
    return lambda place: write_class_table(place / "classes.json", table)


def write(name: str, content: bytes) -> Spoil:
    return lambda place: (place / name).write_bytes(content)


def saved(arrays: dict[str, NDArray[Any]]) -> Spoil:
    """Return a function that saves arrays under the names given."""

    def spoil(place: Path) -> None:
        for name, array in arrays.items():
            save(place / name, array)

    return spoil


def cropped(stem: str, height: int, width: int) -> Spoil:
    """Return a function that adds a crop of an image, with its truth as strokes."""

    def spoil(place: Path) -> None:
        for source, target in (("images", "images"), ("truth", "strokes")):
            array = np.asarray(Image.open(place / source / "a.png"))
            save(place / target / f"{stem}.png", array[:height, :width])

    return spoil


def strokes_renamed(place: Path) -> None:
    for path in sorted((place / "strokes").iterdir()):
        path.rename(path.with_stem(f"{path.stem}_mask"))


def images_become_text(place: Path) -> None:
    for path in (place / "images").iterdir():
        path.write_text("text")


def images_removed(place: Path) -> None:
    for path in (place / "images").iterdir():
        path.unlink()


def nothing(_place: Path) -> None:
    """Spoil nothing."""


def shorten_the_model(place: Path) -> None:
    path = place / "m.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickle_the_model(place: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, place / "m.safetensors")


def make_file_of_out(place: Path) -> None:
    (place / "out").write_text("a file")


LOSSES = "napari_sparseseg.learning.losses"
FOLDERS = "napari_sparseseg.folders"

TRAIN = ("train", "images", "strokes", "--model", "new.safetensors", *QUICK)
SHORT = (*TRAIN, "--steps", "1")
PREDICT = ("predict", "m.safetensors", "images", "--out", "out")
EVALUATE = ("evaluate", "truth", "strokes")

REFUSED: dict[str, tuple[Spoil, tuple[str, ...], list[str]]] = {
    # What is to be learned.
    "no strokes": (labels_become(np.zeros_like), SHORT, ["no pixel is annotated"]),
    "strokes of one class": (
        labels_become(lambda labels: (labels == 2).astype(np.uint8)),
        SHORT,
        ["only the class 'class 1' is annotated"],
    ),
    "label maps of another shape": (
        labels_become(lambda labels: labels[:-3]),
        SHORT,
        ["a.tif", "(61, 128)", "(64, 128)"],
    ),
    "values without class": (
        classes_of(1, 2, 3),
        (*SHORT, "--classes", "classes.json"),
        ["not in the class table", "4 in ", "1, 2, 3"],
    ),
    "labels that are floats": (
        labels_become(lambda labels: labels.astype(np.float32)),
        SHORT,
        ["a.tif", "float32", "integers"],
    ),
    "negative labels": (
        labels_become(lambda labels: labels.astype(np.int16) - 1),
        SHORT,
        ["a.tif", "from -1", "0..65535"],
    ),
    "labels in colour": (
        labels_become(lambda labels: np.stack([labels] * 3, axis=2)),
        SHORT,
        ["a.tif", "(64, 128, 3)"],
    ),
    "images with NaN": (images_become(with_nan), SHORT, ["a.tif", "3 of 24576", "NaN"]),
    "constant images": (
        images_become(lambda image: np.full(image.shape[:2], 7, np.uint16)),
        SHORT,
        ["have the value 7", "constant"],
    ),
    "images of one pixel": (
        saved(
            {
                f"{folder}/{s}.png": PIXEL
                for folder in ("images", "strokes")
                for s in STEMS
            }
        ),
        SHORT,
        ["have the value 1", "constant"],
    ),
    "images of different channels": (
        images_become(lambda image: image[..., 0], "b"),
        SHORT,
        ["b has 1 channel(s)", "a has 3"],
    ),
    "images without partner": (
        strokes_renamed,
        SHORT,
        ["no image in images", "of the same name"],
    ),
    "two images of one name": (
        write("images/a.tif", b""),
        SHORT,
        ["a.png and a.tif", "the same name"],
    ),
    "images that are no images": (
        images_become_text,
        SHORT,
        ["none of the images can be used", "a.png"],
    ),
    "a missing folder": (nothing, ("train", "img", *SHORT[2:]), ["img"]),
    "an empty folder": (
        lambda place: (place / "empty").mkdir(),
        ("train", "empty", *SHORT[2:]),
        ["empty has no image"],
    ),
    "a class table that is no JSON": (
        write("classes.json", b"{'classes'}"),
        (*SHORT, "--classes", "classes.json"),
        ["classes.json", "not a JSON file"],
    ),
    "a class table that is missing": (
        nothing,
        (*SHORT, "--classes", "none.json"),
        ["none.json cannot be read"],
    ),
    "dense images without labels": (
        nothing,
        (*SHORT, "--dense-images", "images"),
        ["dense images and dense labels", "only one of them"],
    ),
    # How it is to be learned.
    "no steps": (nothing, (*TRAIN, "--steps", "0"), ["steps is 0", "above 0"]),
    "negative time": (nothing, (*TRAIN, "--seconds", "-1"), ["seconds is -1"]),
    "endless time": (nothing, (*TRAIN, "--seconds", "inf"), ["seconds is inf"]),
    "unknown preset": (nothing, (*SHORT, "--preset", "huge"), ["'huge'", "light"]),
    "unknown recipe": (
        nothing,
        (*SHORT, "--recipe", "fast"),
        ["'fast'", "live, paper"],
    ),
    "unknown balance": (
        nothing,
        (*SHORT, "--balance", "batch"),
        ["'batch'", "none, instance, mini-batch"],
    ),
    "unknown device": (
        nothing,
        (*SHORT, "--device", "tpu"),
        ["'tpu'", "this machine has", "cpu"],
    ),
    "only dense patches": (
        nothing,
        (*SHORT, "--dense-share", "1"),
        ["share of dense images is 1.0"],
    ),
    "unknown head start": (nothing, (*SHORT, "--head-start", "yes"), ["'yes'", "on"]),
    "a scale that is a word": (
        nothing,
        (*SHORT, "--scale", "half"),
        ["'half'", "auto"],
    ),
    "a scale of 0": (nothing, (*SHORT, "--scale", "0"), ["the scale is 0.0"]),
    "a negative seed": (nothing, (*SHORT, "--seed", "-1"), ["the seed is -1"]),
    "a window without width": (
        nothing,
        (*SHORT, "--window", "40", "0"),
        ["width 0", "above 0"],
    ),
    "two resolutions": (nothing, (*SHORT, "--um-per-px", "1"), ["both given"]),
    "micrometres of unknown pixels": (
        nothing,
        (*SHORT, "--scale", "auto", "--um-per-px", "1"),
        ["the pixel size of the images is not known"],
    ),
    "resuming without checkpoint": (
        nothing,
        (*SHORT, "--resume"),
        ["no checkpoint new.checkpoint.safetensors"],
    ),
    "resuming from a model": (
        nothing,
        (*SHORT, "--resume", "--model", "of_a_model.safetensors"),
        ["is a model, but a checkpoint is needed"],
    ),
    # Where results are to go.
    "a model below a file": (
        make_file_of_out,
        (*SHORT, "--model", "out/m.safetensors"),
        ["out cannot be made"],
    ),
    "a model in place of an image": (
        nothing,
        (*SHORT, "--model", "images/a.png"),
        ["a.png is no model", "choose another name"],
    ),
    "a model in place of a folder": (
        nothing,
        (*SHORT, "--model", "images"),
        ["images is no model"],
    ),
    "a checkpoint in place of another file": (
        write("new.checkpoint.safetensors", b"a file of another program"),
        SHORT,
        ["new.checkpoint.safetensors is no model"],
    ),
    "predictions below a file": (
        make_file_of_out,
        (*PREDICT, "--out", "out/deeper"),
        ["out/deeper cannot be made"],
    ),
    "predictions in place of images": (
        nothing,
        (*PREDICT, "--out", "images"),
        ["images/a.png is no prediction", "and 1 more", "--overwrite"],
    ),
    "scores in a folder that is missing": (
        nothing,
        (*EVALUATE, "--json", "none/scores.json"),
        ["none/scores.json cannot be written", "folder does not exist"],
    ),
    "a demo below a file": (
        make_file_of_out,
        ("demo", "--out", "out/demo", "--seconds", "1"),
        ["out/demo cannot be made"],
    ),
    "a demo without time": (nothing, ("demo", "--seconds", "0"), ["seconds is 0"]),
    # What is to predict.
    "no model": (
        nothing,
        ("predict", "none.safetensors", *PREDICT[2:]),
        ["none.safetensors cannot be read", "No such file"],
    ),
    "a model that is a pickle": (pickle_the_model, PREDICT, ["pickle", "never opened"]),
    "a model that is a plain pickle": (
        write("m.safetensors", pickle.dumps([1])),
        PREDICT,
        ["pickle"],
    ),
    "a model that is cut off": (shorten_the_model, PREDICT, ["damaged"]),
    "a model that is empty": (write("m.safetensors", b""), PREDICT, ["cannot be read"]),
    "a model that is an image": (
        nothing,
        ("predict", "images/a.png", *PREDICT[2:]),
        ["images/a.png cannot be read as a model"],
    ),
    "what is neither a model nor an image": (
        write("notes.txt", b"nothing"),
        ("info", "notes.txt"),
        ["notes.txt is no image that can be opened"],
    ),
    "no image to predict": (images_removed, PREDICT, ["images has no image"]),
    "a device that is not there": (
        nothing,
        (*PREDICT, "--device", "cuda:99"),
        ["'cuda:99' is not there"],
    ),
    # What is to be scored.
    "truth of another shape": (
        saved({f"strokes/{stem}.png": np.ones((3, 5), np.uint8) for stem in STEMS}),
        EVALUATE,
        ["nothing can be scored", "(3, 5)", "(64, 128)"],
    ),
    "truth of other names": (
        strokes_renamed,
        EVALUATE,
        ["no prediction in truth has a truth of the same name"],
    ),
    "truth with other classes": (
        classes_of(1, 2),
        (*EVALUATE, "--classes", "classes.json"),
        ["truth of 'a'", "no class", "[1, 2]"],
    ),
    "truth that is missing": (
        nothing,
        (*EVALUATE[:2], "elsewhere"),
        ["no file or folder elsewhere"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_in_one_sentence(run: Run, place: Path, case: str) -> None:
    spoil, arguments, words = REFUSED[case]
    spoil(place)
    before = snapshot(place)
    done = run(*arguments)
    assert done.code == 2
    (sentence,) = done.err.splitlines()
    assert sentence.startswith("error: ")
    for word in words:
        assert word in sentence
    assert snapshot(place) == before


USED: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "an image of one pixel": (
        saved({"images/tiny.png": PIXEL.repeat(3, 1)[None], "strokes/tiny.png": PIXEL}),
        SHORT,
    ),
    "images smaller than a patch": (cropped("small", 9, 13), SHORT),
    "very narrow images": (cropped("narrow", 64, 2), SHORT),
    "a constant image among others": (
        saved({"images/a.png": np.zeros((64, 128, 3), np.uint8)}),
        SHORT,
    ),
    "a label map without strokes among others": (
        saved({"strokes/a.png": np.zeros((64, 128), np.uint8)}),
        SHORT,
    ),
    "an image of one pixel to predict": (
        saved({"images/a.png": np.zeros((1, 1, 3), np.uint8)}),
        PREDICT,
    ),
    "an image of one row to predict": (
        saved({"images/a.png": np.zeros((1, 300, 3), np.uint8)}),
        PREDICT,
    ),
}


@pytest.mark.parametrize("case", USED)
def test_is_used_though_it_is_odd(run: Run, place: Path, case: str) -> None:
    spoil, arguments = USED[case]
    spoil(place)
    done = run(*arguments)
    assert done.code == 0, done.err
    assert done.err == ""
    for path in (place / "out").glob("*.png"):
        with (
            Image.open(path) as found,
            Image.open(place / "images" / path.name) as image,
        ):
            assert found.size == image.size
    assert (place / "out").exists() or (place / "new.safetensors").exists()


PARTLY: dict[str, tuple[Spoil, tuple[str, ...], list[str]]] = {
    "an unreadable image": (
        write("images/b.png", b"\x89PNG\r\n\x1a\n"),
        SHORT,
        ["b: images/b.png cannot be read"],
    ),
    "an unreadable label map": (
        write("strokes/b.png", b"text"),
        SHORT,
        ["b: strokes/b.png is neither a PNG"],
    ),
    "an image with NaN": (images_become(with_nan, "a"), SHORT, ["a: ", "NaN"]),
    "a label map of another shape": (
        labels_become(lambda labels: labels.T, "b"),
        SHORT,
        ["b: ", "(128, 64)", "(64, 128)"],
    ),
    "a label map of floats": (
        labels_become(lambda labels: labels / 2, "a"),
        SHORT,
        ["a: ", "float64"],
    ),
    "a label map without image": (
        saved({"strokes/z.png": PIXEL}),
        SHORT,
        ["z: there is a label map in strokes, but no image"],
    ),
    "an unreadable image to predict": (
        write("images/b.png", b""),
        PREDICT,
        ["b: images/b.png", "1 of 2 images predicted"],
    ),
    "an image to predict with NaN": (
        images_become(with_nan, "a"),
        PREDICT,
        ["a: ", "3 of 24576", "1 of 2 images predicted"],
    ),
    "an image to predict of other channels": (
        images_become(lambda image: image[..., 1], "a"),
        PREDICT,
        ["a: the image has 1 channel(s)", "with 3"],
    ),
    "an unreadable prediction": (
        write("truth/b.png", b""),
        EVALUATE,
        ["b: truth/b.png"],
    ),
    "truth without prediction": (
        lambda place: (place / "truth" / "a.png").unlink(),
        EVALUATE,
        ["a: no prediction"],
    ),
}


@pytest.mark.parametrize("case", PARTLY)
def test_is_named_and_the_others_are_done(run: Run, place: Path, case: str) -> None:
    spoil, arguments, words = PARTLY[case]
    spoil(place)
    before = snapshot(place)
    done = run(*arguments)
    assert done.code == 1
    assert done.err == ""
    for word in words:
        assert word in done.out
    after = snapshot(place)
    assert after.items() >= before.items()
    if arguments is SHORT:
        trained = load_model(place / "new.safetensors").info.training
        assert trained["images"] == (2 if "without image" in case else 1)
    if arguments is PREDICT:
        assert len(list((place / "out").glob("*.png"))) == 1


def test_wrong_channels_of_all_images_are_told_with_both_numbers(
    run: Run, place: Path
) -> None:
    images_become(lambda image: image[..., 0])(place)
    done = run(*PREDICT)
    assert done.code == 2
    assert done.out.count("the image has 1 channel(s), but the model was trained") == 2
    assert "with 3" in done.out


class TestResuming:
    def test_with_other_classes_is_refused(
        self, run: Run, place: Path, sample: Sample
    ) -> None:
        arguments = (*SHORT, "--classes", "classes.json")
        assert run(*arguments).code == 0
        write_class_table(place / "classes.json", sample.classes.add("necrosis"))
        before = snapshot(place)
        done = run(*arguments, "--resume")
        assert done.code == 2
        (sentence,) = done.err.splitlines()
        assert "had the classes 1 background, 2 stroma" in sentence
        assert "5 necrosis is given" in sentence
        assert snapshot(place) == before

    def test_from_a_damaged_checkpoint_is_refused(self, run: Run, place: Path) -> None:
        assert run(*SHORT).code == 0
        path = place / "new.checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        before = snapshot(place)
        done = run(*SHORT, "--resume")
        assert done.code == 2
        (sentence,) = done.err.splitlines()
        assert "new.checkpoint.safetensors cannot be read as a checkpoint" in sentence
        assert snapshot(place) == before


class TestFullDisk:
    def test_leaves_the_old_model(
        self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = snapshot(place)

        def full(_source: Path, _target: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "replace", full)
        done = run(*SHORT, "--model", "m.safetensors")
        assert done.code == 2
        (sentence,) = done.err.splitlines()
        assert "the disk is full" in sentence
        assert snapshot(place) == before

    def test_for_the_checkpoint_still_saves_the_model(
        self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_trainer: object, path: Path) -> None:
            raise OutputError(f"{path} cannot be written: the disk is full.")

        monkeypatch.setattr(api, "write_checkpoint", full)
        done = run(*SHORT)
        assert done.code == 2
        assert "new.checkpoint.safetensors cannot be written" in done.err
        assert load_model(place / "new.safetensors").info.training["steps"] == 1

    def test_of_the_system_itself_gives_one_sentence(
        self, run: Run, place: Path
    ) -> None:
        resource = pytest.importorskip("resource")
        kept = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = snapshot(place)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, kept[1]))
        try:
            done = run(*SHORT, "--model", "m.safetensors")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        assert done.code == 2
        (sentence,) = done.err.splitlines()
        assert sentence.startswith("error: ")
        assert "larger than allowed" in sentence
        assert snapshot(place) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc")
def test_a_folder_that_is_read_only_is_refused_before_learning(
    run: Run, place: Path
) -> None:
    before = snapshot(place)
    done = run(*SHORT, "--model", "/proc/self/m.safetensors", "--steps", "100000")
    assert done.code == 2
    (sentence,) = done.err.splitlines()
    assert "nothing can be written to the folder /proc/" in sentence
    assert snapshot(place) == before


class TestMishaps:
    def test_a_loss_that_is_no_number_is_told_and_survived(
        self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []

        def lossy(*arguments: Any) -> torch.Tensor:
            calls.append(arguments)
            loss = weighted_cross_entropy(*arguments)
            return loss * torch.nan if len(calls) == 2 else loss

        monkeypatch.setattr(f"{LOSSES}.weighted_cross_entropy", lossy)
        done = run(*TRAIN, "--steps", "3")
        assert done.code == 0
        assert "step 1: the loss was no number; back to the last good" in done.out
        assert len(calls) == 4
        trained = load_model(place / "new.safetensors")
        assert trained.info.training["steps"] == 3
        for value in trained.parts["network"].state_dict().values():
            assert torch.isfinite(value).all()

    @pytest.mark.parametrize("good", [0, 2])
    def test_a_loss_that_stays_no_number_ends_with_what_was_learned(
        self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, good: int
    ) -> None:
        calls = []

        def lossy(*arguments: Any) -> torch.Tensor:
            calls.append(arguments)
            loss = weighted_cross_entropy(*arguments)
            return loss if len(calls) <= good else loss * torch.nan

        monkeypatch.setattr(f"{LOSSES}.weighted_cross_entropy", lossy)
        before = snapshot(place)["m.safetensors"]
        done = run(*TRAIN, "--steps", "5", "--model", "m.safetensors")
        assert done.code == 2
        (sentence,) = done.err.splitlines()
        assert "the loss was no number" in sentence
        assert (snapshot(place)["m.safetensors"] == before) == (good == 0)
        trained = load_model(place / "m.safetensors")
        assert trained.info.training["steps"] == (good or 1)
        for value in trained.parts["network"].state_dict().values():
            assert torch.isfinite(value).all()

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        ],
    )
    def test_too_little_memory_is_told(
        self,
        run: Run,
        place: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        def fail(*_arguments: object, **_wishes: object) -> None:
            raise error

        monkeypatch.setattr(f"{FOLDERS}.make_trainer", fail)
        before = snapshot(place)
        done = run(*SHORT)
        assert done.code == 2
        (sentence,) = done.err.splitlines()
        assert "the memory does not suffice" in sentence
        assert snapshot(place) == before

    @pytest.mark.usefixtures("place")
    def test_an_error_of_the_program_is_not_hidden(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_arguments: object, **_wishes: object) -> None:
            raise RuntimeError("index out of range")

        monkeypatch.setattr(f"{FOLDERS}.make_trainer", fail)
        with pytest.raises(RuntimeError, match="index out of range"):
            run(*SHORT)

    def test_interrupting_a_prediction_keeps_what_is_done(
        self, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*arguments: Any) -> Any:
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return predict_image(*arguments)

        calls: list[Any] = []
        monkeypatch.setattr(f"{FOLDERS}.predict_image", interrupted)
        assert run(*PREDICT).code == 130
        assert sorted(path.name for path in (place / "out").iterdir()) == [
            "a.classes.json",
            "a.png",
        ]


GOOD_IMAGE = np.arange(48, dtype=np.uint8).reshape(6, 8)
GOOD_LABELS = GOOD_IMAGE % 3


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (GOOD_IMAGE[:0], "at least one pixel"),
        (GOOD_IMAGE[0], r"shape \(8,\)"),
        (GOOD_IMAGE[None, None], r"shape \(1, 1, 6, 8\)"),
        (GOOD_IMAGE > 3, "bool"),
        (GOOD_IMAGE.astype(complex), "complex128"),
        (GOOD_IMAGE.astype(str), "<U"),
        (np.where(GOOD_IMAGE > 3, np.inf, 1.0), "not finite"),
        (np.where(GOOD_IMAGE == 3, np.nan, 1.0), "1 of 48"),
        (np.ones((6, 8)), "constant"),
    ],
)
def test_an_array_that_is_no_image_is_refused(image: NDArray[Any], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        api.make_trainer([image], [GOOD_LABELS])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (GOOD_LABELS / 1, "float64"),
        (GOOD_LABELS > 0, "bool"),
        (GOOD_LABELS.astype(np.int8) - 1, "from -1 to 1"),
        (GOOD_LABELS.astype(np.int64) + 2**16, "0..65535"),
        (GOOD_LABELS.T, r"\(8, 6\)"),
        (GOOD_LABELS[..., None], r"\(6, 8, 1\)"),
        (GOOD_LABELS.astype(object), "object"),
        (GOOD_LABELS * 0, "no pixel is annotated"),
        (GOOD_LABELS // 2, "only the class 'class 1'"),
    ],
)
def test_an_array_that_is_no_label_map_is_refused(
    labels: NDArray[Any], words: str
) -> None:
    with pytest.raises(LabelError, match=words):
        api.make_trainer([GOOD_IMAGE], [labels])
