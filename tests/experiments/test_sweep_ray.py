"""Sweeps on Ray: nodes and workers that die, a disk that is full, a driver that is killed."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from experiments.sweep import sweep
from tests import sweeps, tiny
from tests.sweeps import ROOT, asked, begun, check_whole, latents, states, wait_for
from xray import rounding

pytestmark = pytest.mark.ray
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def cluster():
    """A head that computes nothing, and no node yet."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@contextmanager
def nodes(cluster, *variables: dict[str, str]) -> Iterator[list]:
    """A node for each, with one CPU and these variables."""
    made = [cluster.add_node(num_cpus=1, env_vars=more) for more in variables]
    cluster.wait_for_nodes()
    try:
        yield made
    finally:
        for node in made:
            if node in cluster.worker_nodes:
                cluster.remove_node(node)


def on(cluster, folder: Path, **more) -> dict:
    return {"out": folder, "engine": "ray", "address": cluster.address, **more}


@contextmanager
def meanwhile(work) -> Iterator[None]:
    """Work in another thread, which has to have succeeded in the end."""
    failed = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(10)
    assert not failed and not thread.is_alive()


def test_a_node_that_is_killed_costs_no_run(cluster, log, out, tmp_path):
    """And what a model draws there is what it draws here."""
    weights = str(tiny.write_model(tmp_path / "tiny"))
    with nodes(cluster, {}, {}) as (_, doomed):

        def kill() -> None:
            wait_for(lambda: len(begun(log)) >= 4 and len(sweeps.workers(log)) == 2)
            cluster.remove_node(doomed, allow_graceful=False)

        with meanwhile(kill):
            run = on(cluster, out, weights=weights)
            assert sweep(sweeps.drawn, asked(log, 16, seconds=0.3), **run) == (out, 16, 0)
    check_whole(out, 16)
    assert 16 <= sum(begun(log).values()) <= 17
    sweep(sweeps.drawn, asked(log, 16), out=tmp_path / "serial", weights=weights)
    drawn = latents(out)
    for seed, expected in latents(tmp_path / "serial").items():
        assert rounding.hold(drawn[seed][0], expected[0], expected).passed


def test_ten_workers_that_are_killed_cost_no_run(cluster, log, out):
    rng = np.random.default_rng(0)

    def kill() -> None:
        for _ in range(10):
            time.sleep(rng.uniform(0.1, 0.6))
            before = sum(begun(log).values())
            wait_for(lambda before=before: sum(begun(log).values()) > before)
            newest = max(Path(log).iterdir(), key=lambda path: path.stat().st_mtime_ns)
            os.kill(int(newest.name.split("-")[1]), signal.SIGKILL)

    with nodes(cluster, {}, {}), meanwhile(kill):
        options = asked(log, 80, seconds=0.25)
        assert sweep(sweeps.measure, options, **on(cluster, out, weights=None)) == (out, 80, 0)
    check_whole(out, 80)
    assert 80 < sum(begun(log).values()) <= 90 and len(sweeps.workers(log)) >= 8


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTE}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_worker_with_a_full_disk_leaves_its_runs_to_the_others(
    cluster, log, out, small_disk, capfd
):
    with nodes(cluster, {}, {"TMPDIR": str(small_disk)}):
        options = asked(log, 12, seconds=0.5)  # so that both have some
        done = sweep(sweeps.heavy, options, **on(cluster, out, weights=None))
    assert done == (out, 12, 0) and set(states(out).values()) == {"done"}
    check_whole(out, 12)
    assert "cannot write: No space left on device" in capfd.readouterr().err
    assert sum(begun(log).values()) == 13


def test_a_driver_that_is_killed_goes_on(cluster, log, out):
    options = f"[Asked(seed, {log!r}, seconds=0.2) for seed in range(40)]"
    run = f"out={str(out)!r}, engine='ray', address={cluster.address!r}, weights=None"
    with nodes(cluster, {}, {}):
        first = subprocess.Popen(sweeps.command("measure", options, run), cwd=ROOT)
        wait_for(lambda: len(begun(log)) > 10)
        first.kill()
        first.wait()
        finished = len(list((out / "runs").glob("*[!t]")))
        assert 0 < finished < 40
        subprocess.run(sweeps.command("measure", options, run), cwd=ROOT, check=True)
    check_whole(out, 40)
    assert sum(begun(log).values()) <= 40 + 2 + 2  # at work, and on their way back


def test_a_local_cluster_is_started_and_ended(log, out):
    import ray

    run = {"out": out, "engine": "ray", "workers": 2, "weights": None}
    assert sweep(sweeps.broken, asked(log), **run) == (out, 5, 1)
    assert begun(log)[sweeps.ODD] == 2 and not ray.is_initialized()
