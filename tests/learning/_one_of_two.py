"""One of two processes: does all that is to be compared with one, writes what it found.

``python -m tests.learning._one_of_two FILE``, with the variables of torchrun.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

from napari_sparseseg.errors import LabelError, OptionError, SparseSegError
from napari_sparseseg.learning.balancing import BALANCINGS
from napari_sparseseg.learning.distributed import ALONE, Ranks, joined
from napari_sparseseg.learning.losses import LOSSES, MiniBatchLoss
from napari_sparseseg.learning.network_training import NetworkTraining
from napari_sparseseg.learning.options import TrainingOptions
from tests.learning.test_network_training import training

#: Patches of the joint mini-batch; the first process has the first half of them.
PATCHES, SIDE, CLASSES = 4, 12, 3

STEPS = 3

#: Of the loss: name, balancing, weight of the smoothness, labels.
LABELS = ("much and little", "a class on one", "nothing on one", "nothing")
LOSS_CASES = [*product(LOSSES, BALANCINGS, (0.0, 0.5), LABELS)]

#: Of a network: loss, patches at once, normalisation, dropout is none of them.
NETWORK_CASES: list[tuple[Any, int | None, str]] = [
    ("ce", None, "group"),
    ("ce", 1, "group"),
    ("dice", None, "group"),
    ("dice", 1, "group"),
    ("l1l2", None, "none"),
    ("ce", None, "batch"),
]


def labels_of(kind: str) -> Tensor:
    """Return (PATCHES, SIDE, SIDE) labels that differ much between the halves."""
    labels = torch.zeros(PATCHES, SIDE, SIDE, dtype=torch.int64)
    if kind == "nothing":
        return labels
    generator = Generator().manual_seed(0)
    drawn = torch.randint(1, CLASSES + 1, labels.shape, generator=generator)
    labels[0] = drawn[0]
    labels[1, :3] = 2
    if kind == "much and little":
        labels[2, 0, :4] = torch.tensor([1, 1, 2, 3])
    if kind == "a class on one":
        labels[labels == 3] = 1
        labels[3, :, :2] = 3
    return labels


def loss_and_gradient(
    case: tuple[Any, Any, float, str], ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """Return the joint loss, and its gradient by the scores of this process."""
    name, balancing, smoothness, kind = case
    options = TrainingOptions(loss=name, balancing=balancing, smoothness=smoothness)
    generator = Generator().manual_seed(1)
    scores = torch.randn(PATCHES, CLASSES, SIDE, SIDE, generator=generator)
    inside = torch.ones(PATCHES, SIDE, SIDE, dtype=torch.bool)
    inside[3, 5:] = False
    share = ranks.share_of(PATCHES)
    mine = scores[share].requires_grad_()
    loss = MiniBatchLoss(options, labels_of(kind)[share], inside[share], ranks)
    found = loss(mine, slice(None))
    found.backward()
    assert mine.grad is not None
    whole = found.detach()
    return (ranks.sum(whole) if loss.is_sum else whole), mine.grad


def trained(
    case: tuple[Any, int | None, str], ranks: Ranks
) -> tuple[NetworkTraining, list[float]]:
    """Return a network after some steps, and their losses."""
    loss, micro_batch, norm = case
    network = training(
        loss=loss,
        balancing="mini-batch",
        smoothness=0.1,
        micro_batch=micro_batch,
        norm=norm,
        ranks=ranks,
        optimiser="sgd",
    )
    return network, [network.step() for _ in range(STEPS)]


@contextmanager
def noting(found: dict[str, Tensor], name: str) -> Iterator[None]:
    """Keep the sentence of an error."""
    try:
        yield
    except (SparseSegError, torch.OutOfMemoryError) as error:
        sentence = f"{type(error).__name__}: {error}"
        found[name] = torch.tensor(list(sentence.encode()), dtype=torch.uint8)


def fail(error: Exception) -> None:
    raise error


def failures(found: dict[str, Tensor], ranks: Ranks) -> None:
    """Let each process fail, and go on together."""
    is_last = ranks.rank == 1
    with noting(found, "first fails"), ranks.failing_together():
        if ranks.is_first:
            raise LabelError("the labels of the first")
    with noting(found, "last fails"), ranks.failing_together():
        if is_last:
            raise LabelError("the labels of the last")
        ranks.from_first(1)
    with noting(found, "both fail"), ranks.failing_together():
        fail(OptionError("the option"))
    with noting(found, "memory"), ranks.sharing_memory_errors():
        if is_last:
            raise torch.OutOfMemoryError("mine")
    with noting(found, "others' labels"):
        ranks.check_same(lambda: ["labels", ranks.rank])
    with noting(found, "none fails"), ranks.failing_together():
        ranks.check_same(lambda: ["labels", 0.1])


def main(path: Path) -> None:
    """Write what this process found."""
    torch.set_num_threads(1)
    found: dict[str, Tensor] = {}
    with joined("cpu") as ranks:
        for index, case in enumerate(LOSS_CASES):
            loss, gradient = loss_and_gradient(case, ranks)
            found |= {f"loss {index}": loss, f"gradient {index}": gradient}
        for index, each in enumerate(NETWORK_CASES):
            network, losses = trained(each, ranks)
            found[f"losses {index}"] = torch.tensor(losses)
            for name, value in network.network.state_dict().items():
                found[f"network {index} {name}"] = value
        failures(found, ranks)
        told = ranks.from_first({"rank": ranks.rank, "names": ["ä"]})
        assert told == {"rank": 0, "names": ["ä"]}
        assert ranks.highest(10 - ranks.rank) == 10
        assert ranks.any(ranks.rank == 1)
        assert not ranks.any(False)
        with pytest.raises(OptionError):
            ranks.share_of(1)
        save_file({key: each.contiguous() for key, each in found.items()}, path)
        ranks.wait()
    assert ALONE.share_of(1) == slice(0, 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
