"""The command line, from strokes to scores, with its JSON and its exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING
from unittest.mock import MagicMock, Mock

import numpy as np
import onnxruntime
import psutil
import pytest
import tifffile
from PIL import Image
from skimage.io import imread

from napari_sparseseg import cli
from napari_sparseseg.annotations.classes import (
    ClassTable,
    read_class_table,
    write_class_table,
)
from napari_sparseseg.display import has_display
from napari_sparseseg.errors import ModelFileError, OptionError
from napari_sparseseg.io.export import export_labels
from napari_sparseseg.io.model_file import load_model
from napari_sparseseg.learning.feature_cache import FeatureCacheOptions
from napari_sparseseg.learning.options import TrainingOptions
from napari_sparseseg.networks.registry import PRESETS
from napari_sparseseg.samples import tissue_phantom
from tests.io.written import write_series

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Run


#: Stems of the images; dots in them are no suffixes.
STEMS = ("case_1.5mm", "case_2.0mm")

QUICK = ("--scale", 0.25, "--preset", "light", "--head-start", "off")

#: Runs the command; looks at the window that it opens, and closes it.
LOOK = """
import json
import napari
from qtpy.QtCore import QTimer
from napari_sparseseg.cli import main
from napari_sparseseg.gui.launch import open_dock

run = napari.run


def look():
    viewer = napari.current_viewer()
    dock = open_dock(viewer)

    def tell_and_close():
        seen = {
            "layers": [layer.name for layer in viewer.layers],
            "image": dock.dock.pairs.image,
            "is_visible": dock.isVisible(),
            "engine": dock.link.pid,
        }
        print(json.dumps(seen), flush=True)
        viewer.close()

    QTimer.singleShot(500, tell_and_close)
    run()


napari.run = look
main()
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from napari_sparseseg.cli import main; main()",
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images, strokes, truth and a class table."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("images", "strokes", "truth"):
        (folder / name).mkdir()
    for seed, stem in enumerate(STEMS):
        sample = tissue_phantom(seed, (128, 128))
        assert sample.truth is not None
        tifffile.imwrite(folder / "images" / f"{stem}.tif", sample.image)
        Image.fromarray(sample.labels).save(folder / "strokes" / f"{stem}.png")
        Image.fromarray(sample.truth).save(folder / "truth" / f"{stem}.png")
    write_class_table(folder / "classes.json", sample.classes)
    return folder


@pytest.fixture(scope="module")
def model(place: Path) -> Path:
    """Return a model file, made by the command in a process of its own."""
    path = place / "models" / "model.safetensors"
    process = start(
        "train",
        place / "images",
        place / "strokes",
        "--model",
        path,
        "--classes",
        place / "classes.json",
        "--steps",
        4,
        *QUICK,
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"saved: {path}" in out
    return path


class TestFromStrokesToScores:
    def test_training_leaves_model_and_checkpoint(self, model: Path) -> None:
        assert sorted(path.name for path in model.parent.iterdir()) == [
            "model.checkpoint.safetensors",
            "model.safetensors",
        ]
        info = load_model(model).info
        assert info.training["steps"] == 4
        assert info.classes == read_class_table(model.parents[1] / "classes.json")

    def test_scores_follow(
        self, run: Run, place: Path, model: Path, tmp_path: Path
    ) -> None:
        out, scores = tmp_path / "out", tmp_path / "scores.json"
        done = run("predict", model, place / "images", "--out", out, "--probabilities")
        assert done.code == 0
        assert f"2 of 2 images predicted, in {out}" in done.out
        for stem in STEMS:
            with Image.open(out / f"{stem}.png") as image:
                assert image.mode == "L"
                found = np.asarray(image)
            np.testing.assert_array_equal(found, imread(out / f"{stem}.png"))
            assert found.shape == (128, 128)
            assert set(np.unique(found)) <= {1, 2, 3, 4}
            maps = tifffile.imread(out / "probabilities" / f"{stem}.tif")
            np.testing.assert_array_equal(found, 1 + maps.argmax(axis=0))

        done = run("evaluate", out, place / "truth", "--json", scores)
        assert done.code == 0
        content = json.loads(scores.read_text())
        assert list(content) == [
            "dice",
            "overall_dice",
            "pixel_accuracy",
            "cross_entropy",
            "confusion",
            "per_image",
            "notes",
            "failures",
        ]
        names = ["background", "stroma", "gland epithelium", "lymphocytes"]
        assert list(content["dice"]) == names
        dice = [each for each in content["dice"].values() if each is not None]
        assert content["overall_dice"] == pytest.approx(np.mean(dice))
        assert content["cross_entropy"] > 0
        assert np.shape(content["confusion"]) == (4, 5)
        assert np.sum(content["confusion"]) == 2 * 128 * 128
        assert list(content["per_image"]) == list(STEMS)
        right = sum(
            int(
                (imread(out / f"{s}.png") == imread(place / "truth" / f"{s}.png")).sum()
            )
            for s in STEMS
        )
        assert content["pixel_accuracy"] == pytest.approx(right / (2 * 128 * 128))
        for name in names:
            assert name in done.out
        assert f"{content['overall_dice']:.3f}" in done.out

    def test_without_probabilities_there_is_no_cross_entropy(
        self, run: Run, place: Path, model: Path, tmp_path: Path
    ) -> None:
        assert run("predict", model, place / "images", "--out", tmp_path).code == 0
        assert not (tmp_path / "probabilities").exists()
        done = run("evaluate", tmp_path, place / "truth", "--json", "-")
        assert done.json["cross_entropy"] is None

    def test_perfect_predictions_score_1(self, run: Run, place: Path) -> None:
        done = run(
            "evaluate",
            place / "truth",
            place / "truth",
            "--classes",
            place / "classes.json",
            "--json",
            "-",
        )
        assert done.json["overall_dice"] == done.json["pixel_accuracy"] == 1
        assert set(done.json["dice"].values()) == {1}

    def test_the_same_command_gives_the_same_labels(
        self, run: Run, place: Path, model: Path, tmp_path: Path
    ) -> None:
        again = tmp_path / "again.safetensors"
        arguments = ("--classes", place / "classes.json", "--steps", 4, *QUICK)
        folders = (place / "images", place / "strokes")
        assert run("train", *folders, "--model", again, *arguments).code == 0
        assert run("predict", model, folders[0], "--out", tmp_path / "a").code == 0
        assert run("predict", again, folders[0], "--out", tmp_path / "b").code == 0
        for stem in STEMS:
            first, second = (tmp_path / name / f"{stem}.png" for name in "ab")
            assert first.read_bytes() == second.read_bytes()

    def test_images_of_floats_and_of_signed_numbers_are_learned(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        for dtype, window in (("float32", ()), ("int16", ("--window", 20, 200))):
            folder = tmp_path / dtype
            folder.mkdir()
            for path in (place / "images").iterdir():
                grey = imread(path).mean(axis=2) - 128
                tifffile.imwrite(folder / path.name, grey.astype(dtype))
            model = tmp_path / f"{dtype}.safetensors"
            out = tmp_path / f"out of {dtype}"
            paths = (folder, place / "strokes", "--model", model)
            assert run("train", *paths, "--steps", 2, *QUICK, *window).code == 0
            assert run("predict", model, folder, "--out", out).code == 0
            assert imread(out / f"{STEMS[0]}.png").shape == (128, 128)
            kind = load_model(model).info.normalisation.kind
            assert kind == ("window" if window else "percentiles")


class TestNetworks:
    @pytest.mark.filterwarnings("default:the encoder is frozen")
    def test_learn_as_they_are_told(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        paths = (
            place / "images",
            place / "strokes",
            "--model",
            tmp_path / "m.safetensors",
        )
        learned = ("train", *paths, "--steps", 1, *QUICK, "--net", "vgg-fcn-1")
        done = run(
            *(*learned, "--freeze-encoder", "--dropout", 0.2, "--weight-decay", 1e-4),
            *("--recipe", "vgg-fcn", "--json", "-", "--device", "cpu"),
            *("--feature-cache", "on", "--feature-cache-folder", tmp_path / "cache"),
            *("--feature-cache-gib", 1, "--head-features", "fixed"),
        )
        assert done.code == 0, done.err
        assert "warning: the encoder is frozen with random weights, so" in done.err
        assert f"are kept in {tmp_path / 'cache'}, as far as they fit" in done.err
        assert "start at random" not in done.err
        assert "encoder frozen" in done.err
        known = done.json
        assert (known["feature_cache"], known["head_features"]) == (True, "fixed")
        assert any((tmp_path / "cache").iterdir())
        expected = {"name": "vgg-fcn-1", "narrowing": 4, "dropout": 0.2}
        assert known["network"] == expected
        assert (known["freeze_encoder"], known["weight_decay"]) == (True, 1e-4)
        assert known["recipe"] == "vgg-fcn"

    @pytest.mark.parametrize(
        ("options", "resumes", "words"),
        [
            (TrainingOptions(), False, ()),
            (TrainingOptions(network=PRESETS["vgg-fcn"]["light"]), True, ()),
            (
                TrainingOptions(network=PRESETS["vgg-fcn"]["light"]),
                False,
                ("the features of vgg-fcn start at random",),
            ),
            (TrainingOptions(loss="dice", balancing="none"), False, ()),
            (
                TrainingOptions(loss="dice", balancing="instance"),
                False,
                ("--balance instance weighs the pixels in it once more",),
            ),
            (
                TrainingOptions(
                    head_features="vgg16",
                    encoder_weights="imagenet",
                    feature_cache=FeatureCacheOptions(folder=Path("of images")),
                ),
                True,
                ("kept in of images, as far as they fit",),
            ),
            (
                TrainingOptions(
                    head_features="vgg16",
                    encoder_weights="imagenet",
                    feature_cache=FeatureCacheOptions("off"),
                ),
                False,
                (),
            ),
        ],
    )
    def test_are_told_of_where_they_may_not_be_meant(
        self, options: TrainingOptions, resumes: bool, words: tuple[str, ...]
    ) -> None:
        notes = cli.notes_on(options, resumes=resumes)
        assert len(notes) == len(words)
        assert all(each in note for each, note in zip(words, notes, strict=True))

    def test_take_the_augmentation_that_is_given(
        self, run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make = Mock(side_effect=OptionError("seen."))
        monkeypatch.setattr("napari_sparseseg.folders.trainer_of_folders", make)
        paths = (place / "images", place / "strokes", "--model", tmp_path / "m")

        def wished(*options: object) -> tuple[object, object]:
            assert run("train", *paths, *options).code == 2
            (*_, wishes, _ranks) = make.call_args.args
            return wishes["noise"], wishes["tiling"]

        assert wished() == (None, None)
        assert wished("--noise", 0.1, "--tiling", "on") == (0.1, True)
        assert wished("--tiling", "off") == (None, False)
        refused = run("train", *paths, "--tiling", "maybe").err
        assert "the tiling is 'maybe'; expected on or off" in refused

    def test_tell_how_much_of_published_weights_has_come(
        self, run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def download(name: str, _: object) -> Iterator[int]:
            asked.append(name)
            yield from (0, 5 << 20, 23 << 20)
            raise ModelFileError("the server is gone.")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(cli, "fetch_in_parts", download)
        paths = (place / "images", place / "strokes", "--model", tmp_path / "m")
        done = run(
            *("train", *paths, "--steps", 1, *QUICK, "--net", "deeplabv3"),
            *("--encoder-weights", "imagenet", "--device", "cpu"),
        )
        assert done.code == 2
        assert "the server is gone" in done.err
        assert asked == ["resnet18"]
        told = "downloading the ImageNet weights of resnet18"
        for share in (0, 10, 50):
            assert f"{told}: {share} % of 45 MiB" in done.out

    def test_without_encoder_cannot_freeze_it(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        paths = (
            place / "images",
            place / "strokes",
            "--model",
            tmp_path / "m.safetensors",
        )
        done = run("train", *paths, "--steps", 1, *QUICK, "--freeze-encoder")
        assert done.code == 2
        assert (
            "the encoder is to be frozen, but this network has no encoder" in done.err
        )


class TestDeepLab:
    def test_from_strokes_to_labels(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        images, labels, model = (
            tmp_path / name for name in ("i", "l", "m.safetensors")
        )
        for source, target in (("images", images), ("strokes", labels)):
            target.mkdir()
            for path in (place / source).glob(f"{STEMS[0]}*"):
                (target / path.name).write_bytes(path.read_bytes())
        done = run(
            *("train", images, labels, "--model", model, "--steps", 1, *QUICK),
            *("--net", "deeplabv3", "--recipe", "deeplab"),
            *("--loss", "l1l2", "--l1", 0.5, "--l2", 2, "--smoothness", 0.1),
        )
        assert done.code == 0, done.err
        assert "the features of deeplabv3 start at random; ImageNet's" in done.out
        known = run("info", model, "--json", "-").json
        told = run("info", model).out
        assert "loss l1l2 (L1 0.5, L2 2), smoothness 0.1" in told
        assert known["reason"] == "the network predicts, since the quick start is off"
        assert known["reason"] in " ".join(told.split())
        assert known["network"] == {"name": "deeplabv3", "backbone": "resnet18"}
        assert (known["loss"], known["recipe"]) == ("l1l2", "deeplab")
        assert [known["l1_weight"], known["l2_weight"]] == [0.5, 2]
        assert known["smoothness"] == 0.1
        assert known["encoder_weights"] == "none"
        assert run("predict", model, images, "--out", tmp_path / "out").code == 0
        assert imread(tmp_path / "out" / f"{STEMS[0]}.png").shape == (128, 128)


class TestExportModel:
    def test_writes_a_file_that_agrees_with_the_model(
        self, run: Run, model: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "new" / "m.onnx"
        done = run("export-model", model, "--onnx", path, "--json", tmp_path / "j")
        assert done.code == 0, done.err
        assert f"saved: {path}, the network" in done.out
        assert "checked with onnxruntime: class probabilities differ by" in done.out
        told = json.loads((tmp_path / "j").read_text())
        difference, spread = told.pop("largest_difference"), told.pop("spread")
        assert 0 <= difference < 1e-4
        assert difference < spread <= 1
        assert f"those of a class lie up to {spread:.2g} apart" in done.out
        metadata = onnxruntime.InferenceSession(path).get_modelmeta()
        entry = json.loads(metadata.custom_metadata_map["napari-sparseseg"])
        assert entry["content"] == told
        assert told["scale"] == 0.25

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--onnx", "m.safetensors"), "give a name that ends in .onnx"),
            (("--onnx", "m.onnx", "--part", "head"), "the model has network; choose"),
        ],
    )
    def test_says_what_cannot_be_written(
        self, run: Run, model: Path, options: tuple[str, ...], words: str
    ) -> None:
        done = run("export-model", model, *options)
        assert done.code == 2
        (sentence,) = done.err.splitlines()
        assert words in sentence


class TestJson:
    def test_on_standard_output_has_it_alone(
        self, run: Run, place: Path, model: Path, tmp_path: Path
    ) -> None:
        folders = (place / "images", place / "strokes")
        trained = run(
            *("train", *folders, "--model", tmp_path / "m.safetensors"),
            *("--steps", 1, *QUICK, "--json", "-"),
        )
        out = tmp_path / "out"
        predicted = run("predict", model, folders[0], "--out", out, "--json", "-")
        scored = run("evaluate", out, place / "truth", "--json", "-")
        told = run("info", model, "--json", "-")
        for done in (trained, predicted, scored, told):
            assert done.code == 0
            assert isinstance(done.json, dict)
            assert done.err
        assert trained.json["failures"] == []
        assert trained.json["steps"] == 1
        assert predicted.json["predicted"] == list(STEMS)
        assert predicted.json["failures"] == []
        assert predicted.json["seconds"] > 0

    def test_of_info_has_all_that_is_known(self, run: Run, model: Path) -> None:
        known = run("info", model, "--json", "-").json
        info = load_model(model).info
        assert known["classes"] == info.classes.to_json()["classes"]
        assert known["shown"] == "network"
        assert known["scales"] == {"network": 0.25}
        assert known["network"]["name"] == "unet"
        assert known["channels"] == 3
        assert known["um_per_px"] is None
        assert known["normalisation"] == {"kind": "range", "low": 0, "high": 255}
        assert known["balancing"] == "mini-batch"
        assert known["recipe"] == "live"
        assert (known["seed"], known["steps"], known["images"]) == (0, 4, 2)
        assert known["versions"] == info.training["versions"]

    def test_goes_into_a_pipe_that_has_a_name(
        self, run: Run, model: Path, tmp_path: Path
    ) -> None:
        if not hasattr(os, "mkfifo"):
            pytest.skip("this system has no named pipes")
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert run("info", model, "--json", pipe).code == 0
            content = os.read(reader, 100_000)
        finally:
            os.close(reader)
        assert json.loads(content)["steps"] == 4
        assert stat.S_ISFIFO(pipe.stat().st_mode)


class TestInfoOnImages:
    def test_tells_what_an_image_is(self, run: Run, tmp_path: Path) -> None:
        tifffile.imwrite(
            tmp_path / "a.ome.tif",
            np.zeros((3, 8, 10), np.uint16),
            metadata={
                "axes": "ZYX",
                "PhysicalSizeX": 0.5,
                "PhysicalSizeY": 0.5,
                "PhysicalSizeZ": 2,
            },
        )
        done = run("info", tmp_path / "a.ome.tif")
        for words in ("3 x 8 x 10 (z, y, x)", "uint16", "2 x 0.5 x 0.5 um"):
            assert words in done.out
        known = run("info", tmp_path / "a.ome.tif", "--json", "-").json
        assert known["spacing"] == [2, 0.5, 0.5]
        assert known["axes"] == ["z", "y", "x"]

    def test_lists_series_and_tells_about_one(self, run: Run, tmp_path: Path) -> None:
        pytest.importorskip("pydicom")
        pytest.importorskip("SimpleITK")
        write_series(tmp_path, SeriesInstanceUID="1.2.3.1")
        write_series(
            tmp_path, (0, 5), SeriesInstanceUID="1.2.3.2", SeriesDescription="Lung"
        )
        done = run("info", tmp_path)
        assert "CT 'Abdomen' (6 x 8 x 10)" in done.out
        assert "choose one with --series" in done.out
        chosen = run("info", tmp_path, "--series", "Lung", "--json", "-").json
        assert chosen["shape"] == [2, 8, 10]
        assert chosen["spacing"] == [5, 0.75, 0.5]
        assert chosen["window"] == [-160, 240]


class TestTalking:
    def test_shows_names_with_brackets_as_they_are(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        table = read_class_table(place / "classes.json").renamed(3, "gland [red]")
        write_class_table(tmp_path / "classes.json", table)
        truth = place / "truth"
        done = run("evaluate", truth, truth, "--classes", tmp_path / "classes.json")
        assert "gland [red]" in done.out
        model = tmp_path / "m.safetensors"
        done = run(
            *("train", place / "images", place / "strokes", "--model", model),
            *("--classes", tmp_path / "classes.json", "--steps", 1, *QUICK),
        )
        assert "gland [red]" in done.out

    def test_survives_letters_that_the_terminal_does_not_have(
        self, place: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = read_class_table(place / "classes.json").renamed(3, "腺 gland")
        write_class_table(tmp_path / "classes.json", table)
        shown = io.BytesIO()
        terminal = io.TextIOWrapper(shown, encoding="ascii")
        monkeypatch.setattr(sys, "stdout", terminal)
        truth = place / "truth"
        done = run("evaluate", truth, truth, "--classes", tmp_path / "classes.json")
        terminal.flush()
        assert done.code == 0
        assert b"? gland" in shown.getvalue()

    def test_shows_a_bar_on_a_terminal(
        self,
        run: Run,
        place: Path,
        model: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        done = run("predict", model, place / "images", "--out", tmp_path)
        assert done.code == 0
        assert "━" in done.out
        assert f"2/2 {STEMS[1]}" in done.out

    def test_without_arguments_explains_itself(self, run: Run) -> None:
        done = run()
        for command in ("demo", "open", "train", "predict", "evaluate", "info"):
            assert command in done.out

    @pytest.mark.parametrize(
        "command",
        [
            *("demo", "open", "train", "predict", "evaluate", "export-model"),
            *("export", "import"),
        ],
    )
    def test_has_help_for_each_command(self, run: Run, command: str) -> None:
        done = run(command, "--help")
        assert done.code == 0
        assert "Usage" in done.out


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be no display, as on a server."""
    monkeypatch.setattr(sys, "platform", "linux")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)


class TestOpen:
    @pytest.mark.skipif(not has_display(), reason="needs a display, such as Xvfb")
    def test_opens_files_with_the_dock_and_leaves_nothing_behind(
        self, place: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "notes.txt").write_text("no image")
        image = place / "images" / f"{STEMS[0]}.tif"
        process = subprocess.run(
            [sys.executable, "-c", LOOK, "open", tmp_path / "notes.txt", image],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        assert "Traceback" not in process.stderr
        seen = json.loads(process.stdout.splitlines()[-1])
        assert seen["layers"] == [STEMS[0]]
        assert seen["image"] == STEMS[0]
        assert seen["is_visible"]
        assert "notes.txt cannot be opened" in process.stdout + process.stderr
        assert not psutil.pid_exists(seen["engine"])

    def test_opens_the_sample_where_no_file_is_named(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = MagicMock()
        monkeypatch.setattr("napari_sparseseg.gui.launch.open_window", opened)
        monkeypatch.setattr("napari_sparseseg.cli.has_display", lambda: True)
        monkeypatch.setattr("napari.run", lambda: None)
        assert run("open").code == 0
        opened.assert_called_once_with([], sample="tissue_phantom")

    def test_names_a_file_that_is_missing(self, run: Run, tmp_path: Path) -> None:
        done = run("open", tmp_path / "none.tif")
        assert done.code == 2
        assert done.err == (
            f"error: {tmp_path / 'none.tif'} is not there; name files or folders of "
            "images.\n"
        )

    @pytest.mark.usefixtures("no_display")
    def test_says_that_there_is_no_display(self, run: Run) -> None:
        done = run("open")
        assert done.code == 2
        assert done.err.startswith("error: there is no display")
        assert done.err.count("\n") == 1

    def test_says_what_to_install(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("napari_sparseseg.display.find_spec", lambda name: None)
        done = run("open")
        assert done.code == 2
        assert "napari and pyqtgraph and qtpy" in done.err
        assert "pip install 'napari-sparseseg[gui]'" in done.err


class TestDemo:
    @pytest.fixture(autouse=True)
    def learns_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("napari_sparseseg.demo.iter_demo", lambda *_: iter(()))

    def test_opens_the_sample_where_there_is_a_display(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = MagicMock()
        monkeypatch.setattr("napari_sparseseg.cli.open_window", opened)
        monkeypatch.setattr("napari_sparseseg.cli.has_display", lambda: True)
        done = run("demo")
        assert (done.code, done.out) == (0, "")
        opened.assert_called_once_with()

    @pytest.mark.parametrize("option", ["--out", "--json"])
    def test_opens_no_window_where_results_are_asked_for(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("napari_sparseseg.cli.has_display", lambda: True)
        monkeypatch.delattr("napari_sparseseg.cli.open_window")
        done = run("demo", option, "results")
        assert done.code == 0
        assert "labels, pictures, models and scores are in" in done.out

    @pytest.mark.usefixtures("no_display")
    def test_says_why_there_are_no_pictures_of_the_window(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("shutil.which", lambda name: None)
        done = run("demo", "--out", tmp_path)
        assert done.code == 0
        assert "no pictures of the window: there is neither a display nor" in done.out
        assert "apt-get install xvfb" in done.out

        monkeypatch.setattr("napari_sparseseg.display.find_spec", lambda name: None)
        done = run("demo", "--out", tmp_path)
        assert done.code == 0
        assert "no pictures of the window: windows need napari" in done.out

    @pytest.mark.skipif(not which("Xvfb"), reason="needs Xvfb")
    @pytest.mark.usefixtures("no_display")
    def test_says_when_the_window_fails_and_leaves_no_display_behind(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("napari_sparseseg.demo.JOURNEY", "no_journey_at_all")
        before = psutil.Process().children(recursive=True)
        done = run("demo", "--out", tmp_path)
        assert done.code == 1
        assert "no pictures of the window were taken" in done.err
        assert "No module named no_journey_at_all" in done.err
        assert psutil.Process().children(recursive=True) == before


class TestExitCodes:
    def test_some_images_that_failed_give_1(
        self, run: Run, place: Path, model: Path, tmp_path: Path
    ) -> None:
        images = tmp_path / "images"
        images.mkdir()
        (images / "broken.tif").write_bytes(b"II*\0 no more")
        (images / f"{STEMS[0]}.tif").symlink_to(place / "images" / f"{STEMS[0]}.tif")
        out = tmp_path / "out"
        done = run("predict", model, images, "--out", out, "--json", "-")
        assert done.code == 1
        assert done.json["predicted"] == [STEMS[0]]
        (failure,) = done.json["failures"]
        assert failure.startswith("broken: ")
        assert failure in done.err
        assert sorted(path.suffix for path in out.iterdir()) == [".json", ".png"]

        (images / f"{STEMS[0]}.tif").unlink()
        done = run("predict", model, images, "--out", out, "--json", "-")
        assert done.code == 2
        assert done.json["predicted"] == []

    def test_some_label_maps_that_failed_give_1(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        labels = tmp_path / "labels"
        labels.mkdir()
        for stem in STEMS:
            (labels / f"{stem}.png").symlink_to(place / "strokes" / f"{stem}.png")
        Image.new("L", (3, 3), 1).save(labels / "lonely.png")
        model = tmp_path / "m.safetensors"
        done = run(
            *("train", place / "images", labels, "--model", model),
            *("--steps", 1, *QUICK, "--json", "-"),
        )
        assert done.code == 1
        (failure,) = done.json["failures"]
        assert failure.startswith("lonely: ")
        assert load_model(model).info.training["images"] == 2

    def test_an_image_without_label_map_is_no_failure(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        labels = tmp_path / "labels"
        labels.mkdir()
        (labels / f"{STEMS[0]}.png").symlink_to(place / "strokes" / f"{STEMS[0]}.png")
        done = run(
            *("train", place / "images", labels, "--steps", 1, *QUICK),
            *("--model", tmp_path / "m.safetensors"),
        )
        assert done.code == 0
        assert f"{STEMS[1]}: no label map, left out" in done.out

    def test_truth_without_prediction_gives_1(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        (tmp_path / f"{STEMS[1]}.png").symlink_to(place / "truth" / f"{STEMS[1]}.png")
        done = run("evaluate", tmp_path, place / "truth", "--json", "-")
        assert done.code == 1
        assert list(done.json["per_image"]) == [STEMS[1]]
        assert f"{STEMS[0]}: no prediction" in done.err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["segment"], "segment"),
            (["info"], "file"),
            (["info", "m.safetensors", "--colour"], "--colour"),
            (["train", "a", "b"], "--model"),
            (["train", "a", "b", "--model", "m", "--steps", "many"], "--steps"),
            (["train", "a", "b", "--model", "m", "--window", "40"], "--window"),
        ],
    )
    def test_wrong_usage_gives_2(
        self, run: Run, arguments: list[str], words: str
    ) -> None:
        done = run(*arguments)
        assert done.code == 2
        assert words in done.err.lower()
        assert "Traceback" not in done.err

    def test_images_and_annotations_are_replaced_only_when_asked(
        self, run: Run, place: Path, model: Path, tmp_path: Path
    ) -> None:
        annotation = tmp_path / f"{STEMS[0]}.png"
        annotation.write_bytes((place / "strokes" / annotation.name).read_bytes())
        before = annotation.read_bytes()
        done = run("predict", model, place / "images", "--out", tmp_path)
        assert done.code == 2
        assert f"{annotation} is no prediction" in done.err
        assert [path.name for path in tmp_path.iterdir()] == [annotation.name]
        assert annotation.read_bytes() == before
        arguments = ("predict", model, place / "images", "--out", tmp_path)
        assert run(*arguments, "--overwrite").code == 0
        assert annotation.read_bytes() != before
        assert run(*arguments).code == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
class TestInterrupting:
    # SIGTERM is sent to commands by the tests of several processes.
    def test_a_training_leaves_what_it_takes_to_go_on(
        self, run: Run, place: Path, tmp_path: Path
    ) -> None:
        model = tmp_path / "model.safetensors"
        arguments = (
            *("train", place / "images", place / "strokes", "--model", model),
            *("--scale", 0.25, "--preset", "light"),
        )
        with start(*arguments, "--steps", 100_000) as process:
            assert process.stdout is not None
            assert "no class table" in process.stdout.readline()
            line = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            try:
                out, err = process.communicate(timeout=120)
            finally:
                process.kill()
        assert line.startswith("head fitted at scale 0.25")
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert "--resume" in out
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "model.checkpoint.safetensors",
            "model.safetensors",
        ]
        steps = load_model(model).info.training["steps"]
        assert f"stopped after {steps} steps" in out

        done = run(*arguments, "--steps", 2, "--resume")
        assert done.code == 0, done.err
        assert load_model(model).info.training["steps"] == steps + 2

    def test_a_training_that_has_learned_nothing_writes_no_model(
        self,
        run: Run,
        place: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def interrupt(*_arguments: object) -> None:
            raise KeyboardInterrupt

        fit = "napari_sparseseg.learning.head_training.HeadTraining.fit_in_parts"
        monkeypatch.setattr(fit, interrupt)
        model = tmp_path / "model.safetensors"
        arguments = (
            *("train", place / "images", place / "strokes", "--model", model),
            *("--scale", 0.25, "--preset", "light", "--steps", 2),
        )
        done = run(*arguments)
        assert done.code == 130
        assert "before anything was learned" in done.out
        assert not model.exists()
        monkeypatch.undo()
        assert run(*arguments, "--resume", "--head-start", "off").code == 0
        assert load_model(model).info.training["steps"] == 2


class TestConverting:
    """Label maps and annotations, from file to file."""

    CLASSES = ClassTable().add("outside", (10, 20, 30)).add("gland", (255, 0, 0))

    @pytest.fixture
    def labels(self, tmp_path: Path) -> Path:
        data = np.zeros((6, 8), np.uint8)
        data[1:4, 1:7] = 1
        data[2, 3:5] = 2
        image = np.zeros((6, 8), np.uint8)
        tifffile.imwrite(
            tmp_path / "image.tif",
            image,
            resolution=(20000, 20000),
            resolutionunit="CENTIMETER",
        )
        export_labels(data, tmp_path / "a.png", self.CLASSES)
        return tmp_path / "a.png"

    def test_labels_become_outlines_and_come_back(self, run: Run, labels: Path) -> None:
        image, out = labels.with_name("image.tif"), labels.with_name("ä b.geojson")
        done = run("export", labels, "--out", out, "--image", image, "--json", "-")
        assert done.code == 0
        assert done.json["paths"] == [str(out)]
        sizes = {each["name"]: each for each in done.json["classes"]}
        assert sizes["gland"]["pixels"] == 2
        assert sizes["gland"]["area_um2"] == pytest.approx(2 * 0.5**2)
        assert f"saved: {out}" in done.err
        back = labels.with_name("back.png")
        table = labels.with_name("a.classes.json")
        done = run("import", out, "--image", image, "--out", back, "--classes", table)
        assert done.code == 0
        assert "gland" in done.out
        np.testing.assert_array_equal(imread(back), imread(labels))
        table = labels.with_name("back.classes.json")
        assert read_class_table(table) == self.CLASSES
        done = run("import", out, "--image", image, "--out", back, "--overwrite")
        assert "new in the class table: gland, outside." in done.out

    def test_options_reach_the_formats(self, run: Run, labels: Path) -> None:
        colors, merged = labels.with_name("c.png"), labels.with_name("m.geojson")
        assert run("export", labels, "--out", colors, "--colors").code == 0
        assert imread(colors)[2, 3].tolist() == [255, 0, 0, 255]
        done = run(
            *("export", labels, "--out", merged, "--by-class", "--simplify", 0.5)
        )
        assert done.code == 0
        assert len(json.loads(merged.read_text())["features"]) == 2

    def test_values_can_be_named(self, run: Run, labels: Path) -> None:
        table = labels.with_name("t.json")
        write_class_table(table, self.CLASSES)
        shifted, out = labels.with_name("s.tif"), labels.with_name("o.tif")
        data = np.zeros((6, 8), np.uint8)
        data[2:, 3] = 1
        tifffile.imwrite(shifted, data)
        image = labels.with_name("image.tif")
        done = run(
            *("import", shifted, "--image", image, "--out", out),
            *("--classes", table, "--values", "0=1,1=2", "--unknown", "refuse"),
        )
        assert done.code == 0
        np.testing.assert_array_equal(imread(out), data + 1)

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--values", "0:1"), "the values are '0:1'; expected"),
            (("--out", "a.png"), "exists already; give another name, or --overwrite"),
            (("--out", "b.txt"), "cannot be exported as b.txt"),
            (("--out", "b.dcm"), "belongs to a DICOM series"),
            (("--simplify", -1), "outlines may be moved by -1.0 pixels"),
            (("--classes", "no.json"), "no.json cannot be read"),
        ],
    )
    def test_bad_input_gives_2_and_a_sentence(
        self,
        run: Run,
        labels: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: tuple[object, ...],
        sentence: str,
    ) -> None:
        monkeypatch.chdir(labels.parent)
        before = sorted(labels.parent.iterdir())
        done = run("export", labels, "--out", "b.png", *arguments)
        assert done.code == 2
        assert sentence in done.err
        assert sorted(labels.parent.iterdir()) == before
