"""Encoders: torchvision's features, how far they see, weights from files."""

from __future__ import annotations

import hashlib
import textwrap
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from napari_sparseseg.errors import ModelFileError, OptionError
from napari_sparseseg.networks import download, published_weights
from napari_sparseseg.networks.encoders import build_encoder, encoder_of
from napari_sparseseg.networks.published_weights import (
    PUBLISHED,
    EncoderName,
    PublishedWeights,
    fetch_in_parts,
    is_fetched,
    origin_of,
    published_path,
)
from tests.networks.reach import lose_no_path, reach

if TYPE_CHECKING:
    from torch import Tensor

    from tests.conftest import FileServer


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Weights of a ResNet-18 that nobody has published."""
    torch.manual_seed(1)
    state: dict[str, Tensor] = build_encoder("resnet18").state_dict()
    return state


#: For each level: channels, stride, and before and after of what feature 0 sees.
GEOMETRY = {
    # Two or three convolutions a level, then pooling over two pixels: 2; 2 + 2 * 2; ...
    "vgg16": [
        (64, 1, 2, 2),
        (128, 2, 6, 7),
        (256, 4, 18, 21),
        (512, 8, 42, 49),
        (512, 16, 90, 105),
    ],
    # 7x7; pooling over 3x3 at half the size and four convolutions at a quarter of it;
    # and so on, with one at the stride of before.
    "resnet18": [
        (64, 2, 3, 3),
        (64, 4, 5 + 16, 5 + 16),
        (128, 8, 21 + 4 + 24, 21 + 4 + 24),
        (256, 16, 49 + 8 + 48, 49 + 8 + 48),
        (512, 32, 105 + 16 + 96, 105 + 16 + 96),
    ],
}


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnet50"])
def test_features_are_those_of_torchvisions_network(name: EncoderName) -> None:
    from torchvision.models import get_model
    from torchvision.models.feature_extraction import create_feature_extractor

    nodes = {
        "vgg16": [f"features.{place}" for place in (3, 8, 15, 22, 29)],
        "resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    }
    nodes["resnet50"] = nodes["resnet18"]
    torch.manual_seed(0)
    ours = build_encoder(name).eval()
    prefix = "features." if name == "vgg16" else ""
    with torch.device("meta"):
        theirs = get_model(name).eval()
    theirs = create_feature_extractor(theirs, nodes[name])
    theirs.load_state_dict(ours.state_dict(prefix=prefix), assign=True)
    x = torch.rand(1, 3, 64, 32)
    with torch.inference_mode():
        expected = [*theirs(x).values()]
        found = ours(x)
    assert len(found) == 5
    shapes = [
        (channels, 64 // stride, 32 // stride)
        for channels, stride in zip(ours.channels, ours.strides, strict=True)
    ]
    assert [tuple(each.shape[1:]) for each in found] == shapes
    for each, same in zip(found, expected, strict=True):
        assert same.std() > 0
        torch.testing.assert_close(each, same)


@pytest.mark.parametrize("name", GEOMETRY)
def test_how_far_features_see_is_worked_by_hand(name: EncoderName) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name)
    found = [
        (level.channels, level.stride, level.before, level.after)
        for level in encoder.geometry()
    ]
    assert found == GEOMETRY[name]
    # Around the last of the pixels that a feature stands for, but for that of VGG16.
    halo = {"vgg16": (2, 7, 21, 49, 105), "resnet18": (4, 24, 56, 120, 248)}
    assert encoder.halo == halo[name]


@pytest.mark.parametrize(
    ("name", "level"), [("vgg16", "conv3_3"), ("resnet18", "layer2")]
)
def test_halo_is_how_far_features_reach(name: EncoderName, level: str) -> None:
    encoder = build_encoder(name, levels=(level,)).eval()
    (halo,), (stride,) = encoder.halo, encoder.strides
    lose_no_path(encoder)
    encoder.double()
    middle = 8 * stride
    found = [
        reach(lambda x: encoder(x)[0], at, middle // stride, 2 * middle + stride)
        for at in range(middle, middle + stride)
    ]
    assert max(found) == halo


def test_nothing_behind_the_last_level_is_kept() -> None:
    encoder = build_encoder("vgg16", levels=("conv1_2", "conv3_2"))
    assert [*encoder] == [str(place) for place in range(14)]
    assert (encoder.channels, encoder.strides) == ((64, 256), (1, 4))
    first, second = encoder(torch.rand(2, 1, 8, 12))
    assert (first.shape, second.shape) == ((2, 64, 8, 12), (2, 256, 2, 3))


@pytest.mark.parametrize("levels", [(), ("layer1",), ("conv1_2", "conv6_1")])
def test_levels_that_are_not_there_are_refused(levels: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match=r"to give .*; expected some of conv1_1"):
        build_encoder("vgg16", levels=levels)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_hashes_are_those_that_torchvision_publishes(name: EncoderName) -> None:
    from torchvision.models import get_model_weights

    # Others are VGG16 without its last layers, of another author.
    published = [
        each.value for each in get_model_weights(name) if "IMAGENET1K_V" in each.name
    ]
    host = "https://download.pytorch.org/models"
    known = PUBLISHED[name]
    assert [each.url for each in published] == [
        f"{host}/{name}-{prefix}.pth" for prefix in known.sha256
    ]
    assert published[0].meta["_file_size"] == known.size_mib


def test_published_weights_lie_in_the_cache_of_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cached() -> Path:
        return Path(torch.hub.get_dir(), "checkpoints", "vgg16-397923af.pth")

    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert published_path("vgg16") == cached()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert published_path("vgg16") == cached()
    monkeypatch.setenv("TORCH_HOME", "~/torch")
    assert published_path("vgg16") == cached()


def assert_loaded(resnet: Any, weights: dict[str, Tensor]) -> None:
    for key, value in resnet.state_dict().items():
        if not key.startswith("fc."):
            torch.testing.assert_close(value, weights[key])


def test_weights_come_from_a_safetensors_file(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = tmp_path / "mine.safetensors"
    # As files do that others wrote: no last layer, no count of mini-batches.
    kept = {
        key: value
        for key, value in weights.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    save_file(kept, path)
    assert_loaded(build_encoder("resnet18", path), weights)
    assert_loaded(build_encoder("resnet18", str(path)), weights)


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_published_file_is_known_by_its_hash_whatever_its_name(
    tmp_path: Path,
    weights: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    is_archive: bool,
) -> None:
    path = tmp_path / "renamed.pt"
    archive = {"_use_new_zipfile_serialization": is_archive}  # as torch 1.6, or before
    torch.save(OrderedDict(weights), path, **archive)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ModelFileError, match="no file of weights that torchvision"):
        build_encoder("resnet18", path)
    monkeypatch.setitem(PUBLISHED, "resnet18", PublishedWeights((digest[:8],), 1))
    assert_loaded(build_encoder("resnet18", path), weights)


def test_a_file_of_another_hash_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "resnet18-f37072fd.pth"
    path.write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(
        ModelFileError, match=r"begins with [0-9a-f]{8} and not with f37"
    ):
        build_encoder("resnet18", path)


def test_a_file_of_ones_own_becomes_one_that_is_taken_as_the_readme_says(
    tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(weights, "mine.pth")
    words = r"safetensors.*torchvision's resnet18 \(conv1\.weight, .* README"
    with pytest.raises(ModelFileError, match=words):
        build_encoder("resnet18", "mine.pth")
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (lines,) = (
        block.split("```")[0]
        for block in readme.split("```python\n")
        if "mine.pth" in block.split("```")[0]
    )
    exec(textwrap.dedent(lines), {})
    assert_loaded(build_encoder("resnet18", "mine.safetensors"), weights)


def test_weights_of_another_network_are_refused_in_one_sentence(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    path = tmp_path / "small.safetensors"
    save_file(weights, path)
    with pytest.raises(ModelFileError, match="another network than resnet50") as error:
        build_encoder("resnet50", path)
    assert "layer1.0.bn3.bias and 1" in str(error.value)
    assert str(error.value).count(". ") == 0
    head = {"head.weight": torch.zeros(3, 3)}
    save_file(weights | head, path)
    with pytest.raises(ModelFileError, match=r"as head\.weight are missing, not known"):
        build_encoder("resnet18", path)
    save_file(weights | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    with pytest.raises(ModelFileError, match=r"conv1\.weight are .* of another shape"):
        build_encoder("resnet18", path)


def test_the_encoder_of_weights_is_known_by_their_shapes(
    weights: dict[str, Tensor],
) -> None:
    assert encoder_of(weights) == "resnet18"
    with torch.device("meta"):
        for name in ("resnet50", "vgg16"):
            prefix = "features." if name == "vgg16" else ""
            given = build_encoder(name).state_dict(prefix=prefix)
            assert encoder_of(given) == name
    assert encoder_of({"conv1.weight": torch.zeros(64, 1, 7, 7)}) is None


@pytest.mark.parametrize(
    ("given", "origin"),
    [("ImageNet", "imagenet"), ("NONE", "none"), (Path("A.pth"), "A.pth")],
)
def test_names_of_weights_are_taken_in_any_case(given: str | Path, origin: str) -> None:
    assert origin_of(given) == origin


@pytest.mark.parametrize("given", ["", " "])
def test_weights_without_a_name_are_refused(given: str) -> None:
    with pytest.raises(OptionError, match="named ''; expected none, imagenet or a f"):
        origin_of(given)


def test_a_damaged_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    with pytest.raises(ModelFileError, match="cannot be read"):
        build_encoder("resnet18", path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelFileError, match="cannot be read"):
        build_encoder("resnet18", path)


def publish(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, url: str
) -> Path:
    """Let a file be published at a URL; return where torch's cache will have it."""
    prefix = hashlib.sha256(content).hexdigest()[:8]
    published = PublishedWeights((prefix,), len(content) / 2**20)
    monkeypatch.setitem(PUBLISHED, "resnet18", published)
    monkeypatch.setattr(published_weights, "PUBLISHED_AT", url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints" / f"resnet18-{prefix}.pth"


def test_imagenet_weights_are_downloaded_once_and_checked(
    tmp_path: Path,
    weights: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    file_server: FileServer,
) -> None:
    published = tmp_path / "published.pth"
    torch.save(OrderedDict(weights), published)
    content = published.read_bytes()
    cached = publish(monkeypatch, tmp_path, content, file_server.url)
    file_server.parts = [content]
    assert_loaded(build_encoder("resnet18", "imagenet"), weights)
    assert_loaded(build_encoder("resnet18", "imagenet"), weights)
    assert file_server.asked == [f"/{cached.name}"]
    # What is left of a download is as good as nothing.
    for left in (b"", content[:-2000], content + b"!" * 2000):
        cached.write_bytes(left)
        assert not is_fetched("resnet18")
        assert_loaded(build_encoder("resnet18", "imagenet"), weights)
        assert cached.read_bytes() == content
    assert len(file_server.asked) == 4
    # Of the size that is expected, and yet another file.
    cached.write_bytes(content[:-1] + b"!")
    words = "no file of weights that torchvision .*; delete the file, and it"
    with pytest.raises(ModelFileError, match=words):
        build_encoder("resnet18", "imagenet")
    assert len(file_server.asked) == 4


def test_where_weights_are_there_or_not_asked_for_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_server: FileServer
) -> None:
    cached = publish(monkeypatch, tmp_path, b"weights", file_server.url)
    assert not [*fetch_in_parts("resnet18", "none")]
    assert not [*fetch_in_parts("resnet18", tmp_path / "mine.safetensors")]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"weights")
    assert not [*fetch_in_parts("resnet18", "imagenet")]
    assert not file_server.asked
    with pytest.raises(OptionError, match="'vgg19'; expected one of resnet18"):
        next(fetch_in_parts("vgg19", "imagenet"))  # type: ignore[arg-type]


def test_without_a_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    cached = publish(monkeypatch, tmp_path, b"", "http://localhost")
    monkeypatch.setattr(download, "urlopen", unreachable)
    with pytest.raises(ModelFileError, match="no route to host") as error:
        build_encoder("resnet18", "imagenet")
    said = str(error.value)
    assert f"fetch http://localhost/{cached.name} on another computer" in said
    assert f"put it into the folder {cached.parent}" in said
    assert "give a file that holds them" in said
    assert "train --encoder-weights FILE" in str(error.value.values["option"])
