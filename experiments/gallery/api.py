"""Writes docs/api.md: what the library offers, from its docstrings.

python -m experiments.gallery.api
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

API = Path(__file__).resolve().parents[2] / "docs" / "api.md"

PARTS = {  # title → module: what of it is shown
    "The model": {"stable_diffusion_tf": "StableDiffusion Step UsageError"},
    "Look inside": {"xray": "taps run instrument Probe Mean Edit Feed PerStep capture gradient"},
    "Films": {"xray": "Film Cache", "xray.film.page": "probes to_html"},
    "Attention": {"xray": "heat_maps HeatMap", "xray.attention": "maps word_maps phrases Pooling"},
    "Tensors": {"xray": "DebugTensor"},
    "Two models": {
        "xray": "compare_models first_nan",
        "xray.compare": "compare compare_films Comparison hooked reads_of reads_on",
    },
    "Numbers": {
        "xray.measure": "Estimate mean_of share_of p_value psnr ssim detail contrast saturation "
        "distance cosine iou pointing mass_inside leakage "
        "rank_correlation covered resize_by_area spectrum normality",
    },
    "Experiments": {
        "xray.report": "Report Control read_report",
        "xray.options": "Options Seeded Sampling Batch",
        "xray.script": "run_experiment load_model",
        "experiments.sweep": "sweep rows Swept",
    },
    "The phantom's world": {
        "phantom.world": "Scene Thing scenes render masks",
        "phantom.prompts": "asked marks counts shown not_read",
        "phantom.judge": "judge",
        "phantom.attribution": "score Case Row",
    },
}
HEAD = """# API

Made from the docstrings by `python -m experiments.gallery.api`; [recipes](recipes.md) show it at
work, the [glossary](glossary.md) has the words. Arrays are NumPy, channels last, unless said.
"""


def main() -> None:
    API.write_text(page(), encoding="utf-8")


def page() -> str:
    parts = [HEAD, " · ".join(f"[{title}](#{anchor(title)})" for title in PARTS), ""]
    for title, modules in PARTS.items():
        parts.append(f"## {title}\n")
        for module, names in modules.items():
            for name in names.split():
                thing = getattr(import_module(module), name)
                parts += [f"### {module}.{name}\n", *entry(thing)]
    return "\n".join(parts).rstrip() + "\n"


def anchor(title: str) -> str:
    """As Markdown's readers make it of a heading."""
    return title.lower().replace("'", "").replace(" ", "-")


def entry(thing: Any) -> Iterator[str]:
    """A function or a class: how it is called, and what its docstring says."""
    tree = ast.parse(textwrap.dedent(source := inspect.getsource(thing))).body[0]
    if isinstance(tree, ast.FunctionDef):
        yield from block(signature(tree), tree)
        return
    lines = textwrap.dedent(source).splitlines()
    fields = [line.strip() for part in tree.body for line in fields_in(part, lines)]
    bases = f"({', '.join(map(ast.unparse, tree.bases))})" if tree.bases else ""
    yield from block("\n    ".join([f"class {tree.name}{bases}", *fields]), tree)
    for part in tree.body:
        if isinstance(part, ast.FunctionDef) and shown(part):
            yield from block(signature(part, tree.name), part)


def fields_in(part: ast.AST, lines: list[str]) -> list[str]:
    """The lines of a public field, their comments with them."""
    named = isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    if not named or part.target.id.startswith("_"):
        return []
    return lines[part.lineno - 1 : part.end_lineno]


def shown(method: ast.FunctionDef) -> bool:
    """Public, and documented; of the private ones what is made, indexed or called."""
    public = not method.name.startswith("_") or method.name in ("__init__", "__getitem__")
    return public and ast.get_docstring(method) is not None


def block(head: str, tree: Any) -> Iterator[str]:
    yield f"```python\n{head}\n```\n"
    if text := ast.get_docstring(tree):
        yield f"{as_markdown(text)}\n"


def as_markdown(text: str) -> str:
    """Indented parts, which are lists of arguments and examples, as they stand."""
    parts = []
    for part in text.split("\n\n"):
        first, _, rest = part.partition("\n")
        indented = rest.startswith("    ") and first.endswith(":")
        parts.append(f"```text\n{part}\n```" if indented else part)
    return "\n\n".join(parts)


def signature(tree: ast.FunctionDef, owner: str = "") -> str:
    """How it is called, in one line or with a line for each argument; of a class, `owner`, its
    methods begin with a dot, and those of the class itself with its name."""
    kinds = {ast.unparse(decorator) for decorator in tree.decorator_list}
    of_class = kinds & {"classmethod", "staticmethod"}
    given = [*arguments(tree.args)][bool(owner) and "staticmethod" not in kinds :]
    name = f"{owner if of_class else ''}{'.' * bool(owner)}{tree.name}"
    returns = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    if kinds & {"property", "cached_property"}:
        return name + returns
    line = f"{name}({', '.join(given)}){returns}"
    if len(line) <= 96:
        return line
    return f"{name}(\n    " + ",\n    ".join(given) + f",\n){returns}"


def arguments(args: ast.arguments) -> Iterator[str]:
    """Each argument with its annotation and default."""
    given = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(given) - len(args.defaults)) + args.defaults
    yield from map(argument, given, defaults)
    if args.vararg or args.kwonlyargs:
        yield f"*{ast.unparse(args.vararg) if args.vararg else ''}"
    yield from map(argument, args.kwonlyargs, args.kw_defaults)
    if args.kwarg:
        yield f"**{ast.unparse(args.kwarg)}"


def argument(arg: ast.arg, default: ast.expr | None) -> str:
    space = " " if arg.annotation else ""
    return ast.unparse(arg) + (f"{space}={space}{ast.unparse(default)}" if default else "")


if __name__ == "__main__":
    main()
