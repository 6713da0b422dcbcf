"""torch's files without torch: every view of every number, and nothing that they ask for is run."""

import pickle
import re
import struct
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint import pickles
from stable_diffusion_tf.checkpoint.files import open_tensors
from tests.formats import Built, Call, Global, Saved, instructions, pickled, write_stream, write_zip

patient = settings(deadline=None, max_examples=100)  # a busy machine is no failure

WRITERS = {"zip": write_zip, "stream": write_stream}
BASE = np.arange(48, dtype=np.float32).reshape(6, 8)
TENSORS = {  # the first five are views of one storage
    "whole": BASE,
    "transposed": BASE.T,
    "cut": BASE[1:5:2, 2:7:3],
    "row": BASE[3],
    "repeated": np.broadcast_to(BASE[2, 3], (2, 5)),
    "half": np.linspace(-1, 1, 6).astype(np.float16).reshape(3, 2),
    "brain": np.linspace(-1, 1, 5).astype(ml_dtypes.bfloat16),
    "position_ids": np.arange(77)[None],
    "number": np.array(3.5, np.float32),
    "none": np.zeros((0, 4), np.float32),
    "mask": np.array([True, False]),
}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """Writes a tree in one of torch's formats."""
    return lambda tree: WRITERS[request.param](tmp_path / "weights.bin", tree)


def refusal(path: Path) -> str:
    """What is said of a file that is not read."""
    with pytest.raises(UsageError) as error:
        open_tensors(path)
    told = str(error.value)
    assert told.startswith(str(path)) and "\n" not in told
    return told


# --- what torch writes


def test_every_view_of_a_storage_is_read_as_it_is_seen(write):
    source = open_tensors(write(TENSORS))
    assert source.shapes() == {name: tensor.shape for name, tensor in TENSORS.items()}
    for name, tensor in TENSORS.items():
        found = source.get(name)
        assert found.dtype == tensor.dtype and found.shape == tensor.shape
        np.testing.assert_array_equal(found, tensor, err_msg=name)


def test_only_the_numbers_of_the_tensor_are_read(write, monkeypatch):
    """A row of a large storage costs a row."""
    source, counts = open_tensors(write(TENSORS)), []

    def counting(place, dtype, count, offset):
        counts.append(count)
        return read_numbers(place, dtype, count, offset)

    read_numbers = pickles.read_numbers
    monkeypatch.setattr(pickles, "read_numbers", counting)
    source.get("row")
    source.get("repeated")
    assert counts == [8, 1]


def test_a_parameter_is_its_tensor(write):
    tree = {"p": Call(Global("torch._utils._rebuild_parameter"), (BASE, True, ()))}
    np.testing.assert_array_equal(open_tensors(write(tree)).get("p"), BASE)


def test_what_lightning_leaves_behind_is_let_go(write):
    """The tree of sd-v1-4.ckpt."""
    dtype = Built(Call(Global("numpy.dtype"), ("f8", 0, 1)), (3, "<", None, None, None, -1, -1, 0))
    number = Call(Global("_codecs.encode"), ("\x00\x01", "latin1"))
    score = Call(Global("numpy.core.multiarray.scalar"), (dtype, number))
    callback = Global("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    tree = {
        "epoch": 13,
        "global_step": 470000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": {"weight": BASE, "betas": BASE[0]},
        "callbacks": {callback: {"monitor": "val/loss", "current_score": score, "best": BASE[1]}},
        "optimizer_states": [{"state": {0: {"exp_avg": BASE[2]}}, "lr": None, "amsgrad": False}],
        "lr_schedulers": [],
    }
    source = open_tensors(write(tree))
    assert source.shapes() == {"weight": (6, 8), "betas": (8,)}
    np.testing.assert_array_equal(source.get("weight"), BASE)


def test_torchs_notes_on_a_state_are_let_go(write):
    state = Built(Call(Global("collections.OrderedDict"), ([["w", BASE]],)), {"_metadata": {"": 1}})
    assert open_tensors(write(state)).shapes() == {"w": (6, 8)}


# --- what torch would not write


@pytest.fixture
def mark(tmp_path) -> Path:
    """A file that is there once something was run."""
    return tmp_path / "mark"


def attacks(mark: Path) -> dict[str, bytes]:
    """Pickles that make the mark when Python loads them, except for the last: it makes an int."""
    mkdir, path = Global("os.mkdir"), str(mark)
    program = f"__import__('os').mkdir({path!r})"
    return {
        "os.mkdir": pickled({"w": Call(mkdir, (path,))}),
        "builtins.eval": pickled(Call(Global("builtins.eval"), (program,))),
        "builtins.exec": pickled([{"w": Built(Call(Global("builtins.exec"), (program,)), {})}]),
        "INST": b"(" + instructions(path) + b"ios\nmkdir\n.",
        "OBJ": b"(" + instructions(mkdir) + instructions(path) + b"o.",
        "NEWOBJ": b"\x80\x02"
        + instructions(Global("builtins.int"))
        + instructions((7,))
        + b"\x81.",
    }


ATTACKS = list(attacks(Path("mark")))
NAMED = {"OBJ": "os.mkdir", "NEWOBJ": "builtins.int"}  # which the pickle asks for before


def write_pickle(path: Path, data: bytes) -> Path:
    with ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


@pytest.mark.parametrize("name", ATTACKS)
def test_what_a_pickle_wants_to_run_is_named_and_not_run(tmp_path, mark, name):
    told = refusal(write_pickle(tmp_path / "weights.ckpt", attacks(mark)[name]))
    assert NAMED.get(name, name) in told and "nothing was run" in told
    assert not mark.exists()


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "NEWOBJ"])
def test_pythons_own_reader_would_have_run_it(mark, name):
    try:
        pickle.loads(attacks(mark)[name])
    except Exception as error:  # what comes after the deed
        assert not isinstance(error, UsageError)
    assert mark.exists()


INSTRUCTIONS = {
    "OBJ": b"(ccollections\nOrderedDict\no.",
    "STRING": b"}S'\x80'\nNs.",  # of protocol 0, and not ASCII
    "UNICODE": b"Vw\n.",
    "DUP": b"\x80\x02N2.",
    "NEWOBJ_EX": b"\x80\x04}}}\x92.",
    "EXT1": b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_an_instruction_that_torch_does_not_write_is_named(tmp_path, name):
    path = write_pickle(tmp_path / "weights.ckpt", INSTRUCTIONS[name])
    assert refusal(path) == (
        f"{path} has the pickle instruction {name}, which no weights need: nothing was run; "
        f"fetch the model as .safetensors"
    )


def test_no_state_changes_what_is_called():
    """BUILD could set attributes of the functions that the next file will need."""
    for name, thing in pickles.HARMLESS.items():
        before = dict(getattr(thing, "__dict__", {}))
        for state in ({"fits": True}, (None, {"fits": True, "span": 0})):
            data = pickled({"w": Built(Global(name), state)})
            with pytest.raises((TypeError, AttributeError)):
                pickles.unpickle(BytesIO(data), "weights.bin")
        assert dict(getattr(thing, "__dict__", {})) == before


def tensor_call(storage: tuple, *view) -> Call:
    return Call(Global("torch._utils._rebuild_tensor_v2"), (Saved(storage), *view, False, None))


STORAGE = ("storage", Global("torch.FloatStorage"), "0", "cpu", 48)


@pytest.mark.parametrize(
    "call",
    [
        tensor_call(STORAGE, 0, (7, 8), (8, 1)),
        tensor_call(STORAGE, 1, (6, 8), (8, 1)),
        tensor_call(STORAGE, -1, (6, 8), (8, 1)),
        tensor_call(STORAGE, 8, (2, 2), (-8, 1)),
        tensor_call(STORAGE, 0, (-1, 8), (8, 1)),
        tensor_call(STORAGE, 0, (6, 8), (8,)),
        tensor_call(STORAGE, 0, 48, 1),
        tensor_call(STORAGE, 0, ("6",), (1,)),
        tensor_call((*STORAGE[:2], "1", "cpu", 48), 0, (6, 8), (8, 1)),
        tensor_call((*STORAGE[:4], 4800), 0, (60, 80), (80, 1)),
        Call(Global("torch._utils._rebuild_tensor_v2"), (None, 0, (), ())),
    ],
    ids=lambda call: str(call.args[1:4]),
)
def test_a_view_beyond_its_storage_is_named(tmp_path, call):
    path = write_zip(tmp_path / "weights.bin", {"whole": BASE, "w": call})
    assert "lacks the numbers of w" in refusal(path)


def test_a_storage_of_another_length_than_the_pickle_says_is_named(tmp_path):
    path = write_stream(tmp_path / "weights.bin", {"w": BASE})
    count, other = struct.pack("<q", BASE.size), struct.pack("<q", BASE.size - 1)
    assert path.read_bytes().count(count) == 1
    path.write_bytes(path.read_bytes().replace(count, other))
    assert "lacks the numbers of w" in refusal(path)


@pytest.mark.parametrize(
    "storage",
    [
        ("module", *STORAGE[1:]),
        ("storage", "FloatStorage2", *STORAGE[2:]),
        (*STORAGE[:4], "48"),
        (*STORAGE, ("view", 0, 1)),
        (),
    ],
    ids=str,
)
def test_a_storage_of_an_unknown_kind_is_refused(tmp_path, storage):
    path = write_zip(tmp_path / "weights.bin", {"w": tensor_call(storage, 0, (6, 8), (8, 1))})
    assert "no whole torch file" in refusal(path)


@pytest.mark.parametrize("tree", [{}, [BASE], {"epoch": 3}, {"state_dict": {}}, 3], ids=str)
def test_a_file_without_tensors_is_named(write, tree):
    assert "holds no tensors by name" in refusal(write(tree))


# --- bombs: a few bytes that would take for ever, or all memory


LIMITED = """
import pathlib, resource, sys
from stable_diffusion_tf import UsageError
from stable_diffusion_tf.checkpoint.files import open_tensors

pages = pathlib.Path("/proc/self/statm")
if pages.exists():
    mine = int(pages.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mine + 2**28,) * 2)
used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
resource.setrlimit(resource.RLIMIT_CPU, (used + 20,) * 2)
try:
    source = open_tensors(pathlib.Path(sys.argv[1]))
    [source.get(name) for name in source.shapes()]
except UsageError as error:
    print(error)
"""


def read_under_limits(path: Path) -> str:
    """What is said of a file by a process that may take 256 MB more than it has, and 20 s.
    Raises CalledProcessError where it takes more."""
    command = [sys.executable, "-c", LIMITED, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def nested_key() -> bytes:
    """A tuple of a tuple twice of a tuple twice …, 60 deep: 2**60 hashes."""
    twice = b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
    return b"\x80\x02})q\0" + twice + b"K\x01s."


def colliding_keys() -> bytes:
    """100,000 whole numbers with the same hash: 10**10 comparisons."""
    keys = (i * (2**61 - 1) for i in range(1, 100_001))
    return b"\x80\x02}(" + b"".join(instructions(key) + b"N" for key in keys) + b"u."


PAIRS = b"](" + b"".join(instructions([f"{i}", None]) for i in range(50_000)) + b"e"
STATE = (
    b"}"
    + instructions("_parameters")
    + b"}("
    + b"".join(instructions(f"{i}") + b"N" for i in range(50_000))
    + b"us"
)
KEY, NO_TENSORS = "a key that is neither text nor a number", "holds no tensors by name"
BOMBS = {  # what it is → the pickle, and what is said of it
    "a key that is nested": (nested_key(), KEY),
    "keys that collide": (colliding_keys(), KEY),
    "a memo by index": (b"\x80\x02}r\xff\xff\xff\x0f.", NO_TENSORS),
    "the same pairs again and again": (
        b"\x80\x02"
        + PAIRS
        + b"\x85q\x00ccollections\nOrderedDict\nq\x01"
        + b"h\x01h\x00R" * 100_000
        + b".",
        NO_TENSORS,
    ),
    "arguments by the thousand": (
        b"\x80\x02("
        + b"N" * 100_000
        + b"tq\x00cnumpy\ndtype\nq\x01"
        + b"h\x01h\x00R" * 100_000
        + b".",
        "a call of too many arguments",
    ),
    "a state again and again": (
        b"\x80\x02"
        + STATE
        + b"q\x00ctorch.nn.modules.container\nParameterDict\n)\x81"
        + b"h\x00b" * 300_000
        + b".",
        NO_TENSORS,
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_cannot_make_its_reader_work_for_ever(tmp_path, name):
    data, said = BOMBS[name]
    path = write_pickle(tmp_path / "weights.pt", data)
    told = read_under_limits(path)
    assert told.startswith(f"{path} ") and said in told


def test_a_pickle_longer_than_any_models_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_PICKLED", 1000)
    path = write_pickle(tmp_path / "weights.pt", b"\x80\x02" + b"]" * 1000 + b".")
    assert "lists more than any model holds" in refusal(path)


def test_a_list_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    path = tmp_path / "weights.ckpt"
    with (
        ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as member,
    ):
        member.write(b"\x80\x02N")
        for _ in range(300):
            member.write(b"0N" * 2**19)
    assert path.stat().st_size < 2**21
    assert "has the pickle instruction POP" in read_under_limits(path)


def test_a_few_bytes_are_not_seen_as_gigabytes(tmp_path):
    one = np.ones(1, np.float32)
    huge = tensor_call((*STORAGE[:4], 1), 0, (10**9, 768), (0, 0))
    path = write_zip(tmp_path / "weights.pt", {"one": one, "w": huge})
    assert "lacks the numbers of w" in read_under_limits(path)


def test_a_side_of_nothing_hides_no_other(tmp_path):
    for shape in ((0, 2**62), (0, *[2**20] * 7), (0,) * 9):
        call = tensor_call(STORAGE, 0, shape, (0,) * len(shape))
        path = write_zip(tmp_path / "weights.pt", {"whole": BASE, "w": call})
        assert "lacks the numbers of w" in refusal(path)


# --- files that are damaged


def test_another_zip_is_named(tmp_path):
    with ZipFile(tmp_path / "weights.ckpt", "w") as archive:
        archive.writestr("model.safetensors", bytes(100))
    assert "is a zip, but not of torch" in refusal(tmp_path / "weights.ckpt")


def test_numbers_that_were_compressed_are_not_read_as_they_lie(tmp_path):
    whole = write_zip(tmp_path / "weights.bin", {"w": BASE})
    with ZipFile(whole) as archive, ZipFile(tmp_path / "packed.bin", "w", ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    assert "lacks the numbers of w" in refusal(tmp_path / "packed.bin")


def test_a_machine_of_the_other_byte_order_is_named(tmp_path):
    path = tmp_path / "weights.bin"
    with ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled({}))
        archive.writestr("archive/byteorder", "big")
    assert "was written big-endian" in refusal(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: write(folder / name, TENSORS).read_bytes() for name, write in WRITERS.items()}


@pytest.mark.parametrize("form", WRITERS)
@patient
@given(data=st.data())
def test_a_download_that_broke_off_is_named_wherever_it_did(whole, form, data):
    kept = data.draw(st.integers(0, len(whole[form]) - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.ckpt"
        path.write_bytes(whole[form][:kept])
        assert re.search("fetch it (again|as)", refusal(path))


@pytest.mark.parametrize("form", WRITERS)
@patient
@given(data=st.data())
def test_a_wrong_byte_raises_nothing_but_a_usage_error(whole, form, data):
    broken = bytearray(whole[form])
    broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.ckpt"
        path.write_bytes(broken)
        try:
            source = open_tensors(path)
            for name, shape in source.shapes().items():
                assert source.get(name).shape == shape
        except UsageError:
            pass
