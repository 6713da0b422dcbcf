"""The lab without a browser: its changes, its runs, and whom its server answers."""

import json
import threading
import time

import numpy as np
import pytest

from stable_diffusion_tf.errors import UsageError
from xray.film import Film
from xray.lab import runner as runners
from xray.lab.asks import Ask, Change, read_ask
from xray.lab.changes import Places, edits_of
from xray.lab.runner import Run, Runner, Stopped

PROMPT = "a cat on a red background"
LAYER = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn2.probs"
BLOCK = "unet.up_blocks.1.attentions.0"


@pytest.fixture(scope="module")
def places(sd):
    return Places(sd)


@pytest.fixture
def runner(sd, tmp_path):
    return Runner(sd, tmp_path)


def finished(runner: Runner, ask: Ask) -> Run:
    run = runner.start(ask)
    for _ in run.follow(60):
        pass
    return run


# --- changes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        (Change("weigh", tokens=(2,), factor=0.0), True),
        (Change("weigh", tokens=(2,), factor=1.0), False),
        (Change("head", address=LAYER, head=1), True),
        (Change("off", address=BLOCK), True),
        (Change("off", address="unet.up_blocks.1.resnets.0"), True),
        (Change("direction", old="cat", new="dog", factor=50.0), True),
        (Change("direction", old="cat", new="cat", factor=1.0), False),
    ],
)
def test_a_change_is_an_edit_that_does_what_it_says(change, moves, sd, places):
    from xray.film.cache import run

    ask = Ask(PROMPT, steps=3, changes=(change,))
    edits = edits_of(sd, ask, places, {})
    plain, _ = run(sd, PROMPT, steps=3)
    image, _ = run(sd, PROMPT, steps=3, edits=edits)
    far = np.abs(image.astype(int) - plain).max()
    assert (far > 2) == moves, far


def test_a_block_is_patched_from_another_films_run(sd, places, tmp_path):
    other = Film.shoot(sd, "a dog on a red background", steps=3, seed=4, out=tmp_path / "other")
    change = Change("patch", address=BLOCK, film="other")
    ask = Ask(PROMPT, steps=3, changes=(change,))
    (edit,) = edits_of(sd, ask, places, {"other": other})
    from xray.film.cache import run

    _, wanted = run(sd, "a dog on a red background", read=BLOCK, steps=3, seed=4)
    np.testing.assert_array_equal(edit.source[2][BLOCK], wanted[2][BLOCK])
    with pytest.raises(UsageError, match="there is no film"):
        edits_of(sd, ask, places, {})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change("off", address="unet.*"), "has no 'unet.*' to change"),
        (Change("off", address="../../etc"), "to change"),
        (Change("head", address=LAYER, head=4), "there is no head 4: 4 are there"),
        (Change("direction", old="zebra", new="dog", factor=1.0), "the prompt has no 'zebra'"),
    ],
)
def test_a_place_that_is_not_there_is_said(change, told, sd, places):
    with pytest.raises(UsageError, match=told):
        edits_of(sd, Ask(PROMPT, steps=2, changes=(change,)), places, {})


def test_python_makes_the_same_run(runner, places, loaded):
    other = finished(runner, Ask("a dog on a green background", steps=3, seed=5))
    changes = (
        Change("weigh", tokens=(2,), factor=3.0),
        Change("head", address=LAYER, head=0),
        Change("off", address="unet.up_blocks.1.attentions.1"),
        Change("patch", address=BLOCK, film=other.name),
        Change("direction", old="cat", new="dog", factor=20.0),
    )
    asked = {"steps": 3, "seed": 2, "changes": changes, "back": other.name}
    run = finished(runner, Ask(PROMPT, **asked))
    known: dict = {}
    exec(run.events[0]["python"], known)
    image = Film.open(runner.films()[run.name]).image
    assert np.abs(known["image"].astype(int) - image).max() <= 1  # nothing is read in the one
    plain = finished(runner, Ask(PROMPT, steps=3, seed=2))
    assert np.abs(Film.open(runner.films()[plain.name]).image.astype(int) - image).max() > 10


def test_another_models_pictures_are_its_own_decoders(runner, sd, monkeypatch):
    x0 = sd.draw_noise(0)
    monkeypatch.setattr(
        type(sd), "decode_latent", lambda self, x: np.full((1, 64, 64, 3), self.mark)
    )
    monkeypatch.setattr(type(sd), "mark", 0.0, raising=False)
    other = type(sd)(sd.checkpoint)
    other.mark = 1.0
    assert runners.preview(other, x0).mean() == 255 and runners.preview(sd, x0).mean() < 130


# --- runs --------------------------------------------------------------------------------------


def test_a_run_tells_its_steps_and_leaves_a_film(runner, sd):
    run = finished(runner, Ask(PROMPT, steps=3))
    kinds = [event["kind"] for event in run.events]
    assert kinds == ["begun", "step", "step", "step", "done"]
    steps = [event for event in run.events if event["kind"] == "step"]
    assert [e["index"] for e in steps] == [0, 1, 2] and steps[0]["picture"].startswith(
        "data:image/png"
    )
    film = Film.open(runner.films()[run.name])
    np.testing.assert_array_equal(film.image, sd.generate(PROMPT, steps=3)[0])
    assert b'id="film"' in runner.page_of(run.name)
    assert run.events[-1]["film"] == run.name and "things" in run.events[-1]["found"]
    again = finished(runner, Ask(PROMPT, steps=3))
    assert again.events[-1]["found"]["from the last"] == 0


def test_a_run_can_be_stopped_and_keeps_what_it_has(runner):
    run = runner.start(Ask(PROMPT, steps=150))
    for event in run.follow(60):
        if event and event["kind"] == "step":
            run.stopping = True
    assert run.events[-1]["kind"] == "stopped"
    film = Film.open(runner.films()[run.name])
    assert 0 < len(film) < 150 and film.image is None
    assert b'id="film"' in runner.page_of(run.name)  # the steps that there are can be looked at


def test_a_run_that_fails_is_told_and_the_next_has_its_turn(runner, monkeypatch):
    wrong = Change("direction", old="zebra", new="dog", factor=1.0)
    run = finished(runner, Ask(PROMPT, steps=2, changes=(wrong,)))
    assert run.events[-1] == {"kind": "failed", "said": "the prompt has no 'zebra'"}
    monkeypatch.setattr(runners, "edits_of", lambda *_: 1 / 0)
    assert "ZeroDivisionError" in finished(runner, Ask(PROMPT, steps=2)).events[-1]["said"]
    monkeypatch.undo()
    assert finished(runner, Ask(PROMPT, steps=2)).events[-1]["kind"] == "done"


def test_only_so_many_runs_wait_and_are_kept(runner, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(runner, "film", lambda run: (gate.wait(60), run.tell("stopped")))
    runs = [runner.start(Ask(PROMPT))]
    while not runner.waiting.empty():  # until it is taken; before, the model is compiled
        time.sleep(0.02)
    runs += [runner.start(Ask(PROMPT)) for _ in range(runners.WAITING)]
    with pytest.raises(UsageError, match="too many runs wait"):
        runner.start(Ask(PROMPT))
    gate.set()
    for run in runs:
        assert [e["kind"] for e in run.follow(60) if e] == ["stopped"]
    assert len({run.name for run in runs}) == len(runs)
    monkeypatch.setattr(runners, "KEPT", 0)
    for _ in range(6):
        finished(runner, Ask(PROMPT))
    assert len(runner.runs) <= runners.WAITING + 1


def test_two_who_follow_hear_the_same(runner):
    run = runner.start(Ask(PROMPT, steps=3))
    heard: list[list] = [[], []]
    threads = [
        threading.Thread(target=lambda i=i: heard[i].extend(e["kind"] for e in run.follow(60) if e))
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert heard[0] == heard[1] == [event["kind"] for event in run.events]


def test_only_films_of_the_lab_are_named(runner, tmp_path):
    for name in ("../outside", "notes", "20260101-000000-000"):
        (tmp_path / name).resolve().mkdir(parents=True, exist_ok=True)
        ((tmp_path / name).resolve() / "film.json").write_text("{}")
    assert [*runner.films()] == ["20260101-000000-000"]
    assert runner.page_of("../outside") is None and runner.page_of("notes") is None
    assert runner.page_of("20260101-000000-000") is None  # no step


def test_a_picture_is_walked_back_and_drawn_again(runner):
    first = finished(runner, Ask(PROMPT, steps=40, guidance=1))
    again = finished(runner, Ask(PROMPT, steps=40, guidance=1, back=first.name, seed=9))
    images = [Film.open(runner.films()[run.name]).image.astype(float) for run in (first, again)]
    fresh = finished(runner, Ask(PROMPT, steps=40, guidance=1, seed=9))
    other = Film.open(runner.films()[fresh.name]).image
    near, far = (np.abs(images[0] - image).mean() for image in (images[1], other))
    assert near < far / 2
    with pytest.raises(UsageError, match="there is no film"):
        runner.start(Ask(PROMPT, back="../outside"))


def test_another_model_is_loaded_when_it_is_asked_for(sd, tmp_path):
    runner = Runner(sd, tmp_path, ["phantom-registers"])
    assert runner.models["phantom-registers"] is None
    run = finished(runner, Ask(PROMPT, steps=2, weights="phantom-registers"))
    assert run.events[-1]["kind"] == "done" and "registers" in run.events[0]["python"]
    assert Film.open(runner.films()[run.name]).facts["weights"] == "phantom-registers"
    with pytest.raises(UsageError, match="the lab has no '/etc'"):
        runner.start(Ask(PROMPT, weights="/etc"))


def test_every_tour_asks_for_runs_that_can_be_made(runner):
    from xray.lab.server import read_tours

    tours = read_tours()
    assert len(tours) == 5
    for tour in tours:
        films = 0
        for stop in tour["stops"]:
            assert stop.keys() <= {"say", "ask", "view"} and len(stop["say"]) < 260
            if asked := stop.get("ask"):
                back = asked.pop("back", None)
                assert back in (None, "the last", "the first") and (not back or films)
                ask, films = read_ask(asked), films + 1
                assert not runner.sd.unknown_words(ask.prompt)
                assert ask.weights in ("", "phantom", "phantom-registers")
        assert films


# --- the server --------------------------------------------------------------------------------

TOKEN, HOST = "secret", "127.0.0.1:8188"
JSON = {"content-type": "application/json", "origin": f"http://{HOST}"}


@pytest.fixture
def client(runner):
    from starlette.testclient import TestClient

    from xray.lab.server import make_app

    app = make_app(runner, TOKEN, "127.0.0.1", 8188)
    with TestClient(app, base_url=f"http://{HOST}") as client:
        yield client


@pytest.fixture
def known(client):
    """Somebody who opened the link."""
    assert client.get("/", params={"token": TOKEN}).status_code == 200
    return client


def test_who_has_the_link_gets_the_page_and_may_ask(known):
    page = known.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for name in ("lab.js", "lab.css"):
        assert known.get(f"/files/{name}").status_code == 200
    model = known.get("/model").json()
    assert model["heads"][LAYER] == 4 and "cat" in model["world"]["things"]
    read = known.post("/check", content=json.dumps({"prompt": "a zebra"}), headers=JSON).json()
    assert [word["unknown"] for word in read["words"]] == [False, True]


def test_a_run_by_the_server(known):
    asked = json.dumps({"prompt": PROMPT, "steps": 2})
    name = known.post("/runs", content=asked, headers=JSON).json()["run"]
    lines = known.get(f"/runs/{name}/events").text.split("\n\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [event["kind"] for event in events] == ["begun", "step", "step", "done"]
    assert known.get("/films").json()[0]["prompt"] == PROMPT
    assert PROMPT in known.get(f"/films/{name}").text
    assert known.post(f"/runs/{name}/stop", content="{}", headers=JSON).status_code == 200


@pytest.mark.parametrize("path", ["/", "/model", "/films", "/runs/x/events", "/files/lab.js"])
def test_who_has_no_token_gets_nothing(path, client):
    assert client.get(path).status_code == 401
    assert client.get(path, params={"token": "guess"}).status_code == 401
    client.cookies.set("lab-8188", "guess")
    assert client.get(path).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example:8188"}, 403),  # a name that was made to point here
        ({"host": "127.0.0.1:9999"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain"}, 415),  # what a form can send
        ({"content-type": "application/json; charset=utf-8"}, 415),
        ({"content-length": "999999"}, 413),
    ],
)
def test_other_sites_cannot_ask(headers, status, known):
    asked = json.dumps({"prompt": PROMPT})
    assert known.post("/runs", content=asked, headers=JSON | headers).status_code == status


def test_a_post_from_nowhere_is_refused(known):
    headers = {"content-type": "application/json"}
    assert known.post("/runs", content="{}", headers=headers).status_code == 413


OUTSIDE = (
    "/films/..%2f..%2fetc%2fpasswd",
    "/films/%2e%2e",
    "/files/..%2fserver.py",
    "/files/x",
    "/films/x",
    "/runs/x/events",
)


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_reaches_the_disk(path, known):
    assert known.get(path).status_code == 404


@pytest.mark.parametrize("body", ["", "[]", "{", '{"prompt": 3}', "[" * 9000, "\xff"])
def test_what_is_no_run_is_refused_in_a_line(body, known):
    answer = known.post("/runs", content=body.encode("latin-1"), headers=JSON)
    assert answer.status_code == 400 and answer.json()["said"]


def test_stopped_before_it_began(runner):
    with pytest.raises(Stopped):
        runner.film(Run("x", Ask(PROMPT), stopping=True))
