"""Telling that memory did not suffice, on whatever device."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch means that memory did not suffice."""
    # Only CUDA has an error of its own; a processor's is told by its message.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in ("DefaultCPUAllocator", "out of memory")
    )
