"""What this machine can bear: its memory, and whether its CPU computes in bfloat16."""

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

FAST_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # as /proc/cpuinfo calls them


@dataclass(frozen=True)
class Memory:
    """Bytes in all, and bytes that a new program can have; None where the system does not say."""

    total: int | None
    available: int | None


def memory() -> Memory:
    """The memory of this machine, or of the container that it is."""
    return READERS.get(sys.platform, lambda: Memory(None, None))()


def linux_memory(
    meminfo: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")
) -> Memory:
    """From the kernel's table (man 5 proc), in kB; a container's limit (cgroup v2) where there is
    one, as the table shows the whole machine."""
    lines = (line.split() for line in meminfo.read_text().splitlines())
    table = {words[0]: int(words[1]) * 1024 for words in lines}
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    total = table["MemTotal:"] if allowed == "max" else min(table["MemTotal:"], int(allowed))
    return Memory(total, min(table["MemAvailable:"], total))


def macos_memory() -> Memory:
    """macOS tells the total; what is available it tells to no call of Python's."""
    return Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None)


class MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("physical_total", ctypes.c_uint64),
        ("physical_available", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 5),
    )


def windows_memory() -> Memory:
    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return Memory(None, None)
    return Memory(status.physical_total, status.physical_available)


READERS = {"linux": linux_memory, "darwin": macos_memory, "win32": windows_memory}


def has_fast_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether bfloat16 is quicker than float32 here: AVX512_BF16 or AMX. Only Linux tells it
    without a further package; elsewhere the answer is the cautious one, no."""
    if not cpuinfo.is_file():
        return False
    flags = (line.split() for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    return not FAST_BFLOAT16.isdisjoint(next(flags, ()))


M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of glibc's malloc.h
LARGE_BLOCK = 4 * 2**20


def return_memory_at_once() -> None:
    """From here on, have the C library give blocks over 4 MiB back to the system when they are
    freed. Left alone, glibc keeps up to 32 MiB of each for later: 3 to 5 % of the peak of a run of
    Stable Diffusion. Other C libraries do as they do."""
    library = c_library()
    if library:
        library.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        library.mallopt(M_ARENA_MAX, 1)


def return_free_memory() -> None:
    """Have glibc hand back what it holds of freed memory now."""
    library = c_library()
    if library:
        library.malloc_trim(0)


def c_library() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None
