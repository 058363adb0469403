"""Models in ONNX files: the same probabilities, and all that is needed to use them."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from napari_sparseseg import api
from napari_sparseseg.annotations.classes import ClassTable
from napari_sparseseg.errors import OptionError, OutputError
from napari_sparseseg.inputs.normalisation import Normalisation
from napari_sparseseg.io import onnx_file
from napari_sparseseg.io.onnx_file import export_onnx
from napari_sparseseg.networks.image_statistics import uses_statistics
from napari_sparseseg.networks.model import (
    ModelInfo,
    Part,
    SegmentationModel,
    Shown,
    build_part,
)
from napari_sparseseg.networks.network_names import HeadFeatures, NetworkName
from napari_sparseseg.networks.registry import PRESETS, NetworkSpec, build_network

SMALL = NetworkSpec("unet", {"filters": 4, "levels": 2, "norm": "none"})
WINDOW = Normalisation("window", -160.0, 240.0)
CLASSES = ClassTable.from_values([2, 5, 300])


def model(
    spec: NetworkSpec = SMALL,
    in_channels: int = 3,
    shown: Shown = "network",
    head_features: HeadFeatures = "fixed",
) -> SegmentationModel:
    """Give a model with random weights that works at the resolution of the image."""
    info = ModelInfo(
        classes=CLASSES,
        in_channels=in_channels,
        normalisation=WINDOW,
        scales={"head": 1.0, "network": 1.0},
        shown=shown,
        network=spec,
        head_features=head_features,
        um_per_px=0.5,
    )
    torch.manual_seed(0)
    parts: dict[Part, Any] = {
        "head": build_part("head", info),
        "network": build_part("network", info),
    }
    parts["head"].centring.share.fill_(0.5)
    for part in parts.values():
        for layer in part.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                # As after some training: else it does nothing, and so shows nothing.
                assert layer.running_mean is not None
                layer.running_mean.uniform_(-0.1, 0.1)
    return SegmentationModel(info, parts)


def run(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"image": images})
    assert isinstance(probabilities, np.ndarray)
    return probabilities


def content_of(path: Path) -> dict[str, Any]:
    metadata = {each.key: each.value for each in onnx.load(path).metadata_props}
    entry = json.loads(metadata["napari-sparseseg"])
    assert (entry["kind"], entry["version"]) == ("onnx", 1)
    content: dict[str, Any] = entry["content"]
    return content


def agrees(exported: SegmentationModel, part: Part, path: Path) -> None:
    network = exported.parts[part]
    for n_images, height, width in ((1, 37, 45), (2, 64, 96), (1, 33, 50)):
        shape = (n_images, exported.info.in_channels, height, width)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode():
            expected = network(images).softmax(dim=1)
        found = run(path, images.numpy())
        np.testing.assert_allclose(found, expected, atol=2e-5)
        assert found.std() > 1e-3


@pytest.mark.parametrize("net", PRESETS)
def test_every_network_gives_the_same_probabilities(
    net: NetworkName, tmp_path: Path
) -> None:
    exported = model(PRESETS[net]["light"])
    export_onnx(exported, tmp_path / "m.onnx")
    agrees(exported, "network", tmp_path / "m.onnx")


@pytest.mark.parametrize(("in_channels", "part"), [(1, None), (3, "head")])
def test_the_head_gives_the_same_probabilities(
    in_channels: int, part: Part | None, tmp_path: Path
) -> None:
    exported = model(in_channels=in_channels, shown="both" if part else "head")
    agreement = export_onnx(exported, tmp_path / "m.onnx", part)
    agrees(exported, "head", tmp_path / "m.onnx")
    image = onnx_file._smooth_image(in_channels, *onnx_file.LEAST_PX).numpy()
    found = run(tmp_path / "m.onnx", image)[0]
    assert agreement is not None
    assert agreement.spread == pytest.approx(
        max(each.max() - each.min() for each in found), abs=1e-5
    )
    assert agreement.spread > 5e-3
    known = content_of(tmp_path / "m.onnx")
    assert known["part"] == "head"
    assert known["network"] is None
    assert known["statistics"] == "input"  # of its centring


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_head_that_looks_through_an_encoder_gives_the_same_probabilities(
    in_channels: int, tmp_path: Path
) -> None:
    exported = model(in_channels=in_channels, shown="head", head_features="resnet18")
    names = dict(exported.parts["head"].named_modules())
    assert any("encoder.layer1" in name for name in names)
    export_onnx(exported, tmp_path / "m.onnx")
    agrees(exported, "head", tmp_path / "m.onnx")


def test_a_network_of_one_channel_gives_the_same_probabilities(tmp_path: Path) -> None:
    exported = model(in_channels=1)
    export_onnx(exported, tmp_path / "m.onnx")
    agrees(exported, "network", tmp_path / "m.onnx")


def test_the_file_alone_is_enough_to_predict_an_image(tmp_path: Path) -> None:
    exported = model()
    path = tmp_path / "m.onnx"
    export_onnx(exported, path)
    image = np.random.default_rng(0).integers(-300, 400, (41, 53, 3)).astype(np.int16)
    expected, maps = api.predict(exported, image, probabilities=True, pixel_size_um=0.5)

    known = content_of(path)
    assert (known["in_channels"], known["channel_order"], known["scale"]) == (
        *(3, "RGB"),
        1.0,
    )
    low, high = (known["normalisation"][key] for key in ("low", "high"))
    seen = ((image - low) / (high - low)).clip(0, 1).astype(np.float32)
    (probabilities,) = run(path, seen.transpose(2, 0, 1)[None])
    values = np.array([each["value"] for each in known["classes"]["classes"]])
    np.testing.assert_allclose(probabilities, maps, atol=1e-5)
    np.testing.assert_array_equal(values[probabilities.argmax(axis=0)], expected)
    assert len(np.unique(expected)) > 1


def test_it_is_checked_on_an_image_that_is_no_noise() -> None:
    (image,) = onnx_file._smooth_image(3, 97, 98).numpy()
    assert 0 <= image.min() < image.max() <= 1
    left, right = image[:, :, :20], image[:, :, -20:]
    assert left.std() < 0.1 < right.std()
    assert np.abs(np.diff(image, axis=1)).mean() < 0.03


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.3, 0.8])
def test_the_code_of_the_page_gives_the_labels_of_the_model(
    scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exported = model()
    info = dataclasses.replace(exported.info, scales={"head": 1.0, "network": scale})
    exported = SegmentationModel(info, exported.parts)
    export_onnx(exported, tmp_path / "model.onnx")
    image = np.random.default_rng(0).integers(-300, 400, (61, 82, 3)).astype(np.int16)
    expected, maps = api.predict(exported, image, probabilities=True, pixel_size_um=0.5)
    page = (Path(__file__).parents[2] / "docs" / "onnx_file.md").read_text()
    (code,) = (part.split("```")[0] for part in page.split("```python\n")[1:])
    known: dict[str, Any] = {"image": image}
    exec(code, known)
    np.testing.assert_allclose(
        known["probabilities"].transpose(2, 0, 1), maps, atol=1e-5
    )
    np.testing.assert_array_equal(known["labels"], expected)


def test_tiles_with_the_halo_that_it_tells_are_the_whole(tmp_path: Path) -> None:
    export_onnx(model(), tmp_path / "m.onnx")
    known = content_of(tmp_path / "m.onnx")
    halo, stride = known["halo"], known["stride"]
    assert known["statistics"] == "none"
    image = np.random.default_rng(0).random((1, 3, 96, 96), dtype=np.float32)
    whole = run(tmp_path / "m.onnx", image)
    start = 48
    first = (start - halo) // stride * stride
    assert first > 0
    tile = run(tmp_path / "m.onnx", image[..., first:, first:])
    inner = start - first
    np.testing.assert_allclose(
        tile[..., inner:, inner:], whole[..., start:, start:], atol=1e-6
    )


def test_all_that_must_be_known_stands_in_it(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export_onnx(model(PRESETS["unet"]["light"]), path)
    known = content_of(path)
    assert known["classes"] == CLASSES.to_json()
    assert known["normalisation"] == {"kind": "window", "low": -160.0, "high": 240.0}
    assert known["um_per_px"] == 0.5
    assert known["part"] == "network"
    assert known["network"]["name"] == "unet"
    assert known["statistics"] == "input"  # of its group normalisation
    assert known["exported_by"]["torch"] == torch.__version__
    assert set(known) == set(content_of_documentation())


def content_of_documentation() -> list[str]:
    """Give the keys that the page on the file explains."""
    page = Path(__file__).parents[2] / "docs" / "onnx_file.md"
    rows = [row for row in page.read_text().splitlines() if row.startswith("| `")]
    return [row.split("`")[1] for row in rows]


def test_the_page_names_the_networks_with_statistics_of_the_input() -> None:
    using = []
    with torch.device("meta"):
        for net, presets in PRESETS.items():
            uses = {
                preset: uses_statistics(build_network(spec, 3, 2))
                for preset, spec in presets.items()
            }
            if any(uses.values()):
                light = "" if all(uses.values()) else "the light "
                assert uses["light"]
                using.append(f"{light}`{net}`")
    page = Path(__file__).parents[2] / "docs" / "onnx_file.md"
    words = " ".join(page.read_text().split())
    assert f'`"input"` ({", ".join(using)}, some heads)' in words


def test_where_both_predict_a_part_must_be_chosen(tmp_path: Path) -> None:
    both = model(shown="both")
    with pytest.raises(OptionError, match=r"mean of head and network.*choose the part"):
        export_onnx(both, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "part", "words"),
    [
        ("m.safetensors", None, r"'m.safetensors'; give a name that ends in .onnx"),
        ("m.onnx", "body", r"'body', but the model has head and network"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, name: str, part: Any, words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        export_onnx(model(), tmp_path / name, part)
    assert not list(tmp_path.iterdir())


def test_without_onnx_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(OptionError, match=r"pip install 'napari-sparseseg\[onnx\]'"):
        export_onnx(model(), tmp_path / "m.onnx")


def test_without_onnxruntime_it_is_written_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = model()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnxruntime", None)
        assert export_onnx(exported, tmp_path / "m.onnx") is None
    agrees(exported, "network", tmp_path / "m.onnx")


def test_libraries_that_are_too_old_are_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.errors.UnsupportedOperatorError("inverse", 17, None)

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(OutputError, match=r"cannot write the network as ONNX.*update"):
        export_onnx(model(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="its folder does not exist"):
        export_onnx(model(), tmp_path / "none" / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_with_other_probabilities_never_replaces_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    exported = model()
    agreement = export_onnx(exported, path)
    assert agreement is not None
    assert 0 <= agreement.difference < 1e-5
    good, trace = path.read_bytes(), onnx_file._trace

    def trace_the_head(exported: SegmentationModel, _: Part, path: Path) -> None:
        trace(exported, "head", path)

    monkeypatch.setattr(onnx_file, "_trace", trace_the_head)
    with pytest.raises(OutputError, match=r"network as ONNX.*differ by up to"):
        export_onnx(exported, path)
    assert path.read_bytes() == good
    assert [*tmp_path.iterdir()] == [path]
