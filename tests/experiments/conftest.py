"""Where sweeps are tried."""

from pathlib import Path

import pytest


@pytest.fixture
def log(tmp_path) -> str:
    (tmp_path / "log").mkdir()
    return str(tmp_path / "log")


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"
