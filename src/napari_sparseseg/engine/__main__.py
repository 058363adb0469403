"""``python -m napari_sparseseg.engine``: requests by stdin, events by stdout."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import queue
import signal
import sys
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING

import psutil

from napari_sparseseg.engine import messages
from napari_sparseseg.engine.log import log_to
from napari_sparseseg.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

#: What is slow to import, and so imported before it is needed.
SLOW = (
    "torch",
    "torch._dynamo",
    "kornia.filters",
    "skimage.measure",
    "napari_sparseseg.api",
)

#: What ``pip`` calls a package whose name in Python is another.
NAMES = {"skimage": "scikit-image", "napari_sparseseg": "napari-sparseseg"}

#: Where the window is drawn by the processor, the engine gives way by so much.
NICENESS = 10

#: When the window is gone, the engine ends after so many seconds whatever it does.
PATIENCE_S = 20.0

# Run as a program this module has no name of the package.
logger = logging.getLogger("napari_sparseseg.engine")


def main() -> int:
    """Run the engine until the window says so or is gone; return the exit code."""
    # Whoever paints in a terminal's napari and presses Ctrl+C ends the window only.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log_to(sys.stderr)
    source, target = take_streams()
    prepare_threads()
    requests: queue.SimpleQueue[messages.Request] = queue.SimpleQueue()

    def send(event: messages.Event) -> None:
        try:
            messages.write_message(target, event, messages.EVENTS)
        except OSError:  # the window is gone
            requests.put(messages.Shutdown())

    is_ready = threading.Event()

    def take(request: messages.Request) -> None:
        if isinstance(request, messages.Shutdown) and not is_ready.is_set():
            # Nothing has begun, and what is being imported would take seconds yet.
            os._exit(0)
        requests.put(request)

    threading.Thread(target=read_requests, args=(source, take), daemon=True).start()
    problem = import_slow(lambda module: send(messages.Starting(module=module)))
    if problem is not None:
        send(messages.Failed(request="ready", message=problem))
        return 1
    # Not before: where other programs take all cores, importing would take minutes.
    give_way()
    # Not before, since it loads torch.
    from napari_sparseseg.engine.worker import Worker

    is_ready.set()
    send(ready())
    Worker(requests, send).run()
    return 0


def take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Return stdin and stdout for messages alone; what is printed goes to stderr."""
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    target = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return source, target


def give_way() -> None:
    """Let the window go first where both want the same core: it must not stutter.

    Without a graphics card the window is drawn on all cores, the one that learns too.
    """
    if sys.platform == "win32":
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        return
    niceness = os.nice(NICENESS)
    if sys.platform == "linux":
        # There each thread has its own, and that of BLAS have begun by now.
        for thread in psutil.Process().threads():
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, thread.id, niceness)


def prepare_threads() -> None:
    """Leave one core to the window; must be called before torch is imported."""
    # Threads that wait actively slow everything else on a machine of few cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, n_cores() - 1)))


def n_cores() -> int:
    """Return the cores that this process may use."""
    if sys.platform == "linux":
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return count


def read_requests(source: IO[bytes], put: Callable[[messages.Request], None]) -> None:
    """Hand on requests until the window closes the stream, which ends the engine."""
    try:
        while (request := messages.read_message(source, messages.REQUESTS)) is not None:
            put(request)
    except (EngineError, OSError) as error:
        logger.error("the window cannot be understood: %s", error)
    put(messages.Shutdown())
    # What hangs must not be left behind.
    timer = threading.Timer(PATIENCE_S, os._exit, args=(1,))
    timer.daemon = True
    timer.start()


def import_slow(tell: Callable[[str], None] = lambda _: None) -> str | None:
    """Import what is slow; return one sentence where something cannot be imported.

    Parameters
    ----------
    tell
        Called with the name of each module before it is imported.
    """
    for module in SLOW:
        tell(module)
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            missing = getattr(error, "name", None) or module
            package = missing.partition(".")[0]
            reason = " ".join(str(error).split())
            return (
                f"{package} cannot be imported ({reason}); install it with "
                f"`pip install {NAMES.get(package, package)}`."
            )
    return None


def ready() -> messages.Ready:
    """Return what is here to compute with."""
    import torch

    from napari_sparseseg.api import available_devices
    from napari_sparseseg.io.model_file import versions

    threads = torch.get_num_threads()
    names: dict[str, Callable[[], str]] = {
        "cuda": torch.cuda.get_device_name,
        "mps": lambda: f"GPU of {platform.machine()}",
        "cpu": lambda: f"CPU, {threads} thread{'s' if threads > 1 else ''}",
    }
    devices = available_devices()
    return messages.Ready(
        versions=versions(),
        devices=devices,
        device_names=[names[device]() for device in devices],
    )


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Taking torch down in good order would take the window seconds of waiting.
    os._exit(code)
