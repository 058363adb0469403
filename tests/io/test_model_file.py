"""Models and checkpoints come back as they were, and nothing else is let in."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from PIL import Image

from napari_sparseseg.annotations.classes import ClassTable, LabelClass
from napari_sparseseg.api import write_checkpoint
from napari_sparseseg.errors import ModelFileError, OutputError
from napari_sparseseg.folders import trainer_of_folders
from napari_sparseseg.inputs.normalisation import Normalisation, window
from napari_sparseseg.io.model_file import (
    VERSION,
    is_own_file,
    load_checkpoint,
    load_model,
    save_checkpoint,
    save_model,
)
from napari_sparseseg.networks.model import (
    ModelInfo,
    Part,
    SegmentationModel,
    Shown,
    build_part,
)
from napari_sparseseg.networks.registry import NetworkSpec
from napari_sparseseg.prediction.predictor import PredictOptions, predict_image
from napari_sparseseg.samples import tissue_phantom

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from napari_sparseseg.learning.trainer import Trainer
    from napari_sparseseg.networks.network_names import HeadFeatures

    Content = dict[str, Any]
    Load = Callable[[Path], object]

CLASSES = ClassTable(
    (
        LabelClass(2, "background", (0, 0, 0)),
        LabelClass(3, "tumour, living", (200, 0, 10), key="t"),
        LabelClass(41000, "Drüse", (0, 255, 7)),
    ),
    retired=frozenset({1, 7}),
)
TRAINING: dict[str, Any] = {
    "recipe": "live",
    "loss": "l1l2",
    "l1_weight": 1.0,
    "l2_weight": 0.5,
    "smoothness": 0.25,
    "encoder_weights": "file",
    "freeze_encoder": True,
    "weight_decay": 0.01,
    "feature_cache": True,
    "balancing": "instance",
    "seed": 11,
    "steps": 250,
    "processes": 2,
    "images": 3,
    "pixels": {"2": 800, "3": 90, "41000": 1},
    "strokes": {"2": 12, "3": 5, "41000": 1},
    "held_out_dice": {"head": {"2": 0.5}, "network": {"2": 1.0, "3": 0.25}},
    "reason": "the quick start predicts; nothing can be compared",
}


def make_model(**changes: Any) -> SegmentationModel:
    """Make a small model with drawn weights, head and network."""
    values: dict[str, Any] = {
        "classes": CLASSES,
        "in_channels": 3,
        "normalisation": Normalisation("percentiles", -12.5, 3021.25),
        "scales": {"head": 0.5, "network": 0.25},
        "shown": "network",
        "network": NetworkSpec("unet", {"filters": 2, "levels": 2, "norm": "batch"}),
        "um_per_px": 0.499,
        "training": TRAINING,
    }
    info = ModelInfo(**(values | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        names: tuple[Part, ...] = get_args(Part)
        parts = {name: build_part(name, info) for name in names if name in info.scales}
    return SegmentationModel(info, parts)


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return make_model()


@pytest.fixture
def model_path(model: SegmentationModel, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    return path


STATE: dict[str, Any] = {"steps": 4, "networks": [{"scale": 0.5}], "recipe": "live"}
TENSORS = {"generator": torch.arange(5)}


@pytest.fixture
def checkpoint_path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, TENSORS, STATE)
    return path


def load_state(path: Path) -> object:
    return load_checkpoint(path, STATE.keys())


def read_header(path: Path) -> Content:
    """Read the header of a safetensors file by its specification alone."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header: Content = json.loads(content[8 : 8 + length])
    return header


def read_entry(path: Path) -> Content:
    entry: Content = json.loads(read_header(path)["__metadata__"]["napari-sparseseg"])
    return entry


def rewrite(
    path: Path, entry: object, tensors: dict[str, Tensor] | None = None
) -> None:
    """Write the file again with other metadata, other weights, or both."""
    if tensors is None:
        tensors = safetensors.torch.load_file(path)
    text = entry if isinstance(entry, str) else json.dumps(entry)
    safetensors.torch.save_file(tensors, path, {"napari-sparseseg": text})


def message_of(load: Load, path: Path) -> str:
    """Return the sentence by which *path* is refused."""
    with pytest.raises(ModelFileError) as refusal:
        load(path)
    message = str(refusal.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


class TestModel:
    @pytest.mark.parametrize("part", get_args(Shown))
    def test_predicts_the_same_after_a_round_trip(
        self, model: SegmentationModel, model_path: Path, part: Shown
    ) -> None:
        image = np.random.default_rng(0).normal(1500, 900, (40, 52, 3))
        options = PredictOptions(probabilities=True)
        before = predict_image(model.showing(part), image, options)
        after = predict_image(load_model(model_path).showing(part), image, options)
        assert before[1] is not None and after[1] is not None
        assert (before[1].std(axis=(1, 2)) > 0).all()
        np.testing.assert_array_equal(before[0], after[0])
        np.testing.assert_array_equal(before[1], after[1])

    def test_of_deeplab_predicts_the_same_after_a_round_trip(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.safetensors"
        deeplab = make_model(
            network=NetworkSpec("deeplabv3", {"backbone": "resnet18"}),
            in_channels=1,
            scales={"network": 1.0},
        )
        save_model(deeplab, path)
        image = np.random.default_rng(0).normal(1500, 900, (20, 28))
        options = PredictOptions(probabilities=True)
        before = predict_image(deeplab, image, options)[1]
        after = predict_image(load_model(path), image, options)[1]
        assert before is not None and after is not None
        assert before.std() > 0
        np.testing.assert_array_equal(before, after)

    @pytest.mark.parametrize("features", ["resnet18", "vgg16"])
    def test_of_a_head_on_an_encoder_predicts_the_same_after_a_round_trip(
        self, tmp_path: Path, features: HeadFeatures
    ) -> None:
        path = tmp_path / "model.safetensors"
        model = make_model(head_features=features, scales={"head": 1.0}, shown="head")
        save_model(model, path)
        image = np.random.default_rng(0).normal(1500, 900, (20, 28, 3))
        options = PredictOptions(probabilities=True)
        before = predict_image(model, image, options)[1]
        loaded = load_model(path)
        after = predict_image(loaded, image, options)[1]
        assert before is not None and after is not None
        assert before.std() > 0
        np.testing.assert_array_equal(before, after)
        assert loaded.info.head_features == features

    def test_of_before_there_were_some_keys_is_read(
        self, model: SegmentationModel, model_path: Path
    ) -> None:
        entry = read_entry(model_path)
        del entry["content"]["head_features"]
        added = (
            "smoothness",
            "freeze_encoder",
            "feature_cache",
            "reason",
            "processes",
        )
        for key in added:
            del entry["content"]["training"][key]
        rewrite(model_path, entry)
        loaded = load_model(model_path)
        assert loaded.info.head_features == "fixed"
        assert loaded.info.training["seed"] == 11
        image = np.random.default_rng(0).normal(1500, 900, (40, 52, 3))
        before, after = (
            predict_image(each.showing("both"), image)[0] for each in (model, loaded)
        )
        np.testing.assert_array_equal(before, after)

    def test_knows_the_same_after_a_round_trip(
        self, model: SegmentationModel, model_path: Path
    ) -> None:
        info = load_model(model_path).info
        assert info.classes == CLASSES
        assert info.normalisation == model.info.normalisation
        for name in ("in_channels", "scales", "shown", "network", "um_per_px"):
            assert getattr(info, name) == getattr(model.info, name)
        assert {key: info.training[key] for key in TRAINING} == TRAINING

    @pytest.mark.parametrize(
        "changes",
        [
            {"um_per_px": None, "shown": "both"},
            {"normalisation": window(40, 400), "in_channels": 1},
            {"scales": {"network": 1.0}},
            {"scales": {"head": 2 / 3}, "shown": "head"},
            {"normalisation": Normalisation("range", 0, 255)},
        ],
    )
    def test_of_any_kind_comes_back(
        self, tmp_path: Path, changes: dict[str, Any]
    ) -> None:
        path = tmp_path / "model.safetensors"
        save_model(make_model(**changes), path)
        loaded = load_model(path)
        assert set(loaded.parts) == set(loaded.info.scales)
        for name, value in changes.items():
            assert getattr(loaded.info, name) == value

    def test_metadata_are_complete(self, model_path: Path) -> None:
        entry = read_entry(model_path)
        assert (entry["kind"], entry["version"]) == ("model", VERSION)
        content = entry["content"]
        classes = content["classes"]["classes"]
        assert [each["value"] for each in classes] == [2, 3, 41000]
        assert [each["name"] for each in classes] == list(CLASSES.names)
        assert classes[1]["color"] == [200, 0, 10]
        assert content["classes"]["retired"] == [1, 7]
        assert content["in_channels"] == 3
        assert content["um_per_px"] == 0.499
        assert content["scales"] == {"head": 0.5, "network": 0.25}
        assert content["normalisation"] == {
            "kind": "percentiles",
            "low": -12.5,
            "high": 3021.25,
        }
        assert content["training"] == TRAINING
        assert content["versions"].keys() == {
            "napari-sparseseg",
            "torch",
            "numpy",
            "python",
        }
        assert content["versions"]["torch"] == torch.__version__

    def test_metadata_are_documented(self, model_path: Path) -> None:
        text = Path(__file__).parents[2] / "docs" / "model_file.md"
        if not text.exists():
            pytest.skip("the documents are not part of this copy")
        _, _, table = text.read_text(encoding="utf-8").partition(
            "## Content of a model"
        )
        documented = re.findall(r"^\| `([a-z0-9_.]+)` \|", table, re.MULTILINE)
        content = read_entry(model_path)["content"]
        inner = [
            f"{name}.{key}"
            for name in ("normalisation", "network", "training")
            for key in content[name]
        ]
        assert sorted(documented) == sorted([*content, *inner])

    def test_is_read_by_plain_safetensors(
        self, model: SegmentationModel, model_path: Path
    ) -> None:
        arrays = safetensors.numpy.load_file(model_path)
        weights = model.parts["head"].state_dict()["head.layers.0.weight"]
        np.testing.assert_array_equal(
            arrays["head.head.layers.0.weight"], weights.numpy()
        )
        assert {name.partition(".")[0] for name in arrays} == {"head", "network"}

    def test_saved_again_keeps_the_versions_that_trained_it(
        self, model_path: Path, tmp_path: Path
    ) -> None:
        entry = read_entry(model_path)
        entry["content"]["versions"] = {"torch": "2.4.0", "python": "3.11.0"}
        rewrite(model_path, entry)
        again = tmp_path / "again.safetensors"
        save_model(load_model(model_path), again)
        assert read_entry(again) == entry

    @pytest.mark.parametrize("start", [b"\x80", b"\x80\x02", b"\x80\x04"])
    def test_is_read_though_its_first_bytes_are_those_of_a_pickle(
        self, model_path: Path, start: bytes
    ) -> None:
        entry = read_entry(model_path)
        (length,) = struct.unpack("<Q", model_path.read_bytes()[:8])
        wanted = int.from_bytes(start, "little")
        while wanted < length:
            wanted += 256 ** len(start)
        recipe = "x" * (wanted - length + len(TRAINING["recipe"]))
        entry["content"]["training"]["recipe"] = recipe
        rewrite(model_path, entry)
        assert model_path.read_bytes().startswith(start)
        assert load_model(model_path).info.training["recipe"] == recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Path]:
    """Train on files whose names and folders are known; leave model and checkpoint."""
    folder = tmp_path_factory.mktemp("Erika_Mustermann")
    sample = tissue_phantom(0, (128, 128))
    for name, pixels in (("scans", sample.image), ("drawings", sample.labels)):
        (folder / name).mkdir()
        Image.fromarray(pixels).save(folder / name / "born_1970_case_4711.png")
    trainer, _ = trainer_of_folders(
        folder / "scans",
        folder / "drawings",
        None,
        None,
        None,
        {"scale": 0.25, "preset": "light", "head_start": False},
    )
    for _ in trainer.run(2):
        pass
    save_model(trainer.model(), folder / "model.safetensors")
    write_checkpoint(trainer, folder / "checkpoint.safetensors")
    return trainer, folder


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.safetensors"])
@pytest.mark.parametrize(
    "word", ["Mustermann", "born_1970", "case_4711", "scans", "drawings", ".png"]
)
def test_names_of_files_and_folders_are_not_kept(
    trained: tuple[Trainer, Path], name: str, word: str
) -> None:
    _, folder = trained
    assert any(word in str(path) for path in folder.rglob("*.png"))
    assert word.encode() not in (folder / name).read_bytes()


class TestCheckpoint:
    def test_comes_back(self, checkpoint_path: Path) -> None:
        tensors, content = load_checkpoint(checkpoint_path, STATE.keys())
        assert content == STATE
        assert tensors.keys() == TENSORS.keys()
        assert torch.equal(tensors["generator"], TENSORS["generator"])

    def test_of_a_training_comes_back(self, trained: tuple[Trainer, Path]) -> None:
        trainer, folder = trained
        expected, values = trainer.state()
        tensors, content = load_checkpoint(
            folder / "checkpoint.safetensors",
            {
                *values,
                *trainer.options.loss_setting,
                *trainer.options.network_setting,
                "recipe",
                "head_features",
                "normalisation",
            },
        )
        assert {key: content[key] for key in values} == json.loads(json.dumps(values))
        assert tensors.keys() == expected.keys()
        for key, value in tensors.items():
            assert torch.equal(value, expected[key])


def no_json(entry: Content) -> str:
    return json.dumps(entry)[:-5]


def changed(**changes: object) -> Callable[[Content], Content]:
    """Return a function that changes values of the content, inner ones with a dot."""

    def change(entry: Content) -> Content:
        for key, value in changes.items():
            *outer, last = key.split("__")
            place = entry["content"]
            for name in outer:
                place = place[name]
            if value is ...:
                del place[last]
            else:
                place[last] = value
        return entry

    return change


def changed_entry(**changes: object) -> Callable[[Content], Content]:
    return lambda entry: {k: v for k, v in (entry | changes).items() if v is not ...}


class TestRefusedMetadata:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (no_json, ["no JSON", "damaged"]),
            (lambda entry: "[" * 100_000, ["no JSON"]),
            (lambda entry: [1], ["missing keys content, kind, version"]),
            (changed_entry(version=VERSION + 1), [f"version {VERSION + 1}", "update"]),
            (
                changed_entry(version="1"),
                ["version '1'", f"expected version {VERSION}"],
            ),
            (changed_entry(version=0), ["version 0", f"expected version {VERSION}"]),
            (changed_entry(version=...), ["missing keys version"]),
            (changed_entry(author="x"), ["unknown keys author"]),
            (changed_entry(content=[]), ["type list"]),
            (changed_entry(kind="session"), ["is a session", "model is needed"]),
            (changed(colour="red"), ["unknown keys colour"]),
            (changed(classes=...), ["missing keys classes"]),
            (changed(head_features="vgg19"), ["head_features cannot be 'vgg19'"]),
            (changed(versions=..., x=1), ["unknown keys x", "missing keys versions"]),
            (changed(normalisation__gamma=2), ["unknown keys normalisation.gamma"]),
            (changed(normalisation=[0, 1]), ["missing keys normalisation.high"]),
            (changed(network__name=...), ["missing keys network.name"]),
            (changed(training__seed=...), ["missing keys training.seed"]),
            (changed(training__user="x"), ["unknown keys training.user"]),
            (changed(training__steps="many"), ["training.steps", "'many'"]),
            (changed(training__pixels=[1]), ["training.pixels", "[1]"]),
            (changed(in_channels=0), ["in_channels", "0"]),
            (changed(in_channels=2.5), ["in_channels", "2.5"]),
            (changed(normalisation__kind="log"), ["normalisation.kind", "'log'"]),
            (changed(normalisation__low=None), ["normalisation.low", "None"]),
            (
                changed(normalisation__low=9999),
                ["normalisation.low", "[9999, 3021.25]"],
            ),
            (changed(normalisation__high=float("nan")), ["normalisation.low", "nan"]),
            (changed(scales={"network": 0.25}), ["scales"]),
            (changed(scales=0.25), ["scales", "0.25"]),
            (changed(scales__head=-0.5), ["scales.head", "-0.5"]),
            (changed(shown="cloud"), ["shown", "'cloud'"]),
            (changed(um_per_px=0), ["um_per_px", "0"]),
            (changed(um_per_px=10**400), ["int too large"]),
            (changed(um_per_px="0.5"), ["um_per_px", "'0.5'"]),
            (changed(versions=3), ["versions", "3"]),
            (changed(network__options=[3]), ["network.options", "[3]"]),
            (changed(network__name="vit"), ["'vit'", "unet"]),
            (changed(network__options__depth=3), ["depth"]),
            (changed(network__options__filters=-2), ["-2"]),
            (changed(network__options__filters=10**12), ["can be built", "memory"]),
            (changed(classes__classes=[]), ["no classes"]),
            (changed(classes__unlabelled=255), ["255", "always 0"]),
            (changed(classes__font="Arial"), ['"font"']),
        ],
    )
    def test_of_a_model_are_named(
        self,
        model_path: Path,
        change: Callable[[Content], object],
        words: list[str],
    ) -> None:
        rewrite(model_path, change(read_entry(model_path)))
        message = message_of(load_model, model_path)
        for word in words:
            assert word in message

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (changed(colour="red"), ["unknown keys colour"]),
            (changed(networks=...), ["missing keys networks"]),
            (changed_entry(version=VERSION + 1), [f"version {VERSION + 1}", "update"]),
            (no_json, ["no JSON"]),
        ],
    )
    def test_of_a_checkpoint_are_named(
        self,
        checkpoint_path: Path,
        change: Callable[[Content], object],
        words: list[str],
    ) -> None:
        rewrite(checkpoint_path, change(read_entry(checkpoint_path)))
        message = message_of(load_state, checkpoint_path)
        for word in words:
            assert word in message

    def test_of_another_kind_are_named(
        self, model_path: Path, checkpoint_path: Path
    ) -> None:
        assert "is a checkpoint" in message_of(load_model, checkpoint_path)
        assert "is a model" in message_of(load_state, model_path)


WEIGHTS = "network.network.classifier.weight"


class TestRefusedWeights:
    def test_of_another_shape(self, model_path: Path) -> None:
        tensors = safetensors.torch.load_file(model_path)
        tensors[WEIGHTS] = torch.zeros(9, 2, 1, 1)
        rewrite(model_path, read_entry(model_path), tensors)
        message = message_of(load_model, model_path)
        for word in (WEIGHTS, "(9, 2, 1, 1)", "asks for (3, "):
            assert word in message

    def test_that_are_missing(self, model_path: Path) -> None:
        tensors = safetensors.torch.load_file(model_path)
        del tensors[WEIGHTS]
        rewrite(model_path, read_entry(model_path), tensors)
        assert f"missing keys {WEIGHTS}" in message_of(load_model, model_path)

    @pytest.mark.parametrize("name", ["head.extra", "third.weight", "weight"])
    def test_that_are_not_known(self, model_path: Path, name: str) -> None:
        tensors = safetensors.torch.load_file(model_path)
        tensors[name] = torch.zeros(1)
        rewrite(model_path, read_entry(model_path), tensors)
        assert f"unknown keys {name}" in message_of(load_model, model_path)


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


LOADS = pytest.mark.parametrize("load", [load_model, load_state])


@LOADS
class TestRefusedFiles:
    @pytest.mark.parametrize("way", ["zip", "legacy", *range(6)])
    def test_nothing_is_unpickled(
        self, load: Load, tmp_path: Path, way: str | int
    ) -> None:
        path, marker = tmp_path / "m.safetensors", tmp_path / "ran"
        if isinstance(way, int):
            path.write_bytes(pickle.dumps(Marker(marker), protocol=way))
        else:
            torch.save(
                {"weights": torch.zeros(3), "code": Marker(marker)},
                path,
                _use_new_zipfile_serialization=way == "zip",
            )
        message = message_of(load, path)
        assert not marker.exists()
        if way not in (0, 1):  # these begin like any text
            assert "pickle" in message
        pickle.loads(pickle.dumps(Marker(marker)))
        assert marker.exists()

    def test_a_zip_file(self, load: Load, tmp_path: Path) -> None:
        path = tmp_path / "m.safetensors"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights.txt", "1 2 3")
        assert "zip" in message_of(load, path)

    def test_an_empty_file(self, load: Load, tmp_path: Path) -> None:
        path = tmp_path / "m.safetensors"
        path.touch()
        assert "cannot be read" in message_of(load, path)

    @pytest.mark.parametrize("content", [b"x", b"\x80", b"PK", b"\0" * 8, b"{}" * 50])
    def test_other_bytes(self, load: Load, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "m.safetensors"
        path.write_bytes(content)
        message_of(load, path)

    def test_an_image(self, load: Load, tmp_path: Path) -> None:
        path = tmp_path / "m.safetensors"
        Image.new("L", (9, 9)).save(path, format="PNG")
        assert "not a .safetensors file" in message_of(load, path)

    def test_a_missing_file(self, load: Load, tmp_path: Path) -> None:
        message = message_of(load, tmp_path / "m.safetensors")
        assert "No such file" in message

    def test_a_folder(self, load: Load, tmp_path: Path) -> None:
        assert "directory" in message_of(load, tmp_path)

    @pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
    def test_weights_of_another_program(
        self, load: Load, tmp_path: Path, metadata: dict[str, str] | None
    ) -> None:
        path = tmp_path / "m.safetensors"
        safetensors.torch.save_file({"conv.weight": torch.zeros(3)}, path, metadata)
        assert "another program" in message_of(load, path)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(model_path: Path, share: float) -> None:
    content = model_path.read_bytes()
    model_path.write_bytes(content[: max(1, int(len(content) * share))])
    assert "damaged" in message_of(load_model, model_path)


class TestWriting:
    @pytest.fixture
    def folder(self, model_path: Path) -> Path:
        """Return a folder that holds one model, of which the content is known."""
        return model_path.parent

    def test_a_full_disk_leaves_the_old_model(
        self, folder: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = model_path.read_bytes()

        def full(_path: Path, _content: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="the disk is full"):
            save_model(make_model(um_per_px=9.0), model_path)
        assert model_path.read_bytes() == old
        assert [file.name for file in folder.iterdir()] == [model_path.name]

    def test_a_failing_rename_leaves_the_old_model(
        self, folder: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = model_path.read_bytes()

        def refuse(_source: Path, _target: Path) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(OutputError, match="read-only"):
            save_model(make_model(um_per_px=9.0), model_path)
        assert model_path.read_bytes() == old
        assert [file.name for file in folder.iterdir()] == [model_path.name]

    def test_a_limit_to_the_size_of_files_leaves_the_old_model(
        self, folder: Path, model_path: Path
    ) -> None:
        resource = pytest.importorskip("resource")
        old = model_path.read_bytes()
        changed_model = make_model(um_per_px=9.0)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, limits[1]))
        try:
            with pytest.raises(OutputError, match="larger than allowed"):
                save_model(changed_model, model_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert model_path.read_bytes() == old
        assert [file.name for file in folder.iterdir()] == [model_path.name]

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
    @pytest.mark.parametrize(
        ("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)]
    )
    def test_the_umask_decides_who_may_read(
        self, tmp_path: Path, model: SegmentationModel, umask: int, mode: int
    ) -> None:
        before = os.umask(umask)
        try:
            save_model(model, tmp_path / "m.safetensors")
            save_checkpoint(tmp_path / "c.safetensors", TENSORS, STATE)
        finally:
            os.umask(before)
        for name in ("m", "c"):
            file = tmp_path / f"{name}.safetensors"
            assert file.stat().st_mode & 0o777 == mode


class TestIsOwnFile:
    def test_knows_models_and_checkpoints_of_any_version(
        self, model_path: Path, checkpoint_path: Path
    ) -> None:
        rewrite(model_path, read_entry(model_path) | {"version": VERSION + 1})
        assert is_own_file(model_path)
        assert is_own_file(checkpoint_path)

    def test_knows_nothing_else(self, tmp_path: Path) -> None:
        other = tmp_path / "other.safetensors"
        safetensors.torch.save_file({"w": torch.zeros(1)}, other)
        buffer = io.BytesIO()
        Image.new("L", (9, 9)).save(buffer, format="PNG")
        picture = tmp_path / "picture.safetensors"
        picture.write_bytes(buffer.getvalue())
        for path in (other, picture, tmp_path, tmp_path / "missing"):
            assert not is_own_file(path)
