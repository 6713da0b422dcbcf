"""The catalogue and its downloader, against a small hub on this machine. Nothing goes online."""

import errno
import io
import json
import logging
import os
import re
import shutil
import signal
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

from stable_diffusion_tf.checkpoint import catalog
from stable_diffusion_tf.machine import Memory
from tests import interrupt
from tests.weights.fake_hub import COMMIT, CONTENT, LARGE, SINGLE, SMALL, sha256, start
from weights import download
from xray import script

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 1000  # bytes that the hub's library writes at once; its own 10 MB would hide what is kept


@pytest.fixture
def hub():
    server = start()
    yield server
    server.held.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(hub, tmp_path, monkeypatch) -> Path:
    """An empty cache, a catalogue of two models, and a hub that is this machine."""
    address = f"http://127.0.0.1:{hub.server_port}"
    settings = {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(tmp_path / "home" / "hub"),
        "HF_HUB_OFFLINE": False,
        "DOWNLOAD_CHUNK_SIZE": CHUNK,
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    at_once = SimpleNamespace(sleep=lambda seconds: None)  # between two tries
    monkeypatch.setattr(file_download, "time", at_once)
    write_catalog(tmp_path / "catalog.json")
    monkeypatch.setattr(catalog, "CATALOG", tmp_path / "catalog.json")
    return tmp_path / "home" / "hub"


def write_catalog(path: Path, **pins: str | None) -> None:
    """`pins`: of the large file, in place of what it has."""
    large = entry(LARGE, sha256(CONTENT[LARGE])) | pins
    model = {"repo": "some/model", "revision": COMMIT, "licence": "free"}
    model |= {"memory": {"float32": 4 * 10**9, "bfloat16": 2 * 10**9}}
    models = {
        "tiny": model | {"what": "a folder", "files": [entry(SMALL, None), large]},
        "single": model
        | {"what": "a file", "files": [entry(SINGLE, sha256(CONTENT[SINGLE]))], "options": "-x"},
    }
    licences = {"free": {"name": "Free As Air", "url": "https://example.org/free"}}
    path.write_text(json.dumps({"licences": licences, "models": models}))


def entry(path: str, digest: str | None) -> dict:
    return {"path": path, "bytes": len(CONTENT[path]), "sha256": digest}


def call(*words: str, monkeypatch) -> None:
    """Run the script as the shell would."""
    monkeypatch.setattr(sys, "argv", ["weights/download.py", *words])
    script.run(download.main)


def refused(*words: str, monkeypatch, capfd) -> str:
    """The one line that it ends with; the hub's library would tell more."""
    huggingface_hub.logging.set_verbosity_warning()
    for handler in logging.getLogger("huggingface_hub").handlers:
        monkeypatch.setattr(handler, "stream", sys.stderr)  # it took hold of another on import
    with pytest.raises(SystemExit) as stop:
        call(*words, monkeypatch=monkeypatch)
    complained = capfd.readouterr().err
    assert stop.value.code == 2 and complained.count("\n") == 1
    return complained


def kept(cache: Path) -> list[int]:
    """Sizes of what has come but is not whole."""
    return [path.stat().st_size for path in cache.glob("*/blobs/*.incomplete")]


def named(cache: Path) -> list[str]:
    """The files that count as whole."""
    return sorted(p.name for p in cache.glob("*/snapshots/**/*") if p.is_file())


# --- the catalogue -------------------------------------------------------------------------------


def test_the_shipped_catalogue_is_well_formed():
    models = catalog.read_catalog()
    assert {"sd-v1-5", "sd-v1-4", "bk-sdm-tiny", "lcm-dreamshaper-v7", "taesd"} <= set(models)
    for name, model in models.items():
        assert re.fullmatch(r"[a-z0-9-]+", name) and model.name == name
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.repo)
        assert re.fullmatch(r"main|[0-9a-f]{40}", model.revision)
        assert model.licence and model.licence_url.startswith("https://")
        assert len(model.what) < 60 and "\n" not in model.what
        assert all(10**9 < need < 8 * 10**9 for need in model.memory.values())
        paths = [file.path for file in model.files]
        assert len(set(paths)) == len(paths) and not any(p.startswith("/") for p in paths)
        assert all(file.bytes > 0 for file in model.files)
        pins = [file.sha256 for file in model.files if file.sha256 is not None]
        assert all(re.fullmatch(r"[0-9a-f]{64}", pin) for pin in pins)
        assert model.bytes == sum(file.bytes for file in model.files)
        assert model.pinned == (len(pins) == len(paths))


def test_a_file_that_two_entries_share_is_pinned_alike():
    seen = {}
    for model in catalog.read_catalog().values():
        for file in model.files:
            assert seen.setdefault((model.repo, model.revision, file.path), file) == file


@pytest.mark.parametrize("name", ["sd-v1-5", "sd-v1-5-fp32", "sd-v1-4", "tiny-sd"])
def test_a_folder_has_every_part_and_its_config(name):
    paths = [file.path for file in catalog.read_catalog()[name].files]
    for part in ("text_encoder", "unet", "vae"):
        inside = [p for p in paths if p.startswith(f"{part}/")]
        assert f"{part}/config.json" in inside and len(inside) == 2


def test_without_a_catalogue_there_are_no_models(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "CATALOG", tmp_path / "none.json")
    assert catalog.read_catalog() == {} and catalog.find("sd-v1-5") is None


def test_the_list_tells_what_the_catalogue_and_the_machine_say(cache, monkeypatch, capfd):
    monkeypatch.setattr(download, "memory", lambda: Memory(3 * 10**9, 10**9))
    call("single", "--yes", monkeypatch=monkeypatch)
    capfd.readouterr()
    call(monkeypatch=monkeypatch)
    said = capfd.readouterr().out
    tiny, single = said.splitlines()[1:3]
    assert re.split(r"  +", tiny) == [
        *("tiny", "a folder", "about 0.00 GB", "4.0 GB / 2.0 GB"),
        *("bfloat16", "Free As Air", "no", "no"),
    ]
    assert re.split(r"  +", single)[5:] == ["Free As Air", "yes", "yes"]
    assert "3.0 GB of memory (1.0 GB free)" in said and str(cache) in said


@pytest.mark.parametrize(
    "total, fits", [(None, "yes"), (4 * 10**9, "yes"), (2 * 10**9, "bfloat16"), (10**9, "no")]
)
def test_what_fits_into_how_much_memory(total, fits, cache):
    model = catalog.read_catalog()["tiny"]
    assert download.told_fitting(model, Memory(total, total)) == fits
    assert download.told_fitting(replace(model, memory={}), Memory(total, total)) == "yes"


def test_a_mistyped_name_gets_the_nearest(cache, monkeypatch, capfd):
    assert "near it: tiny," in refused("tinny", monkeypatch=monkeypatch, capfd=capfd)


# --- a download ----------------------------------------------------------------------------------


def test_a_download_is_told_checked_and_found(hub, cache, monkeypatch, capfd):
    assert catalog.find("tiny") is None
    call("tiny", "--yes", monkeypatch=monkeypatch)
    said, complained = capfd.readouterr()
    for told in ("a folder", "Free As Air, https://example.org/free", str(cache), "some/model"):
        assert told in said
    assert "--weights tiny " in said and complained == ""
    folder = catalog.find("tiny")
    assert folder.name == COMMIT and (folder / LARGE).read_bytes() == CONTENT[LARGE]
    assert (folder / SMALL).read_bytes() == CONTENT[SMALL] and kept(cache) == []
    assert huggingface_hub.try_to_load_from_cache("some/model", LARGE, revision=COMMIT)


def test_a_single_file_is_found_as_one(cache, monkeypatch, capfd):
    call("single", "--yes", monkeypatch=monkeypatch)
    assert catalog.find("single").read_bytes() == CONTENT[SINGLE]
    assert "--weights single -x " in capfd.readouterr().out


def test_what_is_here_is_checked_without_the_hub(hub, cache, monkeypatch, capfd):
    call("tiny", "--yes", monkeypatch=monkeypatch)
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    call("tiny", monkeypatch=monkeypatch)
    assert hub.asked == [] and "here already" in capfd.readouterr().out


def test_what_another_program_left_is_not_fetched_again(hub, cache, monkeypatch):
    huggingface_hub.hf_hub_download("some/model", LARGE, revision=COMMIT)
    hub.asked.clear()
    call("tiny", "--yes", monkeypatch=monkeypatch)
    assert {path for _, path, _ in hub.asked} == {SMALL}


def test_bytes_that_lost_their_name_are_not_fetched_again(hub, cache, monkeypatch):
    call("tiny", "--yes", monkeypatch=monkeypatch)
    shutil.rmtree(next(cache.glob("*/snapshots")))
    hub.asked.clear()
    call("tiny", monkeypatch=monkeypatch)  # nothing to come, so nothing to ask
    assert catalog.find("tiny") and {method for method, _, _ in hub.asked} == {"HEAD"}


@pytest.mark.parametrize("extra, fetched", [(b"", 0), (b"more", 1)])
def test_a_part_that_is_whole_is_taken_and_a_longer_one_is_not(
    extra, fetched, hub, cache, monkeypatch
):
    blob = cache / "models--some--model" / "blobs" / sha256(CONTENT[LARGE])
    blob.parent.mkdir(parents=True)
    blob.with_name(f"{blob.name}.incomplete").write_bytes(CONTENT[LARGE] + extra)
    call("tiny", "--yes", monkeypatch=monkeypatch)
    assert (catalog.find("tiny") / LARGE).read_bytes() == CONTENT[LARGE]
    assert hub.asked.count(("GET", LARGE, None)) == 2 * fetched  # the hub's answer, the store's


def test_where_links_are_not_allowed_there_is_one_copy(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    call("tiny", "--yes", monkeypatch=monkeypatch)
    assert catalog.find("tiny") is not None
    sizes = [p.stat().st_size for p in cache.glob("models--*/**/*") if p.is_file()]
    assert sizes.count(len(CONTENT[LARGE])) == 1


def test_a_short_break_is_bridged(hub, cache, monkeypatch):
    hub.cuts[:] = [10_500, 20_500]
    call("tiny", "--yes", monkeypatch=monkeypatch)
    ranges = [r for method, path, r in hub.asked if (method, path) == ("GET", LARGE) and r]
    assert set(ranges) == {"bytes=10000-", "bytes=30000-"}
    assert (catalog.find("tiny") / LARGE).read_bytes() == CONTENT[LARGE]


def test_a_dead_line_is_told_and_the_next_run_goes_on(hub, cache, monkeypatch, capfd):
    hub.cuts[:] = [10_500] + [0] * 20
    told = refused("tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd)
    assert "connection" in told and "same command" in told
    assert kept(cache) == [10_000] and LARGE not in named(cache) and not catalog.find("tiny")
    hub.cuts.clear()
    hub.asked.clear()
    call("tiny", "--yes", monkeypatch=monkeypatch)
    assert ("GET", LARGE, "bytes=10000-") in hub.asked and ("GET", LARGE, None) not in hub.asked
    assert (catalog.find("tiny") / LARGE).read_bytes() == CONTENT[LARGE] and kept(cache) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_ctrl_c_keeps_what_has_come(hub, cache, monkeypatch):
    hub.cuts[:] = [10_500]
    hub.held.clear()
    watched = "import runpy, sys; from pathlib import Path; from huggingface_hub import constants\n"
    watched += "from stable_diffusion_tf.checkpoint import catalog\n"
    watched += f"constants.DOWNLOAD_CHUNK_SIZE = {CHUNK}\n"
    watched += f"catalog.CATALOG = Path({str(catalog.CATALOG)!r})\n"
    watched += "sys.argv = ['weights/download.py', 'tiny', '--yes']\n"
    watched += "runpy.run_path(sys.argv[0], run_name='__main__')"
    env = os.environ | {"HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": str(cache.parent)}
    env |= {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(cache)}
    run = interrupt.start([sys.executable, "-c", watched], cwd=ROOT, env=env)
    deadline = time.monotonic() + 60
    while ("GET", LARGE, None) not in hub.asked or not list(cache.glob("*/blobs/*.incomplete")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, complained = run.communicate(timeout=60)
    assert run.returncode == 130 and "stopped; what has come is kept" in complained
    assert LARGE not in named(cache) and catalog.find("tiny") is None
    hub.held.set()
    call("tiny", "--yes", monkeypatch=monkeypatch)
    assert catalog.find("tiny") is not None


# --- what is not right ---------------------------------------------------------------------------


def test_wrong_bytes_are_not_left_as_good(hub, cache, monkeypatch, capfd):
    hub.content[LARGE] = CONTENT[LARGE][:-1] + b"?"
    told = refused("tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd)
    assert LARGE in told and sha256(hub.content[LARGE]) in told and sha256(CONTENT[LARGE]) in told
    assert kept(cache) == [] and named(cache) == ["config.json"]
    hub.content = dict(CONTENT)
    call("tiny", "--yes", monkeypatch=monkeypatch)
    assert catalog.find("tiny") is not None


@pytest.mark.parametrize("path", [LARGE, SMALL])
def test_a_file_that_rots_in_the_cache_is_fetched_again(path, hub, cache, monkeypatch, capfd):
    call("tiny", "--yes", monkeypatch=monkeypatch)
    rotten = catalog.find("tiny") / path
    rotten.write_bytes(b"!" + CONTENT[path][1:])
    assert f"{path} of some/model is damaged" in refused(
        "tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd
    )
    assert catalog.find("tiny") is None
    call("tiny", "--yes", monkeypatch=monkeypatch)
    assert (catalog.find("tiny") / path).read_bytes() == CONTENT[path]


def test_a_short_file_in_the_cache_does_not_count(cache, monkeypatch):
    call("single", "--yes", monkeypatch=monkeypatch)
    with catalog.find("single").open("r+b") as file:
        file.truncate(10)
    assert catalog.find("single") is None


@pytest.mark.parametrize("pins", [{"sha256": "ab" * 32}, {"bytes": 5}])
def test_what_the_hub_has_changed_is_not_fetched(pins, hub, cache, monkeypatch, capfd):
    write_catalog(catalog.CATALOG, **pins)
    told = refused("tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd)
    assert f"{LARGE} of some/model has changed" in told
    assert {method for method, _, _ in hub.asked} == {"HEAD"} and not cache.exists()


@pytest.mark.parametrize(
    "status, told",
    [
        ((401, {"X-Error-Code": "GatedRepo"}), "accept its terms"),
        ((403, {"X-Error-Code": "GatedRepo"}), "accept its terms"),
        ((401, {"X-Error-Code": "RepoNotFound"}), "shows no some/model"),
        ((404, {"X-Error-Code": "RepoNotFound"}), "shows no some/model"),
        ((404, {"X-Error-Code": "RevisionNotFound"}), "no revision"),
        ((404, {"X-Error-Code": "EntryNotFound"}), "lacks a file"),
        ((500, {}), "refused (500"),
        ((200, {}), "no checksum"),
    ],
)
def test_what_the_hub_refuses_is_one_line(status, told, hub, cache, monkeypatch, capfd):
    hub.status = status
    assert told in refused("tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd)
    assert not cache.exists()


def test_no_network_is_one_line(hub, cache, monkeypatch, capfd):
    hub.shutdown()
    hub.server_close()
    told = refused("tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd)
    assert f"the connection to {constants.ENDPOINT} failed" in told


def test_offline_is_one_line(hub, cache, monkeypatch, capfd):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = refused("tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd)
    assert "HF_HUB_OFFLINE is set" in told and hub.asked == []


def test_a_disk_that_cannot_hold_it_is_refused_before_the_download(hub, cache, monkeypatch, capfd):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100_000, 50_000, 50_000))
    told = refused("tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd)
    assert "of disk free" in told and "HF_HOME" in told
    assert "GET" not in {method for method, _, _ in hub.asked}


class FullDisk:
    """A file on a disk that takes a little more, and then nothing."""

    def __init__(self, file):
        self.file = file

    def tell(self) -> int:
        return self.file.tell()

    def write(self, data: bytes) -> None:
        if self.file.tell() >= 10 * CHUNK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.file.write(data)


def test_a_disk_that_fills_up_keeps_what_has_come(hub, cache, monkeypatch, capfd):
    get = download.http_get
    monkeypatch.setattr(
        download, "http_get", lambda url, file, **to: get(url, FullDisk(file), **to)
    )
    told = refused("tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd)
    assert "the disk is full" in told and "same command" in told
    assert kept(cache) == [10 * CHUNK] and "big.safetensors" not in named(cache)


def test_a_folder_that_cannot_be_written_is_one_line(cache, monkeypatch, capfd):
    cache.parent.mkdir()
    cache.write_text("a file is in the way")
    told = refused("tiny", "--yes", monkeypatch=monkeypatch, capfd=capfd)
    assert "cannot write" in told and "HF_HOME" in told


# --- the question --------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_nobody_to_ask_is_one_line(hub, cache, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "download.py tiny --yes" in refused("tiny", monkeypatch=monkeypatch, capfd=capfd)
    assert not cache.exists()


@pytest.mark.parametrize(
    "answer, fetched", [("y\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_a_person_is_asked(answer, fetched, hub, cache, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    call("tiny", monkeypatch=monkeypatch)
    said = capfd.readouterr().out
    assert said.index("Free As Air") < said.index("download? [y/N]")
    assert (catalog.find("tiny") is not None) == fetched == ("nothing was downloaded" not in said)
