"""The page that holds the phantoms side by side: written from reports, whatever they lack."""

import json

import pytest

from experiments.gallery import phantoms
from xray.measure import Estimate

VALUE = Estimate(0.5, 0.4, 0.6, 30)
ONE = Estimate(0.5, float("nan"), float("nan"), 1, "%")


def row(method: str) -> dict:
    found = dict.fromkeys(phantoms.SCORES, VALUE._asdict())
    return {"method": method, "words": 4, "share": 0.5, **found, "causal": None}


@pytest.fixture
def reports(tmp_path):
    tables = {name: {"scenes": {"things": [row("S⁴·A"), row("a|b")]}} for name in ("p", "q")}
    (tmp_path / "attribution.json").write_text(json.dumps({"tables": tables}), "utf-8")
    for name, cases in {"p": ("start", "words"), "q": ("words",)}.items():
        table = [{"part": "attention", "case": case, **VALUE._asdict()} for case in cases]
        table.append({"part": "direction", "case": "blue → red", **ONE._asdict(), "low": None})
        (tmp_path / f"physiology-{name}.json").write_text(json.dumps({"table": table}), "utf-8")
    return tmp_path


def test_a_page_holds_both_side_by_side(reports):
    page = phantoms.page(["p", "q"], reports)
    assert "### p\n" in page and "### q\n" in page and "physiology-q.webp" in page
    assert page.count("| S⁴·A | 0.50 [0.40, 0.60] |") == 2 and "| a\\|b |" in page
    assert "| attention | start | 0.50 [0.40, 0.60] |  |" in page
    assert "| attention | words | 0.50 [0.40, 0.60] | 0.50 [0.40, 0.60] |" in page
    assert "| direction | blue → red | 0.5 % | 0.5 % |" in page


def test_commands_are_run_and_what_they_save_is_kept(reports, tmp_path, monkeypatch):
    asked = []

    def run(command, scratch):
        asked.append(command[:3])
        folder = scratch / str(len(asked))
        folder.mkdir()
        name = "attribution" if len(asked) == 1 else f"physiology-{'pq'[len(asked) - 2]}"
        (folder / "report.json").write_text((reports / f"{name}.json").read_text("utf-8"), "utf-8")
        from PIL import Image

        Image.new("RGB", (8, 8)).save(folder / "a.png")
        return folder

    monkeypatch.setattr(phantoms, "run", run)
    out = tmp_path / "out"
    phantoms.main(("p", "weights/q"), out)
    assert [words[0] for words in asked] == ["phantom.attribution", *["phantom.physiology"] * 2]
    assert (out / "README.md").read_text("utf-8") == phantoms.page(["p", "q"], out)
    assert (out / "physiology-q.webp").exists()
