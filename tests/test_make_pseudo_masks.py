"""Pseudo-masks of arrays: what comes back, what is recorded, what is refused."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from napari_sparseseg import Box, make_pseudo_masks, train
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import (
    ClassTableError,
    ImageError,
    LabelError,
    ModelFileError,
    OptionError,
    SparseSegError,
    TrainingError,
)
from napari_sparseseg.inputs.normalisation import fit_normalisation
from napari_sparseseg.networks.region_classifier import RegionNetwork
from napari_sparseseg.pseudo_masks import methods
from napari_sparseseg.pseudo_masks.api import (
    _mining,
    _record,
    iter_make_pseudo_masks,
    prepare,
)
from napari_sparseseg.pseudo_masks.crf import CrfOptions, dense_crf
from napari_sparseseg.pseudo_masks.grabcut import grabcut_in_parts
from napari_sparseseg.pseudo_masks.label_map import BoxMask
from napari_sparseseg.pseudo_masks.method_names import LEARNING, Method
from napari_sparseseg.pseudo_masks.methods import ImageDone
from napari_sparseseg.pseudo_masks.mining import (
    MINING_PRESETS,
    MiningStarted,
    MiningStepDone,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

TABLE = ClassTable.from_values([1, 3, 4])

#: A bright disc of radius 10 around (30, 40), and its box.
DISC = Box(20, 30, 41, 51, 3)


@pytest.fixture(autouse=True)
def quick_grabcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a box be cut out twice instead of ten times, and smaller."""

    def cut(image: Any, box: Box, options: Any, generator: Any) -> Any:
        options = replace(options, runs=2, working_side=60)
        return grabcut_in_parts(image, box, options, generator)

    monkeypatch.setattr(methods, "grabcut_in_parts", cut)


def scan(shape: tuple[int, int] = (64, 80), seed: int = 0) -> NDArray[np.int16]:
    """Give a plane in HU with a bright disc on noise."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 15, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image[(y - 30) ** 2 + (x - 40) ** 2 <= 100] += 150
    return image.astype(np.int16)


def quick(method: str = "cam") -> dict[str, Any]:
    """Give the wishes of a training that is over in a moment."""
    return {"method": method, "backbone": "resnet18", "epochs": 1, "device": "cpu"}


def test_an_image_and_its_boxes_become_a_label_map() -> None:
    result = make_pseudo_masks(
        scan(), [DISC, Box(0, 0, 4, 4, 4)], method="box", classes=TABLE
    )
    (mask,) = result.masks.values()
    expected = np.full((64, 80), 1)
    expected[20:41, 30:51] = 3
    expected[0:4, 0:4] = 4
    np.testing.assert_array_equal(mask.labels, expected)
    assert mask.labels.dtype == np.uint8
    np.testing.assert_array_equal(mask.localization, expected > 1)
    assert result.notes == ()


def test_images_and_boxes_go_together_by_place_or_by_name() -> None:
    images = [scan(), scan((70, 64), seed=1)]
    boxes = [[DISC], [Box(1, 2, 3, 4, 9)]]
    by_place = make_pseudo_masks(images, boxes, method="box").masks
    assert [*by_place] == ["image 1", "image 2"]
    assert by_place["image 2"].labels.shape == (70, 64)
    assert np.argwhere(by_place["image 2"].labels == 9).tolist() == [
        [1, 2],
        [1, 3],
        [2, 2],
        [2, 3],
    ]
    by_name = make_pseudo_masks(
        {"a": images[0], "b": images[1]},
        {"b": boxes[1], "a": boxes[0]},
        method="box",
    ).masks
    for one, other in zip(by_place.values(), by_name.values(), strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)


def stack(*seeds: int) -> NDArray[np.int16]:
    """Give a volume (z, y, x) of planes like `scan`."""
    return np.stack([scan(seed=seed) for seed in seeds])


@pytest.mark.parametrize("method", ["box", "grabcut", "cam"])
def test_each_plane_of_a_volume_is_an_image(method: str) -> None:
    volume = stack(0, 1, 2, 3)
    boxes = {1: [DISC, Box(50, 5, 60, 25, 4)], 3: [Box(18, 28, 43, 53, 300)]}
    on_planes = [replace(b, plane=(z,)) for z, of_z in boxes.items() for b in of_z]
    wishes = quick(method) | {"background": 1, "window": (40.0, 400.0)}
    whole = make_pseudo_masks(volume, on_planes, **wishes)
    assert [*whole.masks] == ["image 1"]
    mask = whole.masks["image 1"]
    assert mask.labels.shape == mask.localization.shape == volume.shape
    assert mask.labels.dtype == np.uint16
    assert mask.localization.dtype == np.float32
    # Nobody has looked at the planes without boxes, so they are no background.
    assert not mask.labels[[0, 2]].any()
    one_by_one = make_pseudo_masks(
        [volume[z] for z in boxes], [*boxes.values()], **wishes
    )
    for z, plane in zip(boxes, one_by_one.masks.values(), strict=True):
        np.testing.assert_array_equal(mask.labels[z], plane.labels)
        np.testing.assert_array_equal(mask.localization[z], plane.localization)
    assert whole.record["boxes"] == {"image 1, plane 1": 2, "image 1, plane 3": 1}


def test_volumes_and_images_go_together() -> None:
    colours = np.stack([stack(0, 1)] * 3, axis=-1)
    result = make_pseudo_masks(
        {
            "ct": stack(0, 1),
            "photo": colours[0],
            "film": colours,
            "4-d": stack(0)[None],
        },
        {
            "ct": [replace(DISC, plane=(1,)), Box(60, 70, 90, 99, 3, (0,))],
            "photo": [DISC],
            "film": [replace(DISC, plane=(0,))],
            "4-d": [replace(DISC, plane=(0, 0))],
        },
        method="box",
        background=1,
    )
    shapes = {name: mask.labels.shape for name, mask in result.masks.items()}
    assert shapes == {
        "ct": (2, 64, 80),
        "photo": (64, 80),
        "film": (2, 64, 80),
        "4-d": (1, 1, 64, 80),
    }
    for mask in result.masks.values():
        assert (mask.labels == 3).any()
    (note,) = result.notes
    assert note.startswith("ct: 1 box clipped")
    assert "on plane 0" in note


def test_grabcut_finds_the_disc() -> None:
    (mask,) = make_pseudo_masks(scan(), [DISC], method="grabcut").masks.values()
    y, x = np.mgrid[:64, :80]
    disc = (y - 30) ** 2 + (x - 40) ** 2 <= 100
    assert (mask.labels[disc] == 3).mean() > 0.9
    assert (mask.labels[~disc] == 3).mean() < 0.01


def test_the_crf_sees_the_window_and_its_parameters() -> None:
    # Strong enough to move what the ellipse says, which is sure of every pixel.
    image, options = scan(), CrfOptions(theta_alpha=30, theta_beta=60, w1=60)
    box = Box(14, 24, 47, 57, 3)
    result = make_pseudo_masks(
        image,
        [box],
        method="ellipse",
        crf=True,
        crf_options=options,
        crf_backend="torch",
        window=(40, 400),
    )
    (mask,) = result.masks.values()
    grey = np.clip((image.astype(np.float32) + 160) / 400, 0, 1) * 255
    inside = mask.localization[box.slices]
    refined = dense_crf(
        np.stack([1 - inside, inside]),
        (grey[box.slices] + 0.5).astype(np.uint8),
        options,
        "torch",
    )
    np.testing.assert_array_equal(mask.labels[box.slices] == 3, refined[1] > 0.5)
    assert ((refined[1] > 0.5) != (inside > 0.5)).any()
    assert result.record["crf"]["w1"] == 60
    assert result.record["normalisation"] == {
        "kind": "window",
        "low": -160,
        "high": 240,
    }


@pytest.mark.parametrize("method", ["cam", "acol"])
def test_a_network_learns_and_the_record_says_how(method: str) -> None:
    images = [scan(), scan(seed=1)]
    result = make_pseudo_masks(
        images, [[DISC], [DISC]], seed=5, background=1, **quick(method)
    )
    for mask in result.masks.values():
        assert set(np.unique(mask.labels)) <= {0, 1, 3}
        assert (mask.labels[20:41, 30:51] != 1).all()
        assert 0 <= mask.localization.min() <= mask.localization.max() <= 1
    record = result.record
    json.dumps(record)
    assert record["method"] == method
    assert record["weights"] == "random"
    assert (record["seed"], record["steps"], record["background"]) == (5, 1, 1)
    assert record["crf"] is not None
    assert record["options"]["backbone"] == "resnet18"
    assert record["options"]["epochs"] == 1
    assert record["boxes"] == {"image 1": 1, "image 2": 1}
    assert {"napari-sparseseg", "torch"} <= record["versions"].keys()
    fitted = fit_normalisation(images)
    assert record["normalisation"]["low"] == fitted.low


def test_the_seed_decides() -> None:
    masks = [
        make_pseudo_masks(scan(), [DISC], seed=seed, crf=False, **quick()).masks
        for seed in (0, 0, 1)
    ]
    first, same, other = (each["image 1"].localization for each in masks)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_events_tell_what_happens() -> None:
    events = list(iter_make_pseudo_masks(scan(), [DISC], **quick()))
    kinds = [type(event) for event in events]
    assert kinds[0] is MiningStarted
    assert MiningStepDone in kinds
    assert kinds[-1] is ImageDone


@pytest.mark.parametrize("method", get_args(Method))
def test_the_record_of_every_method_goes_into_json(method: Method) -> None:
    preparation = prepare(scan(), [DISC], method=method, seed=2, device="cpu")
    record = json.loads(json.dumps(_record(preparation, 7)))
    assert (record["method"], record["steps"], record["seed"]) == (method, 7, 2)
    learns = method in LEARNING
    assert record["weights"] == ("random" if learns else None)
    assert (record["crf"] is not None) == learns
    assert bool(record["options"]) == (method not in ("box", "ellipse"))


@pytest.mark.parametrize("installed", [True, False])
def test_the_record_names_the_backend_that_was_used(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pydensecrf", "pydensecrf.densecrf"):
        module = ModuleType(name) if installed else None
        monkeypatch.setitem(sys.modules, name, module)

    def recorded(method: Method, **wishes: Any) -> Any:
        preparation = prepare(scan(), [DISC], method=method, device="cpu", **wishes)
        return _record(preparation, 0)["crf_backend"]

    assert recorded("acol") == ("pydensecrf" if installed else "torch")
    assert recorded("ellipse", crf=True, crf_backend="torch") == "torch"
    assert recorded("acol", crf=False) is None
    assert recorded("box") is None


@pytest.mark.parametrize("method", ["box", "ellipse", "grabcut"])
def test_methods_without_training_ignore_what_only_training_needs(method: Any) -> None:
    result = make_pseudo_masks(
        scan(),
        [DISC],
        method=method,
        seconds=1e-9,
        epochs=7,
        backbone="resnet50",
        weights="nowhere.safetensors",
    )
    assert (result.masks["image 1"].labels == 3).any()
    assert result.record["weights"] is None
    assert result.record["steps"] == 0


def test_seconds_end_a_training() -> None:
    wishes = quick() | {"epochs": 10**6}
    result = make_pseudo_masks(scan(), [DISC], seconds=1e-3, **wishes)
    assert result.record["steps"] == 1
    assert result.record["seconds"] == 1e-3


def test_a_backbone_brings_its_numbers() -> None:
    light, paper = MINING_PRESETS["light"], MINING_PRESETS["paper"]
    for device in ("cpu", "cuda"):
        assert _mining("resnet18", "none", device) == light
    for backbone in ("resnet50", None):
        mining = _mining(backbone, "imagenet", "cuda")
        assert mining == replace(paper, weights="imagenet")
    on_cpu = prepare(scan(), [DISC], device="cpu").options
    assert on_cpu.mining == light
    both = prepare(scan(), [DISC], epochs=3).options
    assert both.mining.epochs == both.recursive.epochs == 3


def test_a_large_backbone_sees_one_image_at_once_on_a_cpu() -> None:
    mining = _mining("resnet50", "imagenet", "cpu")
    assert mining == replace(MINING_PRESETS["paper"], weights="imagenet", micro_batch=1)


def test_gradients_are_shortened_where_the_start_is_not_the_papers() -> None:
    assert _mining("resnet50", "none", "cuda").gradient_norm == 5
    assert _mining("resnet50", "weights.safetensors", "cuda").gradient_norm is None
    assert _mining("resnet18", "imagenet", "cuda").gradient_norm == 5


def test_epochs_that_are_asked_for_are_taken_however_few_the_images() -> None:
    result = make_pseudo_masks(scan(), [DISC], crf=False, **quick() | {"epochs": 2})
    assert result.record["steps"] == 2


def test_memory_that_did_not_suffice_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = RegionNetwork.forward

    def crowded(self: RegionNetwork, images: Tensor, *regions: Any) -> Any:
        if len(images) > 1:
            raise torch.OutOfMemoryError("no memory left")
        return forward(self, images, *regions)

    monkeypatch.setattr(RegionNetwork, "forward", crowded)
    result = make_pseudo_masks([scan()] * 2, [[DISC]] * 2, crf=False, **quick())
    expected = "step 1: not enough memory, 1 of a mini-batch at once"
    assert result.notes[-1].startswith(expected)


def test_weights_of_a_file_are_learned_from_and_recorded(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.manual_seed(1)
    state = get_model("resnet18", weights=None).state_dict()
    save_file(state, path)
    result = make_pseudo_masks(scan(), [DISC], weights=path, crf=False, **quick())
    assert result.record["weights"] == str(path)
    random = make_pseudo_masks(scan(), [DISC], crf=False, **quick())
    first, other = (each.masks["image 1"].localization for each in (result, random))
    assert not np.array_equal(first, other)


# Background.


@pytest.mark.parametrize(
    ("wishes", "outside", "noted"),
    [
        ({"classes": TABLE}, 1, ""),
        ({"classes": ClassTable.from_values([3, 5])}, 0, "'class 3', has boxes"),
        ({}, 0, "there is no class table"),
        ({"background": 0}, 0, ""),
        ({"background": 9}, 9, ""),
        ({"background": "9"}, 9, ""),
        ({"background": 0, "classes": TABLE}, 0, ""),
        ({"background": "0", "classes": TABLE}, 0, ""),
        ({"background": 4, "classes": TABLE}, 4, ""),
        ({"background": "4", "classes": TABLE}, 4, ""),
        ({"background": "class 4", "classes": TABLE}, 4, ""),
        ({"background": "4", "classes": TABLE.renamed(1, "4")}, 1, ""),
    ],
)
def test_outside_of_boxes_is_the_background(
    wishes: dict[str, Any], outside: int, noted: str
) -> None:
    result = make_pseudo_masks(scan(), [DISC], method="ellipse", **wishes)
    labels = result.masks["image 1"].labels
    assert set(np.unique(labels[:20])) == {outside}
    # The corners of the box are in it, but not in the ellipse.
    assert labels[20, 30] == 0
    assert len(result.notes) == bool(noted)
    assert all(noted in note for note in result.notes)


@pytest.mark.parametrize(
    ("wishes", "kind", "words"),
    [
        ({"background": "liver"}, OptionError, "there is no class table"),
        ({"background": "liver", "classes": TABLE}, ClassTableError, "'liver'"),
        ({"background": 7, "classes": TABLE}, ClassTableError, "of value 7"),
        ({"background": -1}, OptionError, "the background is -1"),
        ({"background": 70000}, OptionError, "the background is 70000"),
        ({"background": 3}, OptionError, "boxes of this class are drawn"),
    ],
)
def test_a_background_that_cannot_be_is_refused(
    wishes: dict[str, Any], kind: type[SparseSegError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        make_pseudo_masks(scan(), [DISC], method="box", **wishes)


# Odd boxes are taken as far as they can be, and told about.


@pytest.mark.parametrize("method", ["box", "ellipse", "grabcut", "cam", "acol"])
@pytest.mark.parametrize(
    ("boxes", "noted"),
    [
        ([Box(-5, 25, 45, 60, 3)], "1 box clipped"),
        ([DISC, DISC], "the same box was given before"),
        ([DISC, Box(70, 0, 90, 5, 3)], "no pixel in the image"),
        ([DISC, Box(5, 5, 5, 9, 3)], "no pixel in the image"),
    ],
)
def test_odd_boxes(method: str, boxes: list[Box], noted: str) -> None:
    """What is made is that of the part of the first box in the image, alone."""
    result = make_pseudo_masks(scan(), boxes, background=1, **quick(method))
    part = boxes[0].clipped((64, 80))
    alone = make_pseudo_masks(scan(), [part], background=1, **quick(method))
    for name in ("labels", "localization"):
        made, expected = (
            getattr(each.masks["image 1"], name) for each in (result, alone)
        )
        np.testing.assert_array_equal(made, expected)
    assert result.record["boxes"] == {"image 1": 1}
    assert alone.notes == ()
    (note,) = result.notes
    assert note.startswith("image 1: ")
    assert noted in note


@pytest.mark.parametrize("method", ["box", "ellipse", "grabcut"])
def test_a_box_of_one_pixel_is_its_object(method: str) -> None:
    pixel = Box(9, 9, 10, 10, 3)
    result = make_pseudo_masks(scan(), [pixel], background=1, **quick(method))
    labels = result.masks["image 1"].labels
    assert np.argwhere(labels != 1).tolist() == [[9, 9]]
    assert labels[9, 9] == 3


@pytest.mark.parametrize("method", ["box", "ellipse", "grabcut"])
def test_a_box_larger_than_the_image_covers_it(method: str) -> None:
    everything = [Box(-9, -9, 99, 99, 3)]
    result = make_pseudo_masks(scan(), everything, background=1, **quick(method))
    labels = result.masks["image 1"].labels
    assert (labels != 1).all()
    assert labels[32, 40] == 3
    assert result.record["boxes"] == {"image 1": 1}


def test_images_without_a_box_are_left_out() -> None:
    result = make_pseudo_masks(
        [scan(), scan(seed=1)], [[], [DISC]], method="box", background=0
    )
    assert [*result.masks] == ["image 2"]
    assert result.notes == ("image 1: no box, left out",)


@pytest.mark.parametrize("method", ["cam", "acol"])
def test_where_boxes_of_one_image_cover_everything_the_others_show_background(
    method: str,
) -> None:
    result = make_pseudo_masks(
        [scan(), scan(seed=1)],
        [[Box(0, 0, 64, 80, 3)], [DISC]],
        background=1,
        **quick(method),
    )
    assert [*result.masks] == ["image 1", "image 2"]
    (note,) = result.notes
    assert "the boxes of 1 image(s) leave no room" in note


def test_a_constant_crop_goes_through_the_crf() -> None:
    image = scan()
    image[DISC.slices] = 100
    result = make_pseudo_masks(image, [DISC], method="ellipse", crf=True)
    inside = result.masks["image 1"].labels[DISC.slices]
    assert inside[10, 10] == 3
    assert (inside == 0).any()


# What is refused.

NAN = np.where(np.arange(5120).reshape(64, 80) == 7, np.nan, 1.5)


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"boxes": []}, LabelError, "no box on any of the 1 image"),
        (
            {"boxes": [Box(70, 0, 80, 9, 3)]},
            LabelError,
            "no box on any .* no pixel in the image",
        ),
        (
            {"boxes": [Box(0, 0, 9, 9, 2)], "classes": TABLE},
            LabelError,
            "image 1: .* class table: 2 of 1 box",
        ),
        (
            {"boxes": [Box(0, 0, 9, 9, 3, (4,))]},
            LabelError,
            "image 1: .* lies on no plane of the image",
        ),
        ({"boxes": [[DISC], [DISC]]}, LabelError, "1 image.* boxes of 2 are given"),
        ({"boxes": {"a": [DISC]}}, LabelError, "same name or place"),
        ({"boxes": DISC}, LabelError, r"boxes of image 1 are Box.*give a list of Box"),
        (
            {"images": [scan()], "boxes": [DISC]},
            LabelError,
            "boxes of image 1 are Box.*for each image",
        ),
        ({"images": {"a": scan()}, "boxes": {"a": DISC}}, LabelError, "boxes of a are"),
        ({"boxes": [(20, 30, 41, 51)]}, LabelError, r"image 1 are \(20, 30, 41, 51\)"),
        ({"boxes": [20, 30, 41, 51]}, LabelError, "boxes of image 1 are 20; give a"),
        (
            {"images": stack(0, 1), "boxes": [Box(0, 0, 9, 9, 3, (2,))]},
            LabelError,
            "image 1: .* on plane 2 lies on no plane",
        ),
        (
            {"images": stack(0, 1), "boxes": [DISC, Box(0, 0, 9, 9, 3, (1,))]},
            LabelError,
            "image 1: .* lies on no plane",
        ),
        (
            {"images": np.stack([scan(), NAN]), "boxes": [Box(0, 0, 9, 9, 3, (1,))]},
            ImageError,
            "image 1, plane 1 has 1 of 5120 values that are not finite",
        ),
        ({"images": {"a": scan()}}, LabelError, "the images have names"),
        ({"images": {}, "boxes": {}}, LabelError, "no box on any of the 0 image"),
        ({"images": NAN}, ImageError, "1 of 5120 values that are not finite"),
        ({"images": np.ones((64, 80))}, ImageError, "constant image"),
        ({"images": scan()[0]}, ImageError, r"shape \(80,\)"),
        ({"method": "grab-cut"}, OptionError, "'grab-cut'"),
        ({"method": "box", "crf": True}, OptionError, "nothing to refine"),
        ({"method": "crf-box", "crf": False}, OptionError, "consists of it"),
        ({"backbone": "vgg16"}, OptionError, "'vgg16'; expected one of resnet18"),
        ({"window": (40, 0)}, OptionError, "width 0"),
        ({"seconds": 0}, OptionError, "0 seconds"),
        ({"seconds": float("nan")}, OptionError, "nan seconds"),
        ({"epochs": 0}, OptionError, "epochs is 0"),
        ({"seed": -1}, OptionError, "the seed is -1"),
        ({"device": "tpu"}, OptionError, "'tpu' is not there"),
        (
            {"weights": "no/such/file.safetensors"},
            ModelFileError,
            "file.safetensors cannot be read",
        ),
        ({"boxes": [Box(0, 0, 64, 80, 3)]}, TrainingError, "leave no room"),
        ({"boxes": [Box(-9, -9, 99, 99, 3)]}, TrainingError, "leave no room"),
        (
            {"boxes": [Box(0, 0, 64, 80, 3)], "method": "sdi-box"},
            TrainingError,
            "leave no background",
        ),
        (
            {"images": np.stack([scan()] * 4, axis=-1)},
            ImageError,
            "channels",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(
    given: dict[str, Any], kind: type[SparseSegError], words: str
) -> None:
    arguments = quick("acol") | {"images": scan(), "boxes": [DISC]} | given
    with pytest.raises(kind, match=words) as error:
        make_pseudo_masks(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", get_args(Method))
def test_a_volume_whose_boxes_have_no_plane_is_refused(method: Method) -> None:
    with pytest.raises(ImageError, match=r"80 channels.*give each box its plane"):
        make_pseudo_masks(stack(0, 1), [Box(0, 3, 2, 40, 3)], **quick(method))


def other_network(path: Path) -> None:
    save_file(get_model("squeezenet1_1", weights=None).state_dict(), path)


def no_weights(path: Path) -> None:
    path.write_bytes(b"none")


@pytest.mark.parametrize(
    ("write", "words"),
    [(other_network, "another network than resnet18"), (no_weights, "cannot be read")],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, write: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "weights.safetensors"
    write(path)
    with pytest.raises(ModelFileError, match=words):
        make_pseudo_masks(scan(), [DISC], weights=path, **quick())


def test_boxes_in_which_nothing_was_found_are_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = BoxMask(DISC, np.zeros(DISC.shape, bool), np.zeros(DISC.shape, "f4"))

    def found(*_: object) -> Generator[None, None, BoxMask]:
        yield
        return nothing

    monkeypatch.setattr(methods, "grabcut_in_parts", found)
    result = make_pseudo_masks(
        scan(), [DISC], method="grabcut", background=1, classes=TABLE
    )
    (note,) = result.notes
    assert note.startswith("in 1 of 1 boxes nothing was found")
    assert not result.masks["image 1"].labels[DISC.slices].any()


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"methd": "box"}, "has no option methd; did you mean method"),
        ({"colour": 1}, "has no option colour; give method, crf"),
        ({"window": 40}, "the window is 40; expected centre and width"),
        ({"window": "40 400"}, "the window is '40 400'; expected centre and width"),
        ({"epochs": "3"}, "the number of epochs is '3'; expected a whole number"),
        ({"epochs": 1.5}, "the number of epochs is 1.5; expected a whole number"),
        ({"seed": 1.5}, "the seed is 1.5; expected a whole number"),
    ],
)
def test_wishes_that_mean_nothing_are_refused(
    wishes: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=re.escape(words)):
        make_pseudo_masks(scan(), [DISC], **{"method": "box"} | wishes)
    wishes.pop("epochs", None)
    if wishes and "methd" not in wishes:
        with pytest.raises(OptionError, match=re.escape(words.partition("; ")[0])):
            train(scan(), np.ones((64, 80), np.uint8), steps=1, **wishes)
