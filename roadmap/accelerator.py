"""What a GPU keeps to itself: that its memory ran out, work that is not done yet, memory of what is over."""

from __future__ import annotations

import errno
import gc
import re

import torch

#: How torch, CUDA, cuBLAS, cuDNN, Metal and torch's allocator on the CPU say that memory ran out. With too little of it
#: cuDNN finds no engine or algorithm that could work in what is left.
_OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|ALLOC(ATION)?_FAILED|(can.?t|cannot|unable to|failed to) allocate|not enough memory|bad_alloc"
    r"|cudaErrorMemoryAllocation|Invalid buffer size|unable to find (an engine to execute|a valid cuDNN algorithm)",
    re.IGNORECASE,
)


def is_memory_error(error: BaseException) -> bool:
    """Whether this error, or one that led to it, says that the memory of the device or of the machine ran out."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, (torch.OutOfMemoryError, MemoryError)):
            return True
        if isinstance(link, OSError) and link.errno == errno.ENOMEM:
            return True
        if isinstance(link, RuntimeError) and _OUT_OF_MEMORY.search(str(link)):
            return True
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return False


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; times taken before that would leave work out."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def reserved_memory(device: torch.device) -> float | None:
    """Bytes that torch has reserved at most (Metal: has reserved now) of a GPU's memory; None on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return torch.mps.driver_allocated_memory() if device.type == "mps" else None


def release_memory() -> None:
    """Give what torch keeps of a GPU's memory for later back to the other processes that use it."""
    if torch.cuda.is_initialized():
        gc.collect()  # a trainer and its module refer to each other
        torch.cuda.empty_cache()
