"""Compiled graphs on disk: found again, never another's, never too many."""

import os
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset15 as opset

from stable_diffusion_tf.on_openvino import graph_cache
from stable_diffusion_tf.on_openvino.compile import compile_graph

CORE = ov.Core()
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(graph_cache.SETTING, str(tmp_path / "graphs"))
    return tmp_path / "graphs"


def graph(weight: float = 2.0, rows: int = 2, axis: int = 1) -> ov.Model:
    x = opset.parameter([rows, 3], np.float32)
    weights = np.full((3, 4), weight, np.float32)
    weights[0, 0] = -1
    made = opset.softmax(opset.matmul(x, opset.constant(weights), False, False), axis)
    return ov.Model([made.output(0), opset.relu(x).output(0)], [x])


def name(made: ov.Model, options=EXACT) -> str | None:
    return graph_cache.name_of(CORE, made, options)


def test_the_name_says_all_that_determines_the_answer():
    others = [graph(2.001), graph(rows=3), graph(axis=0)]
    names = {name(graph()), *map(name, others), name(graph(), {"INFERENCE_PRECISION_HINT": "bf16"})}
    assert len(names) == 5 and name(graph()) == name(graph())


def test_what_was_compiled_before_is_read_and_answers_alike(folder, monkeypatch):
    first = [*compile_graph(CORE, graph(), EXACT)([X]).values()]
    assert len([*folder.iterdir()]) == 1
    monkeypatch.setattr(graph_cache, "keep", None)  # a second compilation would call it
    found = graph_cache.compiled_before(CORE, name(graph()), EXACT)
    for one, other in zip(first, found([X]).values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:99] + b"!" + b[100:], len])
def test_what_is_damaged_is_compiled_anew(folder, damage):
    before = compile_graph(CORE, graph(), EXACT)([X])[0]
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    damaged = damage(whole)
    path.write_bytes(damaged if isinstance(damaged, bytes) else b"not ours")
    assert graph_cache.compiled_before(CORE, path.name, EXACT) is None
    np.testing.assert_array_equal(compile_graph(CORE, graph(), EXACT)([X])[0], before)
    assert graph_cache.compiled_before(CORE, path.name, EXACT)


def test_a_folder_that_cannot_be_written_is_no_failure(folder):
    folder.write_text("a file is in the way")
    assert compile_graph(CORE, graph(), EXACT)([X])[0].shape == (2, 4)


def test_it_is_off_by_one_setting(tmp_path, monkeypatch):
    monkeypatch.setenv(graph_cache.SETTING, graph_cache.OFF)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compile_graph(CORE, graph(), EXACT)
    assert not [*tmp_path.iterdir()]


def test_large_graphs_and_loops_are_not_kept(monkeypatch):
    monkeypatch.setattr(graph_cache, "LARGEST", 40)
    assert name(graph()) is None
    monkeypatch.undo()
    monkeypatch.setenv(graph_cache.SETTING, "anywhere")
    monkeypatch.setattr(graph_cache, "INNER", {"Softmax"})
    assert name(graph()) is None


def test_what_was_not_used_for_longest_makes_room(folder, monkeypatch):
    for i, weight in enumerate([1.0, 2.0, 3.0]):
        compile_graph(CORE, graph(weight), EXACT)
        os.utime(folder / name(graph(weight)), (i + 1e9, i + 1e9))
    graph_cache.compiled_before(CORE, name(graph(1.0)), EXACT)  # used again
    size = max(path.stat().st_size for path in folder.iterdir())
    (folder / "0.part").write_bytes(b"another process is at it")
    (folder / "1.part").write_bytes(b"killed long ago")
    os.utime(folder / "1.part", (1e9, 1e9))
    monkeypatch.setattr(graph_cache, "ROOM", int(2.5 * size))
    graph_cache.make_room(folder)
    left = {path.name for path in folder.iterdir()}
    assert left == {name(graph(1.0)), name(graph(3.0)), "0.part"}


def test_it_lies_in_the_users_cache_folder_and_nowhere_without_one(tmp_path, monkeypatch):
    monkeypatch.delenv(graph_cache.SETTING)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert graph_cache.folder() == tmp_path / "diffusion-xray" / "openvino"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert graph_cache.folder() is None and name(graph()) is None


def test_a_size_that_only_a_run_can_tell_is_kept_as_well():
    x = opset.parameter([2, 3], np.float32)
    found = compile_graph(CORE, ov.Model([opset.non_zero(x).output(0)], [x]), EXACT)
    assert found([X])[0].shape == (2, 5)  # X has one zero
