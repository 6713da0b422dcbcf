"""The lab with a model that is no phantom: it draws any text, and nobody judges the picture."""

import pytest

from stable_diffusion_tf import StableDiffusion
from tests import tiny
from xray.film import Film
from xray.lab.asks import Ask, Change
from xray.lab.changes import Places, edits_of, loaded_as
from xray.lab.runner import Run, Runner

PROMPT = "zebras, in the style of nobody; a cat on a red background"
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.probs"


@pytest.fixture
def runner(small, tmp_path):
    return Runner(small, tmp_path)


def finished(run: Run) -> Run:
    for _ in run.follow(60):
        pass
    return run


def test_every_step_is_told_with_the_time_it_took(runner, small):
    run = finished(runner.start(Ask(PROMPT, steps=4)))
    assert [event["kind"] for event in run.events] == ["begun", *["step"] * 4, "done"]
    steps = [event for event in run.events if event["kind"] == "step"]
    assert [(event["index"], event["of"]) for event in steps] == [(i, 4) for i in range(4)]
    spent = [event["seconds"] for event in steps]
    assert spent == sorted(spent) and 0 < spent[-1] <= run.events[-1]["seconds"]
    assert run.events[0]["notes"] == []  # every word is read
    film = Film.open(runner.films()[run.name])
    assert film.image.shape == (small.size, small.size, 3) and film.facts["prompt"] == PROMPT


def test_its_pictures_are_not_judged(runner):
    first = finished(runner.start(Ask(PROMPT, steps=2)))
    assert first.events[-1]["found"] == {}
    again = finished(runner.start(Ask(PROMPT, steps=2)))
    assert again.events[-1]["found"] == {"from the last": 0.0}
    assert b'"known":[]' in runner.page_of(first.name)  # no masks either


def test_a_model_of_the_phantoms_size_is_no_phantom(small, runner, monkeypatch):
    monkeypatch.setattr("phantom.prompts.SIDE", small.size)
    run = finished(runner.start(Ask(PROMPT, steps=2)))
    assert run.events[-1]["found"] == {} and b'"known":[]' in runner.page_of(run.name)


def test_one_run_is_made_at_a_time(runner, monkeypatch):
    told, tell = [], Run.tell

    def noted(run: Run, kind: str, **facts):
        told.append(run.name)
        tell(run, kind, **facts)

    monkeypatch.setattr(Run, "tell", noted)
    runs = [runner.start(Ask(PROMPT, steps=3, seed=seed)) for seed in range(3)]
    for run in runs:
        finished(run)
    assert told == [run.name for run in runs for _ in range(5)]


def test_python_loads_it_from_where_it_lies(runner, small, tmp_path):
    change = Change("head", address=LAYER, head=1)
    run = finished(runner.start(Ask(PROMPT, steps=2, changes=(change,))))
    python = run.events[0]["python"]
    assert repr(str(small.checkpoint.place)) in python
    known: dict = {}
    exec(python, known)
    assert abs(known["image"].astype(int) - Film.open(runner.films()[run.name]).image).max() <= 1


def test_what_has_a_name_is_loaded_by_it(sd, small, tmp_path, monkeypatch):
    assert loaded_as(sd) == "phantom"
    other = tiny.write_model(tmp_path / "phantom")  # it only has the name
    assert loaded_as(StableDiffusion.load(other)) == str(other)
    monkeypatch.chdir(tmp_path)
    assert loaded_as(StableDiffusion.load(other)) == str(other)


def test_its_places_are_its_own(small):
    places = Places(small)
    assert places.heads == {LAYER: 2} and len(places.blocks) == 4
    edits = edits_of(small, Ask(PROMPT, changes=(Change("off", places.blocks[1]),)), places, {})
    assert len(edits) == 1


def test_the_page_is_told_of_no_world_and_no_tours(runner):
    from starlette.testclient import TestClient

    from xray.lab.server import make_app

    app = make_app(runner, "secret", "127.0.0.1", 8188)
    with TestClient(app, base_url="http://127.0.0.1:8188") as client:
        client.get("/", params={"token": "secret"})
        told = client.get("/model").json()
        asked = {"origin": "http://127.0.0.1:8188"}
        read = client.post("/check", json={"prompt": PROMPT}, headers=asked).json()
    assert "world" not in told and told["tours"] == [] and told["models"] == [told["name"]]
    assert told["name"] == "tiny" and told["heads"] == {LAYER: 2}
    assert not any(word["unknown"] for word in read["words"]) and not read["near"]
