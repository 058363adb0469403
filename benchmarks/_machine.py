"""What the numbers were measured on, and processes of their own to measure in."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import platform
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

#: Linux tells the peak memory of a process here; ``resource`` would count the peak of
#: the process that it was forked from too.
STATUS = Path("/proc/self/status")


def machine(*packages: str) -> dict[str, Any]:
    """Describe this machine and the versions of torch and *packages*.

    Returns
    -------
    dict
        JSON values: processor, cores (all, and those this process may use), threads
        of torch, GPU or None, system, versions (None where not installed).
    """
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "system": platform.system(),
        "versions": {
            "python": platform.python_version(),
            **{name: version_of(name) for name in ("torch", *packages)},
        },
    }


def sentence(machine: dict[str, Any]) -> str:
    """Say on one line what :func:`machine` found."""
    versions = (
        f"{name} {number}" for name, number in machine["versions"].items() if number
    )
    parts = [
        machine["processor"],
        f"{machine['cores']} cores ({machine['usable_cores']} usable)",
        f"torch on {machine['torch_threads']} thread(s)",
        machine["gpu"] or "no GPU",
        machine["system"],
        *versions,
    ]
    return ", ".join(parts)


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(encoding="utf-8"))
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def version_of(package: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def source_hash() -> str:
    """Return a short hash of this project's modules: results of one are comparable."""
    package = find_spec("napari_sparseseg")
    assert package is not None and package.origin is not None
    digest = hashlib.sha256()
    for path in sorted(Path(package.origin).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def peak_memory() -> int:
    """Return the most memory this process has held so far, in bytes."""
    if STATUS.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text(encoding="utf-8"))
        if found:
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *function* in a process of its own, so that nothing is warm or full yet."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()
