"""What this machine can bear: its memory, and whether its CPU computes in bfloat16; and what it
computes with."""

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    return Memory(total, min(table["MemAvailable:"], total, address_space()))


def address_space(statm: Path = Path("/proc/self/statm")) -> int:
    """Bytes that this process may still map: `ulimit -v` may allow less than there is."""
    import resource  # not on Windows

    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(0, allowed - int(statm.read_text().split()[0]) * resource.getpagesize())


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


def peak_memory() -> int | None:
    """The most bytes that this process has held; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# --- kernels -----------------------------------------------------------------------------------

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTION_SETS = {  # as oneDNN names them, the least first → the flag in /proc/cpuinfo
    "SSE41": "sse4_1",
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX2_VNNI": "avx_vnni",
    "AVX2_VNNI_2": "avx_vnni_int8",
    "AVX512_CORE": "avx512bw",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_FP16": "avx512_fp16",
    "AVX512_CORE_AMX": "amx_tile",
    "AVX512_CORE_AMX_FP16": "amx_fp16",
}

WITHOUT_AVX512 = [*INSTRUCTION_SETS][: [*INSTRUCTION_SETS].index("AVX512_CORE")]


def kernels(backend: str) -> dict[str, Any]:
    """What decides how a backend rounds here: whether it computes
    by oneDNN, the best instruction set that it may use, its threads, and the CPU's name."""
    onednn, threads = COMPUTING[backend]()
    told = fields_of_cpu()
    return {
        "onednn": onednn,
        "instruction_set": instruction_set(told.get("flags", ""), os.environ if onednn else {}),
        "threads": threads,
        "cpu": told.get("model name") or platform.processor() or platform.machine(),
    }


def fields_of_cpu(cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """What Linux tells of the first processor; elsewhere nothing."""
    if not cpuinfo.is_file():
        return {}
    first = cpuinfo.read_text().split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): told.strip() for name, told in pairs}


def instruction_set(flags: str, environment: Mapping[str, str]) -> str:
    """The best that the flags of a CPU tell of, no higher than ONEDNN_MAX_CPU_ISA allows; where
    they tell none, the architecture."""
    names, has = [*INSTRUCTION_SETS], flags.split()
    asked = environment.get("ONEDNN_MAX_CPU_ISA", "").upper()
    allowed = names[: names.index(asked) + 1] if asked in names else names
    found = [name for name in allowed if INSTRUCTION_SETS[name] in has]
    return found[-1] if found else platform.machine()


def with_tensorflow() -> tuple[bool, int]:
    """By oneDNN or not, and threads. Only a private module of TensorFlow's says the first."""
    import tensorflow as tf
    from tensorflow.python.util import _pywrap_util_port

    asked = tf.config.threading.get_intra_op_parallelism_threads()
    threads = asked or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or processors()
    return bool(_pywrap_util_port.IsMklEnabled()), threads


def with_jax() -> tuple[bool, int]:
    return False, processors()


def with_torch() -> tuple[bool, int]:
    import torch

    return torch.backends.mkldnn.is_available(), torch.get_num_threads()


def with_openvino() -> tuple[bool, int]:
    """Its CPU plugin has a oneDNN of its own."""
    import openvino as ov

    asked = int(ov.Core().get_property("CPU", "INFERENCE_NUM_THREADS"))
    return True, asked or processors()


COMPUTING = {
    "tensorflow": with_tensorflow,
    "jax": with_jax,
    "torch": with_torch,
    "openvino": with_openvino,
}


def processors() -> int:
    """Those that this process may run on."""
    known = hasattr(os, "sched_getaffinity")  # not on macOS and Windows
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


# --- memory of the C library -------------------------------------------------------------------

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
