"""A process that Ctrl-C reaches."""

import signal
import subprocess
from typing import Any


def start(command: list[str], **options: Any) -> subprocess.Popen:
    """Started with the usual answer to SIGINT, which a shell takes from what it runs in the
    background, this test and so its children too."""
    usual = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
    finally:
        signal.signal(signal.SIGINT, usual)
