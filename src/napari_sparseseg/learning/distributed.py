"""Several processes that learn one network, each from its part of every mini-batch.

All of them draw the same joint mini-batch, and each cuts out its own patches. Whatever
the loss divides by is summed over the processes, and so are the gradients: the weights
move as those of one process with the whole mini-batch would, and are the same
everywhere. The first process fits the head, validates, writes and speaks; what it finds
is told to the others, which decide alike.

The gradients are summed by one call after the last part of a mini-batch. torch's
``DistributedDataParallel`` would take their mean, and once a part.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_sparseseg.errors import OptionError, SparseSegError, TrainingError
from napari_sparseseg.networks.memory import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: What torchrun tells each of its processes.
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

#: So long the processes may take to find each other.
CONNECTION_TIME = timedelta(minutes=2)

#: So long they wait for one that fits the head, validates or writes.
PATIENCE = timedelta(hours=2)


class ProcessLostError(TrainingError):
    """Another process of the training has ended, or does not answer."""


class Ranks:
    """The processes of a training, seen by one of them. Here: it is the only one.

    Attributes
    ----------
    rank
        Number of this process, from 0.
    count
        Of processes.
    is_first_of_host
        Whether it is the first one on its computer.
    """

    rank = 0
    count = 1
    is_first_of_host = True

    @property
    def is_first(self) -> bool:
        """Whether this process fits the head, validates, writes and speaks."""
        return self.rank == 0

    def share_of(self, n_patches: int) -> slice:
        """Return which patches of a joint mini-batch this process learns from.

        Raises
        ------
        OptionError
            If a process would get none.
        """
        if n_patches < self.count:
            raise OptionError(
                f"a mini-batch of this recipe has {n_patches} patches, too few for "
                f"{self.count} processes; start at most {n_patches}.",
                n_patches=n_patches,
                count=self.count,
            )
        return slice(
            self.rank * n_patches // self.count,
            (self.rank + 1) * n_patches // self.count,
        )

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes.

        Its gradient goes to the tensor of this process; each sends that of its own.
        """
        return x

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""

    def highest(self, number: int) -> int:
        """Return the highest of the numbers that the processes give."""
        return number

    def any(self, wish: bool) -> bool:
        """Tell whether any process wishes something."""
        return wish

    def from_first(self, value: Any) -> Any:
        """Return the JSON value of the first process."""
        return value

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Let an error that the user is told of end all processes.

        All reach the end of the block, or what is sent by :meth:`from_first` within.
        """
        yield

    @contextmanager
    def sharing_memory_errors(self) -> Iterator[None]:
        """Raise torch.OutOfMemoryError on all processes if memory fails on one.

        Nothing is sent within the block.
        """
        yield

    def check_same(self, facts: Callable[[], Any]) -> None:
        """Raise OptionError unless the processes know the same facts, JSON values."""

    def wait(self) -> None:
        """Wait until all processes are here."""


#: A process that learns alone.
ALONE = Ranks()


class SeveralRanks(Ranks):
    """Processes that reach each other through torch.distributed.

    Parameters
    ----------
    rank, count, is_first_of_host
        As of :class:`Ranks`.
    group
        The process group; tensors on the CPU can be sent in it.
    """

    def __init__(
        self, rank: int, count: int, is_first_of_host: bool, group: Any
    ) -> None:
        self.rank = rank
        self.count = count
        self.is_first_of_host = is_first_of_host
        self._group = group

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        total: Tensor = _Sum.apply(x, self)
        return total

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, by one call."""
        flat = torch.cat([each.flatten() for each in tensors])
        self._reduce(flat, "SUM")
        for each, part in zip(
            tensors, flat.split([each.numel() for each in tensors]), strict=True
        ):
            each.copy_(part.view_as(each))

    def highest(self, number: int) -> int:
        """Return the highest of the numbers that the processes give."""
        numbers = torch.tensor(number)
        self._reduce(numbers, "MAX")
        return int(numbers)

    def any(self, wish: bool) -> bool:
        """Tell whether any process wishes something."""
        return bool(self.highest(int(wish)))

    def from_first(self, value: Any) -> Any:
        """Return the JSON value of the first process."""
        return self._exchange(value)[0]

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Let an error that the user is told of end all processes."""
        try:
            yield
        except (_SharedError, ProcessLostError):
            raise
        except SparseSegError as error:
            self._exchange(None, error)
            raise
        self._exchange(None)

    @contextmanager
    def sharing_memory_errors(self) -> Iterator[None]:
        """Raise torch.OutOfMemoryError on all processes if memory fails on one."""
        found: Exception | None = None
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            found = error
        if self.any(found is not None):
            raise found or torch.OutOfMemoryError("memory failed on another process")

    def check_same(self, facts: Callable[[], Any]) -> None:
        """Raise OptionError unless the processes know the same facts."""
        known = self._exchange(facts())
        if any(each != known[0] for each in known):
            raise OptionError(
                "the processes were not given the same images, labels, options or "
                "checkpoint; run the same command on all hosts, where they see the "
                "same files."
            )

    def wait(self) -> None:
        """Wait until all processes are here."""
        self._exchange(None)

    def reduced(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, without gradient."""
        total = x.detach().clone()
        self._reduce(total, "SUM")
        return total

    def _exchange(self, value: Any, error: SparseSegError | None = None) -> list[Any]:
        """Return the JSON values of all processes, or raise the first error of one."""
        mine = json.dumps([value, None if error is None else str(error)]).encode()
        found = [json.loads(self._send(mine, rank)) for rank in range(self.count)]
        if error is not None and self.is_first:
            return []  # it is raised by who calls
        for rank, (_, sentence) in enumerate(found):
            if sentence is not None:
                where = "" if rank == 0 else f"process {rank}: "
                raise _SharedError(f"{where}{sentence}")
        return [each for each, _ in found]

    def _send(self, mine: bytes, source: int) -> bytes:
        """Return the bytes of a process."""
        import torch.distributed as dist

        size = torch.tensor(len(mine))
        with _reaching_others():
            dist.broadcast(size, source, group=self._group)
            content = torch.zeros(int(size), dtype=torch.uint8)
            if source == self.rank:
                content = torch.frombuffer(bytearray(mine), dtype=torch.uint8)
            dist.broadcast(content, source, group=self._group)
        return content.numpy().tobytes()

    def _reduce(self, x: Tensor, operation: str) -> None:
        import torch.distributed as dist

        with _reaching_others():
            dist.all_reduce(x, getattr(dist.ReduceOp, operation), group=self._group)


class _SharedError(TrainingError):
    """An error that all processes know of already."""


class _Sum(torch.autograd.Function):
    """The sum over all processes; the gradient of each is that of its own part."""

    @staticmethod
    def forward(_: Any, x: Tensor, ranks: SeveralRanks) -> Tensor:
        """Return the sum."""
        return ranks.reduced(x)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of this process."""
        return gradients[0], None


@contextmanager
def _reaching_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what gloo raises has no class of its own
        if is_out_of_memory(error):
            raise
        raise ProcessLostError(
            "another process of this training has ended or does not answer; see what "
            "it says, and go on with --resume."
        ) from error


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun has started; alone where it has not.

    Parameters
    ----------
    device
        ``"cpu"``, over gloo, or ``"cuda"``, over NCCL: each process of a host takes
        the GPU of its number.

    Raises
    ------
    OptionError
        If the set-up is not complete, or the device cannot be shared like that.
    TrainingError
        If the processes do not find each other.
    """
    count = _whole("WORLD_SIZE", os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise OptionError(
            f"WORLD_SIZE is {count}, as if this were one of several processes, but "
            f"{', '.join(missing)} is not set; start them by torchrun, or unset "
            "WORLD_SIZE.",
            missing=missing,
        )
    rank = _whole("RANK", os.environ["RANK"])
    local_rank = _whole("LOCAL_RANK", os.environ["LOCAL_RANK"])
    _take_device(device, local_rank)
    import torch.distributed as dist

    try:
        yield SeveralRanks(rank, count, local_rank == 0, _connect(device))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _connect(device: str) -> Any:
    """Return the group of all processes."""
    import torch.distributed as dist

    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=CONNECTION_TIME)
        return dist.new_group(timeout=PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise TrainingError(
            f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} cannot reach "
            f"the others through {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} ({reason}); start all by torchrun with the "
            "same address, which every host can reach."
        ) from error


def _take_device(device: str, local_rank: int) -> None:
    """Let ``"cuda"`` mean the GPU of this process."""
    if device == "cpu":
        return
    if device != "cuda":
        raise OptionError(
            f"the device {device} cannot be shared by several processes; give cuda, of "
            "which each takes one, or cpu.",
            device=device,
        )
    n_devices = torch.cuda.device_count()
    if local_rank >= n_devices:
        raise OptionError(
            f"process {local_rank} of this host has no GPU of its own, there are "
            f"{n_devices}; start at most as many processes (--nproc-per-node) on it.",
            local_rank=local_rank,
            n_devices=n_devices,
        )
    torch.cuda.set_device(local_rank)


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise OptionError(
            f"the variable {name} is {text!r}; expected a whole number, as torchrun "
            "sets it: start by torchrun, or unset it."
        )
    return int(text)
