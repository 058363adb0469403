"""``torchrun``: the same labels each time, one stop ends all, one may go on alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
import torch
from safetensors.torch import load_file

from napari_sparseseg.io.model_file import load_model
from napari_sparseseg.samples import tissue_phantom
from tests.conftest import Run
from tests.learning.test_distributed import free_port, variables

COMMAND = (sys.executable, "-m", "napari_sparseseg.cli")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two images and their strokes."""
    folder = tmp_path_factory.mktemp("place")
    for seed in range(2):
        sample = tissue_phantom(seed, (128, 128))
        for name, array in (("images", sample.image), ("strokes", sample.labels)):
            (folder / name).mkdir(exist_ok=True)
            tifffile.imwrite(folder / name / f"{seed}.tif", array)
    return folder


def arguments(place: Path, model: Path, *more: object) -> list[str]:
    return [
        *("train", str(place / "images"), str(place / "strokes")),
        *("--model", str(model), "--device", "cpu", "--preset", "light"),
        *("--scale", "0.25", "--head-start", "off", *map(str, more)),
    ]


class Pair:
    """The command as two processes, started as torchrun starts them."""

    def __init__(self, *given: str) -> None:
        port = free_port()
        self.processes = [
            subprocess.Popen(
                [*COMMAND, *given],
                env=os.environ | variables(rank, port),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.processes:
            each.kill()
            each.communicate()

    def ended(self) -> list[tuple[int, str, str]]:
        """Return exit code, output and errors of each."""
        found = []
        for each in self.processes:
            out, err = each.communicate(timeout=900)
            found.append((each.returncode, out, err))
        return found


@pytest.mark.slow
def test_the_documented_command_and_a_pair_learn_the_same(
    place: Path, tmp_path: Path
) -> None:
    models = [tmp_path / f"{name}.safetensors" for name in ("torchrun", "pair")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", str(free_port()), "-m", "napari_sparseseg.cli"),
            *arguments(place, models[0], "--steps", 3),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved:") == 1
    assert done.stdout.count("no class table") == 1
    with Pair(*arguments(place, models[1], "--steps", 3)) as pair:
        first, second = pair.ended()
    assert first[0] == second[0] == 0, (first, second)
    assert second[1:] == ("", "")
    weights = [load_file(path) for path in models]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    training = load_model(models[0]).info.training
    assert (training["steps"], training["processes"]) == (3, 2)


def test_a_stop_of_one_ends_both_and_one_goes_on(
    place: Path, tmp_path: Path, run: Run
) -> None:
    model = tmp_path / "model.safetensors"
    with Pair(*arguments(place, model, "--steps", 100_000)) as pair:
        first, second = pair.processes
        assert first.stdout is not None
        while not first.stdout.readline().startswith("learning"):
            assert first.poll() is None
        second.send_signal(signal.SIGTERM)
        found = pair.ended()
    assert [code for code, _, _ in found] == [130, 130], found
    assert "--resume" in found[0][1]
    assert "Traceback" not in found[0][2] + found[1][2]
    steps = load_model(model).info.training["steps"]
    assert f"stopped after {steps} steps" in found[0][1]

    done = run(*arguments(place, model, "--steps", 2, "--resume"))
    assert done.code == 0, done.err
    training = load_model(model).info.training
    assert (training["steps"], training["processes"]) == (steps + 2, 1)


@pytest.mark.slow
def test_a_process_that_dies_leaves_the_first_a_checkpoint(
    place: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.safetensors"
    with Pair(*arguments(place, model, "--steps", 100_000)) as pair:
        first, second = pair.processes
        assert first.stdout is not None
        while not first.stdout.readline().startswith("learning"):
            assert first.poll() is None
        second.kill()
        code, _, err = pair.ended()[0]
    assert code == 2
    assert "error: another process of this training has ended" in err
    assert "Traceback" not in err
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "model.checkpoint.safetensors",
        "model.safetensors",
    ]


def test_bad_input_is_told_once(place: Path, tmp_path: Path) -> None:
    given = arguments(place, tmp_path / "model.safetensors", "--loss", "none")
    with Pair(*given) as pair:
        first, second = pair.ended()
    assert first[0] == second[0] == 2
    assert first[2].startswith("error: the loss is 'none'; expected one of")
    assert second[1:] == ("", "")
