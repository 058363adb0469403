"""Features on disk: what was put in comes out, whoever is killed, within a budget."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import zarr
from torch import nn
from zarr.storage import ZipStore

from napari_sparseseg.errors import OptionError
from napari_sparseseg.learning import feature_cache
from napari_sparseseg.learning.feature_cache import (
    ABANDONED_S,
    OVERHEAD,
    SUFFIX,
    CachedEncoder,
    FeatureCache,
    FeatureCacheOptions,
    bytes_of,
)
from napari_sparseseg.networks.encoders import build_encoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sparseseg.networks.encoders import Encoder

SIDE = 96

MIB = 1 << 20


def maps(seed: int = 0) -> list[NDArray[np.float16]]:
    """Draw two levels that no compression makes smaller, 87 kB."""
    rng = np.random.default_rng(seed)
    shapes = ((4, SIDE, SIDE), (6, SIDE // 4, SIDE // 4))
    return [rng.normal(size=shape).astype(np.float16) for shape in shapes]


def assert_same(
    found: Sequence[NDArray[Any]] | None, expected: Sequence[NDArray[Any]]
) -> None:
    assert found is not None
    assert [each.dtype for each in found] == [np.float16] * len(expected)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# What is kept.


@pytest.mark.parametrize("memory", [0, MIB])
def test_what_was_written_is_read_by_any_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(feature_cache, "MEMORY", memory)
    FeatureCache(tmp_path / "a" / "b", 10 * MIB).write("key", maps(), SIDE)
    other = FeatureCache(tmp_path / "a" / "b", 10 * MIB)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.delattr(pickle, name)
    assert_same(other.read("key"), maps())
    part = (slice(10, 80), slice(0, 5)), (slice(3, 4), slice(20, 24))
    expected = [each[:, y, x] for each, (y, x) in zip(maps(), part, strict=True)]
    for _ in range(2):
        assert_same(other.read("key", part), expected)
    assert other.read("another") is None
    assert os.stat(tmp_path / "a" / "b").st_mode & 0o077 == 0


def test_an_entry_is_zarr_in_half_precision_and_in_chunks(tmp_path: Path) -> None:
    FeatureCache(tmp_path, 10 * MIB).write("key", maps(), SIDE)
    (path,) = tmp_path.iterdir()
    with ZipStore(path, mode="r") as store:
        group: Any = zarr.open_group(store, mode="r")
        assert group.metadata.zarr_format == 3
        finest = group["0"]
        assert (finest.dtype, finest.shape) == (np.float16, (4, SIDE, SIDE))
        assert finest.chunks == (4, 64, 64)
        assert group["1"].chunks == (6, 16, 16)


# The budget.


def key_of(number: int) -> str:
    return f"{number:064x}"


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    FeatureCache(tmp_path, MIB).write(key_of(0), maps(0), SIDE)
    size = bytes_in(tmp_path)
    # Room is made for all that an entry may take: beside two others of this size.
    budget = sum(each.nbytes for each in maps()) + OVERHEAD + 2 * size + 100
    cache = FeatureCache(tmp_path, budget)
    for number in (1, 2):
        cache.write(key_of(number), maps(number), SIDE)
    for number in range(3):
        os.utime(tmp_path / f"{key_of(number)}{SUFFIX}", (number, number))
    assert_same(cache.read(key_of(0)), maps(0))  # and so used now
    cache.write(key_of(3), maps(3), SIDE)
    assert bytes_in(tmp_path) <= budget
    assert cache.read(key_of(1)) is None
    for number in (0, 2, 3):
        assert_same(cache.read(key_of(number)), maps(number))
    for number in range(4, 9):
        cache.write(key_of(number), maps(number), SIDE)
        assert bytes_in(tmp_path) <= budget
    assert_same(cache.read(key_of(8)), maps(8))


def test_files_of_others_stay_and_do_not_count(tmp_path: Path) -> None:
    names = ("scans.zip", "a.zarr.zip", ".hidden.zip", f"{key_of(1)[1:]}{SUFFIX}", "b")
    for name in names:
        (tmp_path / name).write_bytes(b"0" * MIB)
        os.utime(tmp_path / name, (0, 0))
    cache = FeatureCache(tmp_path, MIB // 2)
    for number in range(9):
        cache.write(key_of(number), maps(number), SIDE)
    assert all((tmp_path / name).stat().st_size == MIB for name in names)
    kept = [number for number in range(9) if cache.read(key_of(number)) is not None]
    assert len(kept) > 1
    assert len(kept) < 9


@pytest.mark.skipif(os.name == "nt", reason="rights are those of the folder there")
def test_only_the_user_reads_entries(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(0o002)
    try:
        FeatureCache(tmp_path, MIB).write("key", maps(), SIDE)
    finally:
        os.umask(before)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o755  # it is the user's own


def test_an_entry_larger_than_the_budget_is_not_kept(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, 50_000)
    cache.write("key", maps(), SIDE)
    assert cache.read("key") is None
    assert not any(tmp_path.iterdir())


def test_an_entry_that_another_process_removed_is_read_to_its_end(
    tmp_path: Path,
) -> None:
    cache = FeatureCache(tmp_path, 10 * MIB)
    cache.write("key", maps(), SIDE)
    assert_same(cache.read("key"), maps())
    (tmp_path / f"key{SUFFIX}").unlink()
    assert_same(cache.read("key"), maps())
    assert FeatureCache(tmp_path, 10 * MIB).read("key") is None


def test_memory_has_what_is_used_and_forgets_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(each.nbytes for each in maps())
    monkeypatch.setattr(feature_cache, "MEMORY", 2 * size)
    monkeypatch.setattr(feature_cache, "IDLE_READS", 3)
    cache = FeatureCache(tmp_path, 10 * MIB)
    part = ((slice(0, 2), slice(0, 2)),) * 2
    read_from_disk: list[str] = []
    arrays = cache._arrays

    def arrays_on_disk(key: str) -> list[Any]:
        read_from_disk.append(key)
        return arrays(key)

    monkeypatch.setattr(cache, "_arrays", arrays_on_disk)

    def read(key: str) -> bool:
        """Read an entry, and tell whether that was done from memory."""
        read_from_disk.clear()
        found = cache.read(key, part)
        expected = [each[:, :2, :2] for each in maps("abc".index(key))]
        assert_same(found, expected)
        assert sum(e.nbytes for of in cache._in_memory.values() for e in of) <= 2 * size
        return not read_from_disk

    for number, key in enumerate("abc"):
        cache.write(key, maps(number), SIDE)
    assert [read(key) for key in "ababab"] == [False, False, True, True, True, True]
    # A third one does not drive out what is in use,
    assert [read(key) for key in "cabcab"] == [False, True, True, False, True, True]
    # but what was not read for a while.
    assert [read(key) for key in "bbccba"] == [True, True, False, True, True, False]


# Misfortunes.


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
import zarr
from napari_sparseseg.learning.feature_cache import FeatureCache

create_array = zarr.Group.create_array

def create_first(self, name, **kwargs):
    if name == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return create_array(self, name, **kwargs)

zarr.Group.create_array = create_first
levels = [np.ones((4, 96, 96), np.float16), np.ones((6, 24, 24), np.float16)]
FeatureCache(Path(sys.argv[1]), 1 << 24).write("key", levels, 96)
"""


def test_killed_while_writing_leaves_no_entry(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    cache = FeatureCache(tmp_path, 10 * MIB)
    assert cache.read("key") is None
    cache.write("key", maps(), SIDE)
    assert_same(cache.read("key"), maps())
    assert left.exists()  # another process might still be writing it
    long_ago = time.time() - 2 * ABANDONED_S
    os.utime(left, (long_ago, long_ago))
    cache.write("another", maps(), SIDE)
    assert not left.exists()


def test_a_damaged_entry_is_as_if_there_were_none(tmp_path: Path) -> None:
    path = tmp_path / f"key{SUFFIX}"
    FeatureCache(tmp_path, 10 * MIB).write("key", maps(), SIDE)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for damaged in (b"", whole[:middle], flipped, b"PK no zip"):
        path.write_bytes(damaged)
        cache = FeatureCache(tmp_path, 10 * MIB)
        assert cache.read("key") is None
        assert not path.exists()
        cache.write("key", maps(), SIDE)
        assert_same(cache.read("key"), maps())


def test_an_entry_of_another_kind_is_no_entry(tmp_path: Path) -> None:
    path = tmp_path / f"key{SUFFIX}"
    with ZipStore(path, mode="w", compression=zipfile.ZIP_STORED) as store:
        group = zarr.create_group(store, zarr_format=3)
        group.create_array("0", data=np.zeros((1, 2, 2), np.float64))
    assert FeatureCache(tmp_path, 10 * MIB).read("key") is None


def test_a_full_disk_is_told_once_and_no_more_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = FeatureCache(tmp_path, 10 * MIB)
    cache.write("before", maps(), SIDE)
    monkeypatch.setattr(feature_cache, "_write_zarr", full)
    with pytest.warns(UserWarning, match="the disk is full") as told:
        cache.write("key", maps(), SIDE)
        cache.write("another", maps(), SIDE)
    assert len(told) == 1
    assert not cache.is_usable
    for name in ("before", "key", "another"):
        assert_same(cache.read(name), maps())
    assert [path.name for path in tmp_path.iterdir()] == [f"before{SUFFIX}"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = FeatureCache(tmp_path / "file" / "features", 10 * MIB)
    with pytest.warns(UserWarning, match="cannot be kept"):
        cache.write("key", maps(), SIDE)
    assert_same(cache.read("key"), maps())
    assert cache.read("another") is None


# Encoders.


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """Return the first layers of a ResNet, which writes down what it is given."""
    torch.manual_seed(0)
    return build_encoder("resnet18", levels=("conv1", "layer1")).eval()


def count_calls(encoder: Encoder) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    encoder["conv1"].register_forward_hook(
        lambda _layer, given, _result: shapes.append(tuple(given[0].shape))
    )
    return shapes


def convolution_of(encoder: Encoder) -> nn.Conv2d:
    """Return the first convolution behind the stem."""
    layers = encoder["layer1"].modules()
    return next(each for each in layers if isinstance(each, nn.Conv2d))


def test_features_are_computed_once_for_each_image_and_each_weights(
    tmp_path: Path, encoder: Encoder
) -> None:
    calls = count_calls(encoder)
    x, y = torch.rand(2, 1, 3, 32, 40)
    with torch.no_grad():
        expected = encoder(x)
    calls.clear()
    for _ in range(2):
        cached = CachedEncoder(encoder, FeatureCache(tmp_path, 10 * MIB))
        for found, level in zip(cached(x), expected, strict=True):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, level, rtol=1e-3, atol=1e-5)
    assert len(calls) == 1
    cached(y)
    cached(x[..., :32])
    assert len(calls) == 3
    with torch.no_grad():
        convolution_of(encoder).weight[0, 0, 0, 0] += 1
    CachedEncoder(encoder, FeatureCache(tmp_path, 10 * MIB))(x)
    assert len(calls) == 4
    dilated = build_encoder("resnet18", levels=("conv1", "layer1")).eval()
    dilated.load_state_dict(encoder.state_dict())
    convolution_of(dilated).dilation = convolution_of(dilated).padding = (2, 2)
    calls = count_calls(dilated)
    CachedEncoder(dilated, FeatureCache(tmp_path, 10 * MIB))(x)
    assert len(calls) == 1


def test_too_large_features_stay_finite(tmp_path: Path, encoder: Encoder) -> None:
    with torch.no_grad():
        for weights in encoder.parameters():
            weights.mul_(1e6)
    found: Tensor = CachedEncoder(encoder, FeatureCache(tmp_path, 10 * MIB))(
        torch.rand(1, 3, 16, 16)
    )[0]
    assert found.max() == 65504


def test_the_bytes_of_features_are_foreseen(tmp_path: Path, encoder: Encoder) -> None:
    levels = CachedEncoder(encoder, FeatureCache(tmp_path, 10 * MIB)).compute(
        torch.rand(1, 3, 44, 60)
    )
    assert bytes_of(encoder, (44, 60)) == sum(each.nbytes for each in levels)


# Options.


def test_auto_keeps_features_where_a_disk_is_quicker() -> None:
    assert FeatureCacheOptions().wants("cpu")
    assert not FeatureCacheOptions().wants("cuda")
    assert FeatureCacheOptions("on").wants("cuda")
    assert not FeatureCacheOptions("off").wants("cpu")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'maybe'.*auto, on, off"):
        FeatureCacheOptions("maybe")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="-1 bytes"):
        FeatureCacheOptions(budget_bytes=-1)
