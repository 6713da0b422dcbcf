"""The page about other people's models does what it says."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "any-model.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_classifier_is_tapped():
    done = subprocess.run(
        [sys.executable, "-c", CODE[0]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *listed, moved = done.stdout.splitlines()
    assert sum("_add (1, " in line for line in listed) == 16 and float(moved) > 1e-3
    assert "resnet.conv1_conv:in (1, 70, 70, 3)" in done.stdout
