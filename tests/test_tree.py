"""The house: which room may look into which. Imports that only types need count as well."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = [  # each may import what stands before it, and nobody what stands after
    {"stable_diffusion_tf"},
    {"xray.door", "xray.measure", "xray.plain_figure", "xray.plots", "xray.viewer"},
    {"xray.probe", "xray.tensor_debug", "xray.rounding"},
    {"xray.attention"},
    {"xray.film"},
    {"xray.compare"},
    {"xray.report", "xray.options", "xray.shell"},
    {"xray.methods", "xray.budget", "xray.journal", "xray.script", "xray.pictures"},
    {"weights"},
    {"phantom"},
    {"xray.lab"},
    {"experiments"},
]


def modules() -> dict[str, Path]:
    packages = ("stable_diffusion_tf", "xray", "phantom", "experiments", "weights")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


MODULES = modules()


def imported(module: str) -> set[str]:
    """The modules of ours that a module imports, at its top, in functions or for types."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return {name for name in found if name in MODULES} - {module}


def room(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "xray" else 1])


def floor(module: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room(module) in rooms)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"xray"}))
def test_a_room_looks_only_into_those_below_it(module):
    above = {other for other in imported(module) - {"xray"} if floor(other) > floor(module)}
    assert not above


def test_no_rooms_import_each_other():
    graph = {}
    for module in MODULES.keys() - {"xray"}:
        others = {room(other) for other in imported(module)} - {room(module), "xray"}
        graph.setdefault(room(module), set()).update(others)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"rooms in a circle: {' ← '.join(error.args[1])}")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("te[sx]t*.py")), ids=lambda p: p.stem
)
def test_an_experiment_is_at_most_110_lines(path):
    assert len(path.read_text("utf-8").splitlines()) <= 110


def test_no_experiment_imports_keras_before_it_knows_the_backend():
    """So that --backend is heeded, and --help comes at once."""
    names = [path.stem for path in (ROOT / "experiments").glob("te[sx]t*.py")]
    each = (
        f"import experiments.{name}\nassert 'keras' not in sys.modules, '{name}'" for name in names
    )
    code = "\n".join(["import sys", *each])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
