"""The gallery: its pages, and that no experiment is left out."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.gallery import pages
from experiments.gallery.published import BESIDE, BLOCKS, READERS, Beside
from stable_diffusion_tf.errors import UsageError
from tests.experiments.test_scripts import call, spread
from xray.measure import Estimate
from xray.report import Control, Report, read_report

NAMES = [name for group in BLOCKS.values() for name in group]
SHARE = Estimate(5.0, 4.0, 6.0, 30, "%")
REPORT = Report(
    "it is *so*, by 5 %",
    Control("it is not so", "by 0 %", True, "nothing is so"),
    table=[{"row": str(i), "share": SHARE} for i in range(30)],
)
FACTS = {
    "seconds": 3.4,
    "files": {"figure": "figure.png", "colours": "colours.png", "table": "table.csv"},
    "model": {"kernels": {"cpu": "a CPU", "instruction_set": "AVX2", "threads": 2}},
}


@pytest.fixture
def story(monkeypatch) -> None:
    monkeypatch.setattr(pages, "read_story", lambda name: pages.Story("Is <it>?", "Read it so."))


def test_every_experiment_is_shown_once():
    there = {path.stem for path in pages.EXPERIMENTS.glob("te[sx]t*.py")}
    assert sorted(NAMES) == sorted(there)


def test_who_begins_somewhere_is_led_to_experiments():
    for steps in READERS.values():
        names = [name for name, _ in steps]
        assert len(names) > 4 and len({*names}) == len(names) and {*names} <= {*NAMES}
        assert all(why.endswith(".") for _, why in steps)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_asks_a_question_and_says_how_to_read_the_answer(name):
    story = pages.read_story(name)
    assert story.question.endswith("?") and len(story.question) < 100
    assert "control" in story.reading.lower()


@pytest.mark.usefixtures("story")
def test_a_page_gives_question_pictures_numbers_and_control():
    page = pages.write_page("x", REPORT, FACTS)
    assert page.startswith("# Is \\<it\\>?\n\n![it is \\*so\\*, by 5 %](x.webp)\n")
    assert "**it is \\*so\\*, by 5 %**" in page and "Control: it is not so: by 0 %" in page
    assert "experiments/x.py" in page and "![colours](x-colours.webp)" in page
    assert "row             share\n0    5.0 % [4.0, 6.0]\n" in page
    assert "… and 10 rows more, in x.json" in page and "3 s on a CPU, AVX2, 2 threads" in page
    told = ("[Is \\<it\\>?](x.md)", "it is \\*so\\*, by 5 %")
    assert pages.row("x", {"x": REPORT}, {})[:-1] == told
    assert pages.row("x", {"x": REPORT}, {"x": REPORT})[:-1] == (*told, told[1])


def test_published_figures_stand_beside_the_number_of_a_report():
    beside, reports = Beside("a share", "x", "share", "7 %", "smaller"), {}
    assert pages.compare(beside, reports) is None
    reports["x"] = Report("", REPORT.control, {"share": SHARE})
    ours = ("[a share](x.md)", "7 %", "5.0 % [4.0, 6.0]", "smaller")
    assert pages.compare(beside, reports) == ours
    assert pages.compare(beside, reports, reports) == (*ours[:3], ours[2], "smaller")
    other = {"x": Report("", REPORT.control, {})}
    assert pages.compare(beside, other, reports)[2:4] == ("none", ours[2])
    for given in ([reports], [reports, other]):
        with pytest.raises(ValueError, match="x reports no number 'sharing'"):
            pages.compare(beside._replace(number="sharing"), *given)


def test_it_runs_a_script_and_leads_to_it(tmp_path, monkeypatch, capfd):
    call(pages.main, "test_image_encoder", "--out", tmp_path, monkeypatch=monkeypatch)
    said, complained = capfd.readouterr()
    assert complained == "" and re.match(r"test_image_encoder +\d+ s  ", said)
    files = ("md", "webp", "json")
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        *(f"test_image_encoder.{kind}" for kind in files),
    }
    assert spread(tmp_path / "test_image_encoder.webp") > 10
    report, facts = read_report(tmp_path / "test_image_encoder.json")
    assert report.finding in said and facts["options"]["out"] == "outputs"
    index = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "(test_image_encoder.webp)" not in index and "(test_image_encoder.md)" in index
    assert '"test_image_encoder.webp"' in index and '"test_guidance.webp"' not in index
    page = (tmp_path / "test_image_encoder.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^()]+\.md)\)", index + page)
    assert len({*links}) >= 4 and all((tmp_path / link).exists() for link in links), links


def test_a_script_that_fails_is_named_and_the_others_are_drawn(tmp_path, monkeypatch, capfd):
    words = ["--weights", "nothing-such", "--out", tmp_path]
    with pytest.raises(SystemExit, match="1 failed: test_image_encoder"):
        call(pages.main, "test_image_encoder", *words, monkeypatch=monkeypatch)
    assert "FAILED: test_image_encoder.py: " in capfd.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_script_that_was_stopped_finds_what_it_kept(tmp_path, monkeypatch, capfd):
    found = []

    def stopped(name, weights, chosen, scratch):
        found.append([*scratch.rglob("*.npz")])
        kept = scratch / "outputs" / name / "unfinished" / "key"
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "000000.npz").touch()
        raise RuntimeError("killed by signal 9; over 14 min, 4.9 GB")

    monkeypatch.setattr(pages, "run", stopped)
    words = ["--budget", "10min", "--out", tmp_path]
    for _ in range(2):
        with pytest.raises(SystemExit, match="the same command tries again"):
            call(pages.main, "test_anatomy", *words, monkeypatch=monkeypatch)
    assert [len(some) for some in found] == [0, 1]
    assert "FAILED: killed by signal 9" in capfd.readouterr().out
    monkeypatch.undo()
    call(pages.main, "test_anatomy", *words, monkeypatch=monkeypatch)
    _, facts = read_report(tmp_path / "test_anatomy.json")
    assert facts["options"]["budget"] == "10min"
    page = (tmp_path / "test_anatomy.md").read_text(encoding="utf-8")
    assert "experiments/test_anatomy.py --weights phantom --budget=10min\n" in page


def test_the_pages_that_are_shipped_are_those_of_the_reports():
    shipped = pages.read_all(pages.GALLERY)
    assert sorted(shipped) == sorted(NAMES)
    assert all(pages.compare(beside, shipped) for beside in BESIDE)
    assert (pages.GALLERY / pages.INDEX).read_text("utf-8") == pages.write_index(shipped)
    for name in NAMES:
        page = (pages.GALLERY / f"{name}.md").read_text("utf-8")
        assert page == pages.write_page(name, *read_report(pages.GALLERY / f"{name}.json"))
        assert (pages.GALLERY / f"{name}.webp").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_finding_is_a_plain_sentence(name):
    finding = read_report(pages.GALLERY / f"{name}.json")[0].finding
    assert finding.endswith(".") and len(finding.split()) <= 25, len(finding.split())


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """Instead of running scripts, their names, and the reports that are shipped."""
    run: list[str] = []

    def draw(name, weights, chosen, out):
        run.append(name)
        if "broken" in weights and len(run) == 2:
            return False
        shutil.copyfile(pages.GALLERY / f"{name}.json", out / f"{name}.json")
        return True

    monkeypatch.setattr(pages, "draw", draw)
    return run


def test_a_gallery_goes_on_where_it_stopped(tmp_path, runs, capsys):
    names = ("text2image", "test_anatomy", "test_guidance")
    with pytest.raises(SystemExit, match="1 failed: test_anatomy; the same command tries again"):
        pages.main(names, weights="broken", out=tmp_path)
    pages.main(names, weights="broken", out=tmp_path)
    assert runs == [*names, "test_anatomy"] and "2 of 3 were drawn" in capsys.readouterr().out
    assert not (tmp_path / pages.BEGUN).exists()
    pages.main(names, weights="broken", out=tmp_path)
    assert len(runs) == 7, "a finished gallery is drawn anew"


def test_another_models_answers_stand_beside_the_phantoms(tmp_path, runs):
    pages.main(("test_guidance", "test_h_space"), weights="x/model", out=tmp_path)
    index = (tmp_path / pages.INDEX).read_text("utf-8")
    assert "Here `x/model` is asked." in index and "| the phantom's |" in index
    assert "| published | here | the phantom | why the phantom differs |" in index
    with pytest.raises(UsageError, match="shows the phantom; name a folder for x/model"):
        pages.main((), weights="x/model")


def test_an_unknown_name_is_refused(tmp_path, monkeypatch, capfd):
    with pytest.raises(SystemExit):
        call(pages.main, "test_nothing", "--out", tmp_path, monkeypatch=monkeypatch)
    assert "no experiment test_nothing; choose from text2image" in capfd.readouterr().err


def test_it_starts_without_a_word():
    command = [sys.executable, "-m", "experiments.gallery", "--help"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stderr == "" and "--weights" in done.stdout
