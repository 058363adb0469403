"""Two processes that learn together: what they find is what one finds alone."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Generator, Tensor

from napari_sparseseg.errors import OptionError, TrainingError
from napari_sparseseg.learning import distributed
from napari_sparseseg.learning.distributed import ALONE, VARIABLES, Ranks, joined
from napari_sparseseg.learning.patches import PatchSampler
from tests.learning._one_of_two import (
    LOSS_CASES,
    NETWORK_CASES,
    PATCHES,
    loss_and_gradient,
    trained,
)
from tests.learning.test_network_training import training

REPOSITORY = Path(__file__).resolve().parents[2]

Found = tuple[dict[str, Tensor], dict[str, Tensor]]


def variables(rank: int, port: int, count: int = 2) -> dict[str, str]:
    """Return what torchrun tells a process of this computer."""
    values = (rank, rank, count, "127.0.0.1", port)
    return dict(zip(VARIABLES, map(str, values), strict=True))


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return what each of two processes has found."""
    port, folder = free_port(), tmp_path_factory.mktemp("both")
    files = [folder / "0", folder / "1"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.learning._one_of_two", str(file)],
            cwd=REPOSITORY,
            env=os.environ | variables(rank, port),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, file in enumerate(files)
    ]
    try:
        for process in processes:
            _, err = process.communicate(timeout=900)
            assert process.returncode == 0, err
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return load_file(files[0]), load_file(files[1])


@pytest.mark.parametrize("index", range(len(LOSS_CASES)), ids=str)
def test_loss_and_gradient_are_those_of_the_joint_mini_batch(
    both: Found, index: int
) -> None:
    loss, gradient = loss_and_gradient(LOSS_CASES[index], ALONE)
    for rank, found in enumerate(both):
        mine = slice(rank * PATCHES // 2, (rank + 1) * PATCHES // 2)
        torch.testing.assert_close(found[f"loss {index}"], loss.detach())
        torch.testing.assert_close(
            found[f"gradient {index}"], gradient[mine], rtol=1e-5, atol=1e-8
        )


@pytest.mark.parametrize(
    ("index", "case"),
    [each for each in enumerate(NETWORK_CASES) if each[1][2] != "batch"],
)
def test_a_network_learns_what_one_process_would_teach_it(
    both: Found, index: int, case: tuple[str, int | None, str]
) -> None:
    network, losses = trained(case, ALONE)
    for found in both:
        torch.testing.assert_close(
            found[f"losses {index}"], torch.tensor(losses), rtol=1e-4, atol=1e-6
        )
        for name, value in network.network.state_dict().items():
            torch.testing.assert_close(
                found[f"network {index} {name}"], value, rtol=1e-3, atol=1e-6
            )


def test_weights_and_running_statistics_are_the_same_everywhere(both: Found) -> None:
    first, second = (
        {name: value for name, value in found.items() if name.startswith("network")}
        for found in both
    )
    assert any("running_mean" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_error_of_one_is_told_to_all(both: Found) -> None:
    def told(name: str) -> list[str]:
        return [bytes(found[name].tolist()).decode() for found in both]

    assert told("first fails") == [
        "LabelError: the labels of the first",
        "_SharedError: the labels of the first",
    ]
    assert told("last fails") == [
        "_SharedError: process 1: the labels of the last",
        "_SharedError: process 1: the labels of the last",
    ]
    assert told("both fail") == ["OptionError: the option", "_SharedError: the option"]
    assert told("memory") == [
        "OutOfMemoryError: memory failed on another process",
        "OutOfMemoryError: mine",
    ]
    assert all("run the same command" in each for each in told("others' labels"))
    assert not any("none fails" in found for found in both)


class Second(Ranks):
    """The second of three processes, which reaches nobody."""

    rank, count = 1, 3


def test_shares_are_a_partition_as_even_as_can_be() -> None:
    ranks = [Ranks() for _ in range(3)]
    for rank, each in enumerate(ranks):
        each.rank, each.count = rank, 3
    shares = [[*range(8)][each.share_of(8)] for each in ranks]
    assert sorted(number for share in shares for number in share) == [*range(8)]
    assert sorted(map(len, shares)) == [2, 3, 3]


def test_more_processes_than_patches_are_refused() -> None:
    with pytest.raises(OptionError, match="has 2 patches, too few for 3 processes"):
        Second().share_of(2)
    with pytest.raises(OptionError, match="start at most 2"):
        training(batch=2, ranks=Second())


def test_a_share_of_a_mini_batch_is_what_it_is_in_the_whole() -> None:
    sampler = training(norm="group")._sampler
    assert isinstance(sampler, PatchSampler)
    generators = [Generator().manual_seed(3) for _ in range(3)]
    whole = sampler.draw(5, generators[0])
    parts = [
        sampler.draw(5, generator, share)
        for generator, share in zip(
            generators[1:], (slice(0, 2), slice(2, 5)), strict=True
        )
    ]
    for name, expected in whole._asdict().items():
        found = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    # Whatever is drawn next is the same, too.
    states = [generator.get_state() for generator in generators]
    assert all(torch.equal(state, states[0]) for state in states)


def set_up(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("values", [{}, {"WORLD_SIZE": "1"}, {"RANK": "3"}])
def test_a_process_that_nobody_started_beside_others_is_alone(
    monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]
) -> None:
    set_up(monkeypatch, values)
    with joined("cpu") as ranks:
        assert ranks is ALONE
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("changes", "device", "message"),
    [
        ({"WORLD_SIZE": "two"}, "cpu", "WORLD_SIZE is 'two'; expected a whole number"),
        ({"RANK": "-1"}, "cpu", "RANK is '-1'; expected a whole number"),
        ({}, "mps", "the device mps cannot be shared .* give cuda"),
        ({}, "cuda:1", "the device cuda:1 cannot be shared"),
        ({"LOCAL_RANK": "99"}, "cuda", "process 99 of this host has no GPU of its own"),
    ],
)
def test_a_set_up_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    device: str,
    message: str,
) -> None:
    set_up(monkeypatch, variables(0, free_port()) | changes)
    with pytest.raises(OptionError, match=message), joined(device):
        pass


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"})
    with (
        pytest.raises(OptionError, match=r"MASTER_ADDR, MASTER_PORT is not set; start"),
        joined("cpu"),
    ):
        pass


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_finds_no_other_says_so(
    monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    port = free_port()
    set_up(monkeypatch, variables(rank, port))
    monkeypatch.setattr(distributed, "CONNECTION_TIME", timedelta(seconds=0.2))
    with (
        pytest.raises(TrainingError, match=f"process {rank} of 2 cannot .*:{port} "),
        joined("cpu"),
    ):
        pass
    assert not torch.distributed.is_initialized()
