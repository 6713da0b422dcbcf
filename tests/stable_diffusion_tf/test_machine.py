"""What the machine is said to have, held against files as the kernel writes them."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stable_diffusion_tf import machine
from stable_diffusion_tf.machine import Memory

MEMINFO = "MemTotal:       16000000 kB\nMemFree:          200000 kB\nMemAvailable:    9000000 kB\n"


@pytest.mark.parametrize(
    "limit, expected",
    [
        (None, Memory(16_384_000_000, 9_216_000_000)),
        ("max\n", Memory(16_384_000_000, 9_216_000_000)),
        ("12000000000\n", Memory(12_000_000_000, 9_216_000_000)),
        ("4000000000\n", Memory(4_000_000_000, 4_000_000_000)),
        ("99000000000\n", Memory(16_384_000_000, 9_216_000_000)),
    ],
)
def test_linux_tells_what_is_available_within_a_limit(limit, expected, tmp_path):
    table, bound = tmp_path / "meminfo", tmp_path / "memory.max"
    table.write_text(MEMINFO)
    if limit:
        bound.write_text(limit)
    assert machine.linux_memory(table, bound) == expected


def test_this_machine_has_memory():
    found = machine.memory()
    assert found.total is None or 10**8 < found.total < 10**14
    assert found.available is None or 0 < found.available <= found.total


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_what_ulimit_allows_counts(tmp_path, monkeypatch):
    """A large picture ended in std::bad_alloc under `ulimit -v`."""
    resource = pytest.importorskip("resource")
    statm = tmp_path / "statm"
    statm.write_text("1000 7 7 7 0 7 0")
    page, limits = resource.getpagesize(), {}
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (limits[asked], -1))
    for allowed, left in ((resource.RLIM_INFINITY, sys.maxsize), (1500 * page, 500 * page), (1, 0)):
        limits[resource.RLIMIT_AS] = allowed
        assert machine.address_space(statm) == left


def test_macos_tells_the_total_only(monkeypatch):
    answers = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 16384}
    monkeypatch.setattr(machine.os, "sysconf", answers.__getitem__, raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert machine.memory() == Memory(16_384_000, None)


def test_windows_is_asked_with_a_structure_of_its_size(monkeypatch):
    def fill(status):
        status = ctypes.cast(status, ctypes.POINTER(machine.MemoryStatus)).contents
        assert status.length == 64  # sizeof(MEMORYSTATUSEX)
        field = ctypes.cast(ctypes.byref(status), ctypes.POINTER(ctypes.c_uint64))
        field[1], field[2] = 8_000, 3_000  # ullTotalPhys, ullAvailPhys
        return 1

    class Kernel:
        GlobalMemoryStatusEx = staticmethod(fill)

    class Dlls:
        kernel32 = Kernel

    monkeypatch.setattr(ctypes, "windll", Dlls, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert machine.memory() == Memory(8_000, 3_000)


def test_another_system_tells_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "plan9")
    assert machine.memory() == Memory(None, None)


@pytest.mark.parametrize(
    "flags, fast",
    [
        ("fpu avx512f avx512_bf16", True),
        ("fpu amx_bf16 amx_tile", True),
        ("fpu avx512f avx512_bf16x", False),
        ("fpu avx2", False),
    ],
)
def test_bfloat16_is_fast_where_the_cpu_says_so(flags, fast, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name\t: a CPU\nflags\t\t: {flags}\nbugs\t\t: avx512_bf16\n")
    assert machine.has_fast_bfloat16(cpuinfo) is fast


def test_bfloat16_is_not_fast_where_nothing_is_known(tmp_path):
    assert machine.has_fast_bfloat16(tmp_path / "none") is False
    (tmp_path / "arm").write_text("processor : 0\nFeatures : fp asimd\n")
    assert machine.has_fast_bfloat16(tmp_path / "arm") is False


# --- kernels -----------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]
WATCH = """
import os, sys

class Watch:
    def find_spec(self, name, *_):
        if name == "tensorflow":
            sys.exit(f"oneDNN: {os.environ.get('TF_ENABLE_ONEDNN_OPTS')}")

sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize(
    "line",
    [
        "from stable_diffusion_tf import StableDiffusion",
        "import stable_diffusion_tf; import keras",
        "import xray; import keras",
        "import xray.probe.session",
        "import phantom.train.vae",
        "import tests.conftest; import keras",
        "from xray.script import load_model; load_model('phantom')",
    ],
)
@pytest.mark.parametrize(("asked", "found"), [(None, "1"), ("0", "0")])
def test_onednn_is_asked_for_before_tensorflow_is_imported(line, asked, found):
    """The first import of TensorFlow ends the process and says what it would have read."""
    kept = {name: told for name, told in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    given = {"TF_ENABLE_ONEDNN_OPTS": asked} if asked else {}
    given["KERAS_BACKEND"] = "tensorflow"
    code = f"{WATCH}\n{line}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=kept | given, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == f"oneDNN: {found}"


FLAGS = "fpu sse4_1 avx avx2 fma avx512f avx512bw avx512_vnni"


@pytest.mark.parametrize(
    ("flags", "cap", "name"),
    [
        (FLAGS, None, "AVX512_CORE_VNNI"),
        (FLAGS, "AVX2", "AVX2"),
        (FLAGS, "avx512_core", "AVX512_CORE"),
        (FLAGS, "AVX512_CORE_AMX", "AVX512_CORE_VNNI"),
        (FLAGS, "AVX2_VNNI", "AVX2"),
        (FLAGS, "ALL", "AVX512_CORE_VNNI"),
        ("fp asimd", "AVX2", machine.platform.machine()),
    ],
)
def test_the_instruction_set_is_the_best_below_the_cap(flags, cap, name):
    assert machine.instruction_set(flags, {"ONEDNN_MAX_CPU_ISA": cap} if cap else {}) == name


def test_the_first_processor_is_told(tmp_path):
    table = "processor\t: 0\nmodel name\t: A: 1\nflags\t\t: fpu avx\n\nprocessor\t: 1\nflags\t: x\n"
    (tmp_path / "cpuinfo").write_text(table)
    assert machine.fields_of_cpu(tmp_path / "cpuinfo") == {
        "processor": "0",
        "model name": "A: 1",
        "flags": "fpu avx",
    }
    assert machine.fields_of_cpu(tmp_path / "none") == {}


@pytest.mark.arithmetic
def test_the_kernels_are_those_that_tensorflow_uses(monkeypatch):
    found = machine.kernels("tensorflow")
    assert set(found) == {"onednn", "instruction_set", "threads", "cpu"}
    assert found["onednn"] == (os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1") and found["cpu"]
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    assert machine.kernels("tensorflow")["threads"] == 7
    monkeypatch.setattr(machine, "COMPUTING", {"jax": lambda: (False, 3)})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert machine.kernels("jax")["instruction_set"] != "SSE41", "a cap of what is not used"
