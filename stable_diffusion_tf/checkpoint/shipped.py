"""Where the weights lie that come with the project, and how others are fetched: weights/ in the
repository, phantom/weights/ where it is installed."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IN_REPOSITORY = ROOT / "weights", "python weights/download.py"
INSTALLED = ROOT / "phantom" / "weights", "python -m phantom.weights.download"
CATALOG = "catalog.json"

SHIPPED, DOWNLOAD = next(
    (both for both in (IN_REPOSITORY, INSTALLED) if (both[0] / CATALOG).is_file()), IN_REPOSITORY
)
