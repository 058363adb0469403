"""Chunks of an image predicted by a dask.distributed cluster, or local processes.

Each worker opens the image and loads the model once, from the store that it writes the
chunks into: both must be in folders that all workers see under the same path. A chunk
whose worker died is predicted by another one.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from napari_sparseseg.errors import ClusterError, OptionError, OutputError
from napari_sparseseg.io.optional import library
from napari_sparseseg.prediction.large import ChunkPredictor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from distributed import Client

    from napari_sparseseg.prediction.large import ChunkDone, ChunkJob, ChunkRun

#: How long a scheduler may take to answer, in seconds: addresses are easily mistyped.
ANSWER_S = 20

#: How long the first worker may take to come, in seconds.
PATIENCE_S = 60

#: Runs sent ahead to each thread of a worker, so that none waits for the next.
SENT_AHEAD = 2

#: The pages of a local scheduler: on a free port, as another may have the usual one,
#: and for this machine alone.
UNSEEN = {"dashboard_address": "127.0.0.1:0"}

#: Layers of a network are told the statistics of an image, so one task at a time.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Tls:
    """Files in PEM format by which a cluster and its users know each other.

    Attributes
    ----------
    ca
        Certificate of the authority that signed all others.
    cert, key
        Certificate and private key of the user.
    """

    ca: Path
    cert: Path
    key: Path


@contextmanager
def connect(address: str | None, workers: int, tls: Tls | None) -> Iterator[Client]:
    """Connect to a cluster, or start one of this machine's processes.

    Parameters
    ----------
    address
        Of the scheduler, as ``tcp://host:8786`` or ``tls://host:8786``; None: local.
    workers
        How many processes a local one has.
    tls
        Certificates, for an address with TLS.

    Raises
    ------
    OptionError
        If there is no scheduler at the address, or dask.distributed is not installed.
    """
    distributed = library("distributed", "cluster", "Predictions by several processes")
    if address is None:
        import torch

        threads = max(1, torch.get_num_threads() // workers)
        with (
            distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=threads,
                dashboard_address=None,
                scheduler_kwargs=UNSEEN,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        security = tls and distributed.Security(
            tls_ca_file=str(tls.ca),
            tls_client_cert=str(tls.cert),
            tls_client_key=str(tls.key),
            require_encryption=True,
        )
        client = distributed.Client(address, security=security, timeout=ANSWER_S)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OptionError(
            f"there is no scheduler that answers at {address} ({reason}); give the "
            "address that dask scheduler prints, and its certificates if it has any.",
            address=address,
        ) from error
    with client:
        yield client


def iter_runs(
    client: Client,
    job: ChunkJob,
    model: Path,
    runs: Sequence[ChunkRun],
    device: str = "auto",
) -> Iterator[ChunkDone]:
    """Predict runs of chunks by the workers of a cluster, in any order.

    Parameters
    ----------
    client
        Of :func:`connect`.
    job
        What is predicted.
    model
        The file of the model.
    runs
        What is to be done.
    device
        Of each worker; ``"auto"``: a GPU of its own, where there are as many.

    Raises
    ------
    ClusterError
        If workers are missing, differ from this program, or die again and again.
    OutputError
        If workers do not see the folder of the store.
    SparseSegError
        What a worker says.
    """
    from distributed import CancelledError, as_completed
    from distributed.scheduler import KilledWorker

    n_threads = _check_workers(client, job)
    waiting = iter(runs)
    done = as_completed(
        _submit(client, job, model, device, islice(waiting, SENT_AHEAD * n_threads))
    )
    try:
        for future in done:
            chunks: list[ChunkDone] = future.result()
            for more in _submit(client, job, model, device, islice(waiting, 1)):
                done.add(more)
            yield from chunks
    except KilledWorker as error:
        raise ClusterError(
            "several workers of the cluster died at the same chunk, perhaps for want "
            "of memory; give them more, or ask for smaller tiles with --tile: the same "
            "command goes on where it stopped."
        ) from error
    except CancelledError as error:
        raise ClusterError(
            "the scheduler of the cluster is gone; the same command goes on where it "
            "stopped when it is back."
        ) from error
    finally:
        client.cancel(list(done.futures))


def predict_run(
    job: ChunkJob, model: Path, run: ChunkRun, device: str
) -> list[ChunkDone]:
    """Predict a run of chunks in a worker, with as many threads as it has."""
    import torch
    from distributed import get_worker

    with _ONE_AT_A_TIME:
        torch.set_num_threads(get_worker().state.nthreads)
        return list(_predictor(job, model, device).predict(run))


@lru_cache(maxsize=1)
def _predictor(job: ChunkJob, model: Path, device: str) -> ChunkPredictor:
    """Open the image and load the model once a worker."""
    from napari_sparseseg.io.model_file import load_model
    from napari_sparseseg.io.sources import open_image

    source = open_image(job.image, series=job.series)
    loaded = load_model(model).to(_own_device(device))
    return ChunkPredictor(loaded, source.levels[job.level], job)


def _own_device(device: str) -> str:
    """Return the device of this worker; of several GPUs the one of its name."""
    import torch
    from distributed import get_worker

    from napari_sparseseg.api import choose_device

    number, n_gpus = _number_in(get_worker().name), torch.cuda.device_count()
    if device == "auto" and n_gpus > 1 and number is not None:
        return f"cuda:{number % n_gpus}"
    return choose_device(device)


def _number_in(name: object) -> int | None:
    """Return the number of a worker, as of ``3`` or ``gpu-3``; an address has none."""
    found = re.fullmatch(r"(?:[^:]*-)?(\d+)", str(name))
    return None if found is None else int(found[1])


def _submit(
    client: Client,
    job: ChunkJob,
    model: Path,
    device: str,
    runs: Iterator[ChunkRun],
) -> list[Any]:
    # Not pure: what a chunk is worth lies on disk, and a second job is another one.
    return [
        client.submit(predict_run, job, model, run, device, pure=False) for run in runs
    ]


def _check_workers(client: Client, job: ChunkJob) -> int:
    """Return how many threads the workers have, and refuse what cannot work."""
    from napari_sparseseg.io.model_file import versions

    try:
        client.wait_for_workers(1, timeout=PATIENCE_S)
    except TimeoutError as error:
        raise ClusterError(
            f"the cluster has no worker, after {PATIENCE_S} s of waiting; start some "
            "with dask worker ADDRESS."
        ) from error
    try:
        found: dict[str, Any] = client.run(_examine, job.store, job.image)
    except Exception as error:
        raise ClusterError(
            f"a worker of the cluster cannot run this program ({error}); install "
            "napari-sparseseg there, in the version of here.",
        ) from error
    here = versions()["napari-sparseseg"]
    for worker, (version, sees) in found.items():
        if version != here:
            raise ClusterError(
                f"the worker {worker} has version {version} of napari-sparseseg, but "
                f"here is {here}; install the same everywhere.",
                worker=worker,
            )
        if not sees:
            raise OutputError(
                f"the worker {worker} does not see {job.store.parent} and {job.image}; "
                "use folders that all workers share, under the same path.",
                worker=worker,
            )
    return sum(client.nthreads().values())


def _examine(store: Path, image: Path) -> tuple[str, bool]:
    """Tell the version of a worker, and whether it sees what it needs."""
    from napari_sparseseg.io.model_file import versions

    return versions()["napari-sparseseg"], store.exists() and image.exists()
