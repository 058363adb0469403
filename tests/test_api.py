"""Learning, going on and predicting with arrays, from end to end."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_sparseseg import api
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import (
    ImageError,
    LabelError,
    ModelFileError,
    OptionError,
)
from napari_sparseseg.io.model_file import load_checkpoint, save_checkpoint
from napari_sparseseg.learning.events import HeadFitted, PartDone, StepDone
from napari_sparseseg.learning.head_fitting import HeadOptions
from napari_sparseseg.learning.network_training import first_network
from napari_sparseseg.learning.options import RECIPES, TrainingOptions
from napari_sparseseg.networks import encoders
from napari_sparseseg.networks.encoders import build_encoder
from napari_sparseseg.networks.registry import PRESETS, build_network
from napari_sparseseg.samples import Sample, tissue_phantom

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sparseseg.learning.augmentation import AugmentationOptions
    from napari_sparseseg.learning.trainer import Trainer
    from napari_sparseseg.networks.model import SegmentationModel

    Array = NDArray[Any]

#: A training that is over in a moment.
QUICK: dict[str, Any] = {
    "scale": 0.25,
    "preset": "light",
    "head_start": False,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def sample() -> Sample:
    return tissue_phantom(0, (128, 128))


@pytest.fixture(scope="module")
def other() -> Sample:
    return tissue_phantom(1, (128, 144))


@pytest.fixture(scope="module")
def model(sample: Sample) -> SegmentationModel:
    return api.train(sample.image, sample.labels, steps=2, **QUICK)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let heads be fitted and epochs end within a few steps."""
    head = HeadOptions(steps=20, batch=256)
    monkeypatch.setattr(api, "TrainingOptions", partial(TrainingOptions, head=head))
    for name, recipe in RECIPES.items():
        quick = dataclasses.replace(recipe, batch=2, patch_px=32, epoch=3, warm_up=4)
        monkeypatch.setitem(RECIPES, name, quick)


def labels_of(model: SegmentationModel, image: Array, **options: Any) -> Array:
    return cast("Array", api.predict(model, image, **options))


def weights_of(model: SegmentationModel) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value
        for name, part in model.parts.items()
        for key, value in part.state_dict().items()
    }


def same_weights(first: SegmentationModel, second: SegmentationModel) -> bool:
    one, two = weights_of(first), weights_of(second)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def grey(sample: Sample) -> NDArray[np.uint8]:
    """Return the image in 8-bit grey."""
    grey_image: NDArray[np.uint8] = sample.image.mean(axis=2).astype(np.uint8)
    return grey_image


def truth_of(sample: Sample) -> Array:
    assert sample.truth is not None
    return sample.truth


class TestImages:
    def test_come_alone_as_a_list_or_by_name(
        self, sample: Sample, model: SegmentationModel
    ) -> None:
        in_list = api.train([sample.image], [sample.labels], steps=2, **QUICK)
        by_name = api.train({"a": sample.image}, {"a": sample.labels}, steps=2, **QUICK)
        assert same_weights(model, in_list)
        assert same_weights(model, by_name)

    def test_of_several_sizes_are_learned_together(
        self, sample: Sample, other: Sample
    ) -> None:
        both = api.train(
            {"a": sample.image, "b": other.image},
            {"b": other.labels, "a": sample.labels},
            steps=2,
            **QUICK,
        )
        assert both.info.training["images"] == 2
        annotated = sum(int((each.labels == 1).sum()) for each in (sample, other))
        assert both.info.training["pixels"]["1"] == annotated

    def test_and_label_maps_need_each_other(
        self, sample: Sample, other: Sample
    ) -> None:
        with pytest.raises(LabelError, match=r"2 image\(s\) and 1 label map\(s\)"):
            api.make_trainer([sample.image, other.image], [sample.labels])
        with pytest.raises(LabelError, match="of the same name") as error:
            api.make_trainer({"a": sample.image}, {"b": sample.labels})
        assert error.value.values == {"images": ["a"], "labels": ["b"]}

    def test_must_be_there(self) -> None:
        with pytest.raises(ImageError, match="no image is given"):
            api.make_trainer([], [])

    @pytest.mark.parametrize("n_channels", [1, 2, 4])
    def test_keep_all_their_channels(self, sample: Sample, n_channels: int) -> None:
        channels = [sample.image[..., i % 3] for i in range(n_channels)]
        image = np.stack(channels, axis=2)
        trained = api.train(image, sample.labels, steps=2, **QUICK)
        assert trained.info.in_channels == n_channels
        assert labels_of(trained, image).shape == sample.labels.shape
        words = rf"3 channel\(s\).* with {n_channels}"
        with pytest.raises(ImageError, match=words) as error:
            api.predict(trained, sample.image)
        assert error.value.values == {"given": 3, "expected": n_channels}

    def test_of_one_kind_only(self, sample: Sample) -> None:
        with pytest.raises(ImageError, match="image 2 has 1 channel"):
            api.make_trainer([sample.image, grey(sample)], [sample.labels] * 2)

    @pytest.mark.parametrize(
        ("dtype", "factor", "offset"),
        [
            (np.uint16, 200, 1000),
            (np.float32, 1 / 255, 0),
            (np.float64, 1e-6, 0),
            (np.int32, 3, -5000),
            (">u2", 256, 0),
        ],
    )
    def test_of_any_number_type_are_learned_alike(
        self, sample: Sample, dtype: str, factor: float, offset: float
    ) -> None:
        bytes_ = grey(sample)
        numbers = (bytes_ * np.float64(factor) + offset).astype(dtype)
        of_bytes = api.train(bytes_, sample.labels, steps=4, **QUICK)
        of_numbers = api.train(numbers, sample.labels, steps=4, **QUICK)
        expected, found = labels_of(of_bytes, bytes_), labels_of(of_numbers, numbers)
        assert len(np.unique(expected)) > 1
        # Rounding alone makes the difference.
        assert (found == expected).mean() > 0.95


class TestClasses:
    @pytest.mark.parametrize(
        ("values", "dtype"),
        [([2, 7, 100, 255], np.uint8), ([5, 300, 301, 65535], np.uint16)],
    )
    def test_keep_their_values(
        self, sample: Sample, values: list[int], dtype: type[np.generic]
    ) -> None:
        lookup = np.array([0, *values], np.int64)
        trained = api.train(sample.image, lookup[sample.labels], steps=4, **QUICK)
        assert trained.info.classes.values == tuple(values)
        assert trained.info.classes.names == tuple(f"class {v}" for v in values)
        result = api.predict(trained, sample.image, probabilities=True)
        assert isinstance(result, tuple)
        labels, maps = result
        assert labels.dtype == dtype
        assert maps.shape == (4, 128, 128)
        np.testing.assert_allclose(maps.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(labels, np.array(values)[maps.argmax(axis=0)])

    def test_of_a_table_may_be_without_strokes(self, sample: Sample) -> None:
        table = sample.classes.add("necrosis")
        trained = api.train(
            sample.image, sample.labels, steps=1, classes=table, **QUICK
        )
        assert trained.info.classes == table
        assert table.by_name("necrosis").value not in trained.info.training["pixels"]

    def test_of_a_table_must_have_all_values(self, sample: Sample) -> None:
        for table in (sample.classes.removed(3), ClassTable()):
            with pytest.raises(LabelError, match="not in the class table"):
                api.make_trainer(sample.image, sample.labels, classes=table)


@pytest.mark.usefixtures("short")
class TestSeed:
    def test_gives_the_same_model_again(self, sample: Sample) -> None:
        wishes = QUICK | {"head_start": True, "seed": 3}
        state = torch.random.get_rng_state()
        first, second = (
            api.train(sample.image, sample.labels, steps=2, **wishes) for _ in range(2)
        )
        assert set(first.parts) == {"head", "network"}
        assert same_weights(first, second)
        assert first.info == second.info
        for part in first.parts:
            np.testing.assert_array_equal(
                labels_of(first.showing(part), sample.image),
                labels_of(second.showing(part), sample.image),
            )
        assert torch.equal(state, torch.random.get_rng_state())

    def test_of_another_number_gives_another_model(self, sample: Sample) -> None:
        first, second = (
            api.train(sample.image, sample.labels, steps=2, seed=seed, **QUICK)
            for seed in (0, 1)
        )
        assert not same_weights(first, second)
        assert [each.info.training["seed"] for each in (first, second)] == [0, 1]

    @pytest.mark.parametrize("seed", [-1, 2**63])
    def test_out_of_range_is_refused(self, sample: Sample, seed: int) -> None:
        with pytest.raises(OptionError, match=f"the seed is {seed}"):
            api.make_trainer(sample.image, sample.labels, seed=seed)


class TestBalancing:
    @pytest.mark.parametrize(
        ("dense", "given", "expected"),
        [
            (False, {}, "mini-batch"),
            (True, {}, "instance"),
            (True, {"balance": "none"}, "none"),
            (False, {"balance": "instance"}, "instance"),
        ],
    )
    def test_follows_from_dense_images_unless_it_is_given(
        self,
        sample: Sample,
        other: Sample,
        dense: bool,
        given: dict[str, Any],
        expected: str,
    ) -> None:
        wishes = QUICK | given
        if dense:
            wishes |= {"dense_images": [other.image], "dense_labels": [truth_of(other)]}
        trained = api.train(sample.image, sample.labels, steps=1, **wishes)
        assert trained.info.training["balancing"] == expected

    def test_dense_images_may_have_the_names_of_sparse_ones(
        self, sample: Sample
    ) -> None:
        trainer = api.make_trainer(
            {"a": sample.image},
            {"a": sample.labels},
            dense_images={"a": sample.image},
            dense_labels={"a": truth_of(sample)},
            pixel_size_um={"a": 0.5, "a (dense)": 0.25},
        )
        images = trainer.data.images
        assert {name: image.dense for name, image in images.items()} == {
            "a": False,
            "a (dense)": True,
        }
        assert [image.um_per_px for image in images.values()] == [0.5, 0.25]

    def test_dense_images_alone_are_learned(self, sample: Sample) -> None:
        trained = api.train(
            [],
            [],
            dense_images=[sample.image, sample.image[:100]],
            dense_labels=[truth_of(sample), truth_of(sample)[:100]],
            steps=1,
            **QUICK,
        )
        assert trained.info.training["images"] == 2


class TestResolution:
    def test_in_micrometres_becomes_a_scale(self, sample: Sample) -> None:
        trained = api.train(
            sample.image,
            sample.labels,
            steps=1,
            um_per_px=2.0,
            pixel_size_um=0.5,
            preset="light",
            head_start=False,
        )
        assert trained.info.scales == {"network": 0.25}
        assert trained.info.um_per_px == 0.5

    def test_in_micrometres_follows_the_first_image_whose_size_is_known(
        self, sample: Sample
    ) -> None:
        trainer = api.make_trainer(
            {"a": sample.image, "b": sample.image, "c": sample.image},
            {"a": sample.labels, "b": sample.labels, "c": sample.labels},
            um_per_px=2.0,
            pixel_size_um={"a": None, "b": 1.0, "c": 0.5},
        )
        assert trainer.options.scale == 0.5
        assert trainer.data.um_per_px == 1.0

    def test_is_one_for_images_of_different_pixel_sizes(self, sample: Sample) -> None:
        trainer = api.make_trainer(
            {"fine": sample.image, "coarse": sample.image[::2, ::2]},
            {"fine": sample.labels, "coarse": sample.labels[::2, ::2]},
            pixel_size_um={"fine": 0.5, "coarse": 1.0},
            **QUICK,
        )
        fine, coarse = trainer.data.at(0.25)
        assert fine.pixels.shape == coarse.pixels.shape == (3, 32, 32)

    def test_of_a_prediction_follows_the_pixel_size(self, sample: Sample) -> None:
        trained = api.train(
            sample.image, sample.labels, steps=12, pixel_size_um=0.5, **QUICK
        )
        coarse = (
            sample.image.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
        )
        fine = coarse.repeat(2, axis=0).repeat(2, axis=1)
        # At the working resolution both are the same image, so each coarse pixel has
        # the class of one of the four fine pixels that it covers.
        covered = labels_of(trained, fine, pixel_size_um=0.5)
        covered = covered.reshape(64, 2, 64, 2).swapaxes(1, 2).reshape(64, 64, 4)
        found = labels_of(trained, coarse, pixel_size_um=1.0)
        assert len(np.unique(found)) > 1
        assert found.shape == (64, 64)
        assert (found[..., None] == covered).any(axis=2).mean() > 0.99
        # Without its size it is taken to be a smaller piece of tissue.
        with pytest.warns(UserWarning, match="that of the image is not"):
            found = labels_of(trained, coarse)
        assert (found[..., None] == covered).any(axis=2).mean() < 0.95

    @pytest.mark.parametrize("size", [0.0, -0.5, float("nan"), float("inf")])
    def test_needs_pixel_sizes_above_0(
        self, sample: Sample, model: SegmentationModel, size: float
    ) -> None:
        for sizes in (size, {"image 1": size}):
            with pytest.raises(OptionError, match="pixel size of image 1"):
                api.make_trainer(sample.image, sample.labels, pixel_size_um=sizes)
        with pytest.raises(OptionError, match="pixel size"):
            api.predict(model, sample.image, pixel_size_um=size)

    @pytest.mark.parametrize(
        ("wishes", "words"),
        [
            ({"um_per_px": 2.0}, "pixel size of the images is not known"),
            ({"um_per_px": 0.0, "pixel_size_um": 0.5}, "um per px is 0.0"),
            ({"um_per_px": 0.1, "pixel_size_um": 0.5}, "the scale is 5.0"),
            ({"um_per_px": 1.0, "pixel_size_um": 0.5, "scale": 0.5}, "both given"),
            ({"scale": 0.0}, "the scale is 0.0"),
            ({"scale": 4.5}, "the scale is 4.5"),
            ({"scale": float("nan")}, "the scale is nan"),
        ],
    )
    def test_that_cannot_be_is_refused(
        self, sample: Sample, wishes: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(OptionError, match=words):
            api.make_trainer(sample.image, sample.labels, **wishes)


class TestWindow:
    @pytest.fixture
    def scan(self, sample: Sample) -> NDArray[np.int16]:
        """Return a slice in HU from -1000 to about 1040."""
        return grey(sample).astype(np.int16) * 8 - 1000

    def test_of_signed_numbers_is_used(
        self, sample: Sample, scan: NDArray[np.int16]
    ) -> None:
        trained = api.train(scan, sample.labels, steps=4, window=(40, 1400), **QUICK)
        assert trained.info.normalisation.kind == "window"
        assert trained.info.normalisation.low == -660
        assert trained.info.normalisation.high == 740
        # Beyond the window nothing makes a difference; within it, much does.
        beyond = np.where(scan < -660, -3000, np.where(scan > 740, 3000, scan))
        assert (beyond != scan).any()
        expected = labels_of(trained, scan)
        np.testing.assert_array_equal(labels_of(trained, beyond), expected)
        assert (labels_of(trained, -scan) != expected).any()

    @pytest.mark.parametrize("window", [(40, 0), (40, -400), (float("nan"), 400)])
    def test_without_width_is_refused(
        self, sample: Sample, scan: NDArray[np.int16], window: tuple[float, float]
    ) -> None:
        with pytest.raises(OptionError, match="the width above 0"):
            api.make_trainer(scan, sample.labels, window=window)


def finish(trainer: Trainer, steps: int, checkpoint: Path | None) -> SegmentationModel:
    events = api.run(trainer, steps, None, checkpoint)
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return cast("SegmentationModel", stop.value)


def stop_after(trainer: Trainer, done: int, steps: int, checkpoint: Path) -> None:
    """Stop a training of so many steps when some of them are done."""
    events = api.run(trainer, steps, None, checkpoint)
    learned = (event for event in events if isinstance(event, StepDone))
    assert next(event for event in learned if event.step == done)
    events.close()


@pytest.mark.usefixtures("short")
class TestPatches:
    def test_have_the_side_that_is_asked_for(self, sample: Sample) -> None:
        given = api.make_trainer(sample.image, sample.labels, patch_px=48, **QUICK)
        plain = api.make_trainer(sample.image, sample.labels, **QUICK)
        assert given.options.recipe.patch_px == 48
        assert plain.options.recipe == RECIPES["live"]
        with_48 = dataclasses.replace(RECIPES["live"], patch_px=48)
        assert given.options == dataclasses.replace(plain.options, recipe=with_48)

    @pytest.mark.parametrize("patch_px", [15, 0, -128])
    def test_that_are_too_small_are_refused(
        self, sample: Sample, patch_px: int
    ) -> None:
        with pytest.raises(OptionError, match=rf"a patch is {patch_px} .* at least 16"):
            api.make_trainer(sample.image, sample.labels, patch_px=patch_px)

    def test_may_go_through_the_network_in_parts(self, sample: Sample) -> None:
        def parts(at_once: int) -> int:
            given = api.make_trainer(
                sample.image, sample.labels, micro_batch=at_once, **QUICK
            )
            return sum(isinstance(event, PartDone) for event in given.run(1))

        batch = RECIPES["live"].batch
        assert parts(1) - parts(batch) == batch - 1
        with pytest.raises(OptionError, match="patches at once is 0"):
            api.make_trainer(sample.image, sample.labels, micro_batch=0)


class TestNetworks:
    def test_are_built_and_trained_as_asked(self, sample: Sample) -> None:
        wishes: dict[str, Any] = {"net": "deeplabv3", "loss": "dice"}
        trained = api.train(
            grey(sample), sample.labels, steps=1, patch_px=16, **QUICK | wishes
        )
        assert trained.info.network == PRESETS["deeplabv3"]["light"]
        assert trained.info.training["loss"] == "dice"
        assert trained.info.training["encoder_weights"] == "none"
        assert trained.info.training["balancing"] == "none"
        assert set(np.unique(labels_of(trained, grey(sample)))) <= {1, 2, 3, 4}

    def test_make_the_loss_small_that_is_asked_for(self, sample: Sample) -> None:
        wishes: dict[str, Any] = {"loss": "l1l2", "l1": 0.5, "l2": 3, "smoothness": 0.1}
        options = api.make_trainer(sample.image, sample.labels, **wishes).options
        assert options.loss_setting == {
            "loss": "l1l2",
            "l1_weight": 0.5,
            "l2_weight": 3.0,
            "smoothness": 0.1,
        }
        assert options.balancing == "mini-batch"

    def test_change_the_augmentation_of_their_recipe(self, sample: Sample) -> None:
        def augmentation(**wishes: Any) -> AugmentationOptions:
            trainer = api.make_trainer(sample.image, sample.labels, **wishes)
            return trainer.options.recipe.augmentation

        live, paper = RECIPES["live"].augmentation, RECIPES["vgg-fcn"].augmentation
        assert augmentation() == live
        noisy = dataclasses.replace(live, noise=0.1, tiling=True)
        assert augmentation(noise=0.1, tiling=True) == noisy
        found = augmentation(recipe="vgg-fcn", tiling=False)
        assert found == dataclasses.replace(paper, tiling=False)

    def test_begin_with_the_weights_of_a_file(
        self, sample: Sample, tmp_path: Path
    ) -> None:
        path = tmp_path / "weights.safetensors"
        weights = build_encoder("resnet18").state_dict()
        save_file(weights, path)
        trainer = api.make_trainer(
            sample.image,
            sample.labels,
            net="deeplabv3",
            encoder_weights=path,
            **QUICK,
        )
        network = first_network(trainer.options, 3, 4)
        first = network.state_dict()["network.encoder.conv1.weight"]
        assert torch.equal(first, weights["conv1.weight"])
        assert api.state_of(trainer)[1]["encoder_weights"] == "file"

    def test_may_have_a_head_that_sees_early_layers_of_an_encoder(
        self, sample: Sample, tmp_path: Path
    ) -> None:
        path, cache = tmp_path / "weights.safetensors", tmp_path / "cache"
        weights = build_encoder("resnet18", levels=["layer1"]).state_dict()
        save_file(weights, path)
        trained = api.train(
            sample.image,
            sample.labels,
            encoder_weights=path,
            head_features="resnet18",
            feature_cache_folder=cache,
            steps=1,
            **QUICK | {"head_start": True},
        )
        assert trained.info.head_features == "resnet18"
        kept = {each.name for each in cache.iterdir()}
        assert kept
        path.unlink()
        api.save_model(trained, tmp_path / "model.safetensors")
        head = api.load_model(tmp_path / "model.safetensors").showing("head")
        first = head.parts["head"].state_dict()["pretrained.encoder.conv1.weight"]
        assert torch.equal(first, weights["conv1.weight"])
        other = np.roll(sample.image, 40, axis=0)
        for model in (trained.showing("head"), head):
            assert len(np.unique(api.predict(model, other, device="cpu"))) > 1
        # What a user predicts leaves nothing on disk.
        assert {each.name for each in cache.iterdir()} == kept

    @pytest.mark.usefixtures("short")
    def test_read_weights_once_and_go_on_without_their_file(
        self, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "weights.safetensors"
        weights = build_encoder("resnet18").state_dict()
        save_file(weights, path)
        read: list[str | Path] = []

        def counted(file: str | Path) -> dict[str, torch.Tensor]:
            read.append(file)
            return load_file(file)

        monkeypatch.setattr(encoders, "load_file", counted)
        wishes: dict[str, Any] = {
            **QUICK,
            "net": "unet-resnet50",
            "encoder_weights": path,
            "freeze_encoder": True,
            "head_start": True,
            "head_features": "resnet18",
            "feature_cache": "off",
            "patch_px": 32,
            "checkpoint": tmp_path / "c.safetensors",
        }
        images = sample.image, sample.labels
        api.train(*images, steps=1, **wishes)
        assert read == [path]
        path.unlink()
        again = api.train(*images, steps=1, **wishes | {"resume": True})
        assert again.info.training["steps"] == 2
        name = "encoder.conv1.weight"
        for part, prefix in (("head", "pretrained"), ("network", "network")):
            found = again.parts[part].state_dict()[f"{prefix}.{name}"]  # type: ignore[index]
            assert torch.equal(found, weights["conv1.weight"])

    def test_say_which_preset_has_the_encoder_of_a_file(
        self, sample: Sample, tmp_path: Path
    ) -> None:
        path = tmp_path / "weights.safetensors"
        save_file(build_encoder("resnet18").state_dict(), path)
        wishes: dict[str, Any] = {**QUICK, "net": "unet-resnet50", "preset": "paper"}
        words = "of resnet18, but with the preset paper .* choose the preset light"
        with pytest.raises(ModelFileError, match=words):
            api.make_trainer(
                sample.image, sample.labels, encoder_weights=path, **wishes
            )

    def test_ask_for_published_weights_in_any_case(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        wishes: api.TrainingWishes = {"net": "unet-vgg16", "device": "cpu"}
        wishes["encoder_weights"] = "ImageNet"
        assert api.encoders_to_fetch(wishes) == ["vgg16"]

    def test_that_keep_random_weights_are_warned_of(self, sample: Sample) -> None:
        wishes: dict[str, Any] = {**QUICK, "net": "vgg-fcn", "freeze_encoder": True}
        with pytest.warns(UserWarning, match="is frozen with random weights.*; give"):
            api.make_trainer(sample.image, sample.labels, **wishes)

    @pytest.mark.filterwarnings("ignore:the encoder is frozen with random weights")
    def test_may_keep_their_encoder_drop_features_and_have_small_weights(
        self, sample: Sample
    ) -> None:
        trained = api.train(
            sample.image,
            sample.labels,
            net="unet-resnet50",
            freeze_encoder=True,
            dropout=0.25,
            weight_decay=0.01,
            steps=1,
            patch_px=32,
            **QUICK,
        )
        light = PRESETS["unet-resnet50"]["light"].options
        assert trained.info.network.options == {**light, "dropout": 0.25}
        known = trained.info.training
        assert (known["freeze_encoder"], known["weight_decay"]) == (True, 0.01)
        torch.manual_seed(0)
        first = build_network(trained.info.network, 3, 4).state_dict()
        learned = trained.parts["network"].state_dict()
        kept = [key for key in first if torch.equal(first[key], learned[key])]
        encoder = [key for key in first if key.startswith("network.encoder.")]
        assert {*encoder} <= {*kept} < {*first}

    @pytest.mark.filterwarnings("ignore:the encoder is frozen with random weights")
    @pytest.mark.parametrize(
        "change", [{"freeze_encoder": False}, {"weight_decay": 0.1}, {"dropout": 0.1}]
    )
    def test_go_on_as_they_began_only(
        self, sample: Sample, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        wishes: dict[str, Any] = {
            **QUICK,
            "net": "vgg-fcn",
            "freeze_encoder": True,
            "checkpoint": tmp_path / "c.safetensors",
        }
        images = sample.image, sample.labels
        api.write_checkpoint(api.make_trainer(*images, **wishes), wishes["checkpoint"])
        name = next(iter(change)).replace("_", " ")
        words = "network" if name == "dropout" else name
        with pytest.raises(ModelFileError, match=f"had the {words} .* but now"):
            api.make_trainer(*images, **wishes | change, resume=True)

    def test_may_not_change_the_norms_of_the_loss_when_they_go_on(
        self, sample: Sample, tmp_path: Path
    ) -> None:
        wishes: dict[str, Any] = {
            **QUICK,
            "loss": "l1l2",
            "checkpoint": tmp_path / "c.safetensors",
        }
        images = sample.image, sample.labels
        api.write_checkpoint(api.make_trainer(*images, **wishes), wishes["checkpoint"])
        with pytest.raises(ModelFileError, match=r"had the l1 weight 1\.0, but"):
            api.make_trainer(*images, **wishes, l1=0.5, resume=True)

    @pytest.mark.parametrize(
        ("wishes", "words"),
        [
            ({"net": "vit"}, "the network is 'vit'; expected one of unet, unet-vgg16"),
            ({"freeze_encoder": True}, "to be frozen, but this network has no encoder"),
            ({"dropout": 0.5}, "dropout is to be 0.5, but the network 'unet' has none"),
            ({"net": "vgg-fcn", "dropout": 1}, "the dropout is 1; expected a prob"),
            ({"net": "vgg-fcn", "dropout": "a"}, "dropout is 'a'; expected a number"),
            ({"encoder_weights": ""}, "weights are named ''; expected none, imagenet"),
            ({"head_features": "vgg19"}, "features is 'vgg19'; expected one of fixed"),
            ({"head_features": "vgg16"}, "weights that nobody has trained they say"),
            (
                {"head_features": "vgg16", "head_start": False},
                "features of vgg16, but there is to be none; turn the head start on",
            ),
            (
                {
                    "net": "unet-vgg16",
                    "head_features": "resnet18",
                    "encoder_weights": "vgg.pth",
                },
                "head is .* of resnet18, and the network has the encoder vgg16, but a",
            ),
            ({"feature_cache": "on"}, "feature cache is on, but no encoder keeps"),
            ({"feature_cache": "maybe"}, "to be 'maybe'; expected one of auto, on"),
            ({"feature_cache_gib": -1}, "cache in GiB is -1; expected a number of 0"),
            ({"weight_decay": -1}, "the weight decay is -1; expected a number of 0"),
            ({"noise": -1}, "the noise is -1; expected a number of 0 or more"),
            ({"loss": "l1"}, "the loss is 'l1'; expected one of ce, dice, l1l2"),
            ({"net": "unet-vg16"}, r"vgg16, .*; did you mean unet-vgg16\?"),
            ({"l1": 2}, "L1 norm is to be 2, but the loss 'ce' has none; take"),
            ({"l1": -1}, "weight of the L1 norm is -1; expected a number of 0 or more"),
            ({"l2": np.nan}, "weight of the L2 norm is nan; expected a number of 0 or"),
            (
                {"smoothness": -0.1},
                "smoothness is -0.1; expected a number of 0 or more",
            ),
            ({"loss": "l1l2", "l1": 0, "l2": 0}, "both 0, so nothing would be learned"),
            ({"recipe": "mine"}, "expected one of live, paper, deeplab, vgg"),
            ({"encoder_weights": "imagenet"}, "no encoder that others have trained"),
        ],
    )
    def test_that_are_not_known_are_refused(
        self, sample: Sample, wishes: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(OptionError, match=words):
            api.make_trainer(sample.image, sample.labels, **wishes)

    def test_that_cannot_be_built_are_refused_before_anything_is_learned(
        self, sample: Sample
    ) -> None:
        two = sample.image[..., :2]
        with pytest.raises(ImageError, match=r"2 channels, but this .* takes 1 or 3"):
            api.make_trainer(two, sample.labels, net="deeplabv3")
        with pytest.raises(
            ModelFileError, match=r"missing\.safetensors cannot be read"
        ):
            api.make_trainer(
                sample.image,
                sample.labels,
                net="deeplabv3",
                encoder_weights="missing.safetensors",
            )


class TestResume:
    @pytest.mark.parametrize(
        ("wishes", "dense"),
        [
            ({"scale": "auto", "head_start": False}, False),
            ({"scale": 0.25, "head_start": True}, False),
            ({"scale": 0.25, "head_start": False, "recipe": "paper"}, True),
            (
                {
                    "scale": 0.25,
                    "head_start": False,
                    "recipe": "deeplab",
                    "loss": "dice",
                },
                False,
            ),
            (
                {
                    "scale": 0.25,
                    "head_start": False,
                    "net": "vgg-fcn",
                    "freeze_encoder": True,
                    "dropout": 0.5,
                    "recipe": "vgg-fcn",
                },
                False,
            ),
        ],
        ids=[
            "scale on trial",
            "head",
            "paper recipe with dense images",
            "deeplab recipe with dice",
            "frozen encoder with dropout",
        ],
    )
    @pytest.mark.filterwarnings("ignore:the encoder is frozen with random weights")
    @pytest.mark.usefixtures("short")
    @pytest.mark.parametrize("first", [2, 4])
    def test_is_like_never_having_stopped(
        self,
        sample: Sample,
        other: Sample,
        tmp_path: Path,
        wishes: dict[str, Any],
        dense: bool,
        first: int,
    ) -> None:
        if dense:
            wishes = wishes | {
                "dense_images": [other.image, other.image[:100]],
                "dense_labels": [truth_of(other), truth_of(other)[:100]],
            }
        wishes = wishes | {"preset": "light"}
        files = [tmp_path / f"{name}.safetensors" for name in ("straight", "halves")]

        def trainer(file: Path, resume: bool = False) -> Trainer:
            options = wishes | {"checkpoint": file, "resume": resume}
            return api.make_trainer(sample.image, sample.labels, **options)

        straight = finish(trainer(files[0]), 8, files[0])
        stop_after(trainer(files[1]), first, 8, files[1])
        halves = finish(trainer(files[1], resume=True), 8 - first, files[1])

        assert straight.info == halves.info
        assert straight.info.training["steps"] == 8
        assert same_weights(straight, halves)
        for part in straight.parts:
            np.testing.assert_array_equal(
                labels_of(straight.showing(part), other.image),
                labels_of(halves.showing(part), other.image),
            )
        keys = api.state_of(trainer(files[0]))[1].keys()
        (expected, then), (found, now) = (load_checkpoint(f, keys) for f in files)
        assert then == now
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)

    @pytest.mark.usefixtures("short")
    @pytest.mark.parametrize("n_events", [1, 2, 5])
    @pytest.mark.parametrize("head_start", [False, True])
    def test_after_a_generator_that_was_closed_early(
        self, sample: Sample, tmp_path: Path, n_events: int, head_start: bool
    ) -> None:
        path = tmp_path / "c.safetensors"
        wishes = QUICK | {"checkpoint": path, "head_start": head_start}
        images, labels = sample.image, sample.labels
        with closing(api.iter_train(images, labels, steps=9, **wishes)) as events:
            seen = list(islice(events, n_events))
        assert isinstance(seen[0], HeadFitted if head_start else StepDone)
        done = sum(isinstance(event, StepDone) for event in seen)
        straight = api.train(images, labels, steps=6, **wishes | {"checkpoint": None})
        resumed = api.train(images, labels, steps=6 - done, **wishes | {"resume": True})
        assert resumed.info.training["steps"] == 6
        assert same_weights(straight, resumed)

    def test_sees_intensities_as_before_even_with_other_images(
        self, sample: Sample, other: Sample, tmp_path: Path
    ) -> None:
        path = tmp_path / "c.safetensors"
        wishes = QUICK | {"checkpoint": path}
        dark, bright = grey(sample) // 2, grey(other) + np.uint16(3000)
        first = api.train({"a": dark}, {"a": sample.labels}, steps=2, **wishes)
        both = ({"a": dark, "b": bright}, {"a": sample.labels, "b": other.labels})
        anew = api.make_trainer(*both, **wishes)
        resumed = api.make_trainer(*both, **wishes | {"resume": True})
        assert anew.data.normalisation != first.info.normalisation
        assert resumed.data.normalisation == first.info.normalisation
        assert resumed.model().info.normalisation == first.info.normalisation

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"classes": "renamed"}, "had the classes 1 background, .*1 glass"),
            ({"classes": "added"}, "had the classes .* now .*5 necrosis is given"),
            ({"preset": "paper"}, "had the network .*16.* now .*32"),
            ({"net": "deeplabv3"}, "had the network .*unet.* now .*deeplabv3"),
            ({"recipe": "paper"}, "had the recipe live, but now paper"),
            ({"loss": "dice"}, "had the loss ce, but now dice"),
            ({"smoothness": 2}, "had the smoothness 0.0, but now 2.0"),
            ({"window": (100, 90)}, "had the normalisation .*range.* now .*window"),
            ({"scale": 0.5}, r"had the scales \[0.25\], but now \[0.5\]"),
        ],
    )
    def test_of_another_training_is_refused(
        self, sample: Sample, tmp_path: Path, changes: dict[str, Any], words: str
    ) -> None:
        path = tmp_path / "c.safetensors"
        wishes = QUICK | {"checkpoint": path, "classes": sample.classes}
        api.train(sample.image, sample.labels, steps=1, **wishes)
        before = path.read_bytes()
        tables = {
            "renamed": sample.classes.renamed(1, "glass"),
            "added": sample.classes.add("necrosis"),
        }
        changes = {key: tables.get(str(v), v) for key, v in changes.items()}
        with pytest.raises(ModelFileError, match=words):
            api.train(
                sample.image,
                sample.labels,
                steps=1,
                **wishes | {"resume": True} | changes,
            )
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"networks": [{"scale": 0.25}]}, "KeyError"),
            ({"networks": 3}, "TypeError"),
            ({"normalisation": {"kind": "range"}}, "TypeError"),
            ({"held_out": ["a hash", "another"]}, "held_out.1"),
        ],
    )
    def test_from_values_that_are_damaged_is_refused(
        self, sample: Sample, tmp_path: Path, change: dict[str, Any], words: str
    ) -> None:
        path = tmp_path / "c.safetensors"
        wishes = QUICK | {"checkpoint": path, "resume": True}
        trainer = api.make_trainer(sample.image, sample.labels, **QUICK)
        finish(trainer, 1, path)
        tensors, values = api.state_of(trainer)
        save_checkpoint(path, tensors, values | change)
        with pytest.raises(ModelFileError, match=f"no state of a training.*{words}"):
            api.make_trainer(sample.image, sample.labels, **wishes)

    def test_from_weights_that_are_damaged_is_refused(
        self, sample: Sample, tmp_path: Path
    ) -> None:
        path = tmp_path / "c.safetensors"
        wishes = QUICK | {"checkpoint": path, "resume": True}
        trainer = api.make_trainer(sample.image, sample.labels, **QUICK)
        finish(trainer, 1, path)
        tensors, values = api.state_of(trainer)
        for name in ("generator", "0.network.network.classifier.weight"):
            save_checkpoint(path, tensors | {name: torch.zeros(2)}, values)
            with pytest.raises(ModelFileError, match="no state of a training"):
                api.make_trainer(sample.image, sample.labels, **wishes)

    def test_of_images_with_other_channels_is_refused(
        self, sample: Sample, tmp_path: Path
    ) -> None:
        wishes = QUICK | {"checkpoint": tmp_path / "c.safetensors"}
        api.train(sample.image, sample.labels, steps=1, **wishes)
        with pytest.raises(ModelFileError, match="had the channels 3, but now 1"):
            api.make_trainer(grey(sample), sample.labels, **wishes | {"resume": True})

    def test_goes_on_with_recoloured_classes(
        self, sample: Sample, tmp_path: Path
    ) -> None:
        wishes = QUICK | {"checkpoint": tmp_path / "c.safetensors"}
        api.train(
            sample.image, sample.labels, steps=1, classes=sample.classes, **wishes
        )
        table = sample.classes.recolored(1, (9, 9, 9))
        resumed = api.train(
            sample.image,
            sample.labels,
            steps=1,
            **wishes | {"classes": table, "resume": True},
        )
        assert resumed.info.training["steps"] == 2
        assert resumed.info.classes == table

    @pytest.mark.parametrize("checkpoint", [None, "missing.safetensors"])
    def test_needs_a_checkpoint(self, sample: Sample, checkpoint: str | None) -> None:
        with pytest.raises(ModelFileError, match="there is no checkpoint"):
            api.make_trainer(
                sample.image, sample.labels, checkpoint=checkpoint, resume=True
            )


class TestRunning:
    def test_refuses_limits_before_the_first_event(self, sample: Sample) -> None:
        with pytest.raises(OptionError, match="steps is 0"):
            api.iter_train(sample.image, sample.labels, steps=0)
        for seconds in (-1.0, float("nan")):
            with pytest.raises(OptionError, match="seconds is"):
                api.iter_train(sample.image, sample.labels, seconds=seconds)

    def test_ends_after_the_time_that_was_given(self, sample: Sample) -> None:
        trained = api.train(sample.image, sample.labels, seconds=0.05, **QUICK)
        assert 1 <= trained.info.training["steps"] < 100

    def test_leaves_checkpoints_meanwhile(
        self, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api, "CHECKPOINT_S", 0.0)
        path = tmp_path / "c.safetensors"
        wishes = QUICK | {"checkpoint": path}
        steps = []
        for _ in api.iter_train(sample.image, sample.labels, steps=4, **wishes):
            if path.exists():
                keys = api.state_of(api.make_trainer(sample.image, sample.labels))[1]
                steps.append(load_checkpoint(path, keys.keys())[1]["steps"])
        assert steps == [1, 2, 3]

    def test_gives_a_model_on_the_cpu(self, model: SegmentationModel) -> None:
        assert {value.device.type for value in weights_of(model).values()} == {"cpu"}


class TestCrossEntropy:
    def test_is_the_mean_of_the_images_means(
        self, model: SegmentationModel, sample: Sample, other: Sample
    ) -> None:
        from sklearn.metrics import log_loss

        images = {"sparse": sample.image, "dense": other.image, "empty": other.image}
        dense = truth_of(other)
        empty = np.zeros_like(dense)
        truths = {"sparse": sample.labels, "dense": dense, "empty": empty}
        expected = []
        for name in ("sparse", "dense"):
            _, maps = api.predict(model, images[name], probabilities=True)
            known = truths[name] != 0
            values = list(model.info.classes.values)
            expected.append(
                log_loss(truths[name][known], maps[:, known].T, labels=values)
            )
        found = api.cross_entropy_score(model, images, truths, device="cpu")
        assert found == pytest.approx(np.mean(expected), rel=1e-4)
        assert api.cross_entropy_score(model, other.image, empty) is None

    def test_of_a_class_that_the_model_does_not_know_is_refused(
        self, model: SegmentationModel, sample: Sample
    ) -> None:
        with pytest.raises(LabelError, match="values that are no class: 9 in"):
            api.cross_entropy_score(model, sample.image, sample.labels * 9)


class TestDevice:
    @pytest.mark.parametrize(
        "device", ["tpu", "cuda:x", "cuda:99", "cpu:1", "", "CPU", "cuda:-1"]
    )
    def test_that_is_not_there_is_refused(self, device: str) -> None:
        with pytest.raises(OptionError, match=r"is not there; this machine has .*cpu"):
            api.choose_device(device)

    def test_is_chosen_by_what_is_there(self) -> None:
        assert api.choose_device("cpu") == "cpu"
        found = torch.device(api.choose_device("auto"))
        assert (found.type == "cuda") == torch.cuda.is_available()
