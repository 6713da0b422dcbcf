"""The lab's server: 127.0.0.1 alone, a token in the link, JSON in, events out.

Whoever opens the link gets a cookie, which all other requests need. Host and Origin are looked at,
so no other site's page can ask, not by a name that it makes point here either (DNS rebinding).
Films are looked up among those that are there; no path from a page reaches the disk.
"""

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from phantom.prompts import GRAMMAR, is_phantom, known_things, of_its_world
from phantom.world import BACKGROUNDS, SIDES, SIZES
from stable_diffusion_tf.errors import UsageError

from .asks import LONGEST, read_ask
from .runner import Runner

HERE = resources.files(__package__)
FILES = HERE / "page"
KINDS = {"lab.js": "text/javascript", "lab.css": "text/css"}
LARGEST = 20_000  # bytes of what a page posts
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Next = Callable[[Request], Awaitable[Response]]


def make_app(runner: Runner, token: str, host: str, port: int) -> Starlette:
    """host, port: where it is served; other names for it are refused."""
    app = Starlette(
        routes=[
            Route("/", home),
            Route("/files/{name}", file),
            Route("/model", model),
            Route("/check", check, methods=["POST"]),
            Route("/runs", start, methods=["POST"]),
            Route("/runs/{name}/stop", stop, methods=["POST"]),
            Route("/runs/{name}/events", events),
            Route("/films", films),
            Route("/films/{name}", film),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
    )
    app.state.runner, app.state.token = runner, token
    app.state.cookie = f"lab-{port}"
    names = {host, "127.0.0.1", "localhost"} if host in ("127.0.0.1", "localhost") else {host}
    app.state.hosts = {f"{name}:{port}" for name in names}
    return app


async def guard(request: Request, call: Next) -> Response:
    """Who may ask, and for what."""
    state, host = request.app.state, request.headers.get("host", "")
    if host not in state.hosts:
        return refused(403, "this server has another name")
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return refused(403, "another site asks")
    given = request.query_params.get("token") if request.url.path == "/" else None
    token = given or request.cookies.get(state.cookie, "")
    if not hmac.compare_digest(token.encode(), state.token.encode()):
        return refused(401, "open the link that the terminal shows: it holds the token")
    if request.method == "POST":
        if request.headers.get("content-type") != "application/json":
            return refused(415, "JSON alone")
        if origin is None or int(request.headers.get("content-length") or LARGEST + 1) > LARGEST:
            return refused(413, "too long, or from nowhere")
    response = await call(request)
    response.headers.update({name: v for name, v in ALWAYS.items() if name not in response.headers})
    return response


def refused(status: int, said: str) -> JSONResponse:
    return JSONResponse({"said": said}, status, ALWAYS)


# --- pages -------------------------------------------------------------------------------------


async def home(request: Request) -> Response:
    page = (FILES / "lab.html").read_bytes()
    response = Response(page, media_type="text/html", headers={"Content-Security-Policy": POLICY})
    state = request.app.state
    response.set_cookie(state.cookie, state.token, httponly=True, samesite="strict")
    return response


async def file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in KINDS:
        return refused(404, "no such file")
    return Response((FILES / name).read_bytes(), media_type=KINDS[name])


async def model(request: Request) -> Response:
    """What there is to choose from."""
    sd, places = request.app.state.runner.sd, request.app.state.runner.places
    told: dict[str, Any] = {
        "name": sd.checkpoint.place.name,
        "size": sd.size,
        "blocks": places.blocks,
        "heads": places.heads,
        "longest": LONGEST,
        "models": [*request.app.state.runner.models],
        "tours": [],
    }
    if is_phantom(sd):
        told["tours"] = read_tours()  # what they say is true of it alone
        told["world"] = {
            "things": known_things(sd),
            "sizes": [*SIZES],
            "sides": [*SIDES],
            "colours": [*BACKGROUNDS],
            "grammar": GRAMMAR,
        }
    return JSONResponse(told)


async def check(request: Request) -> Response:
    """How the model reads a prompt: its tokens, and the words that it never saw."""
    prompt = (await body(request)).get("prompt")
    if not isinstance(prompt, str) or len(prompt) > LONGEST:
        return refused(400, "a prompt is a text")
    sd = request.app.state.runner.sd
    strange = sd.unknown_words(prompt)
    return JSONResponse(
        {
            "words": [
                {"text": word, "tokens": [*places], "unknown": word in strange}
                for word, places in sd.tokenizer.words(prompt)
            ],
            "near": strange,
            "of its world": of_its_world(prompt),
        }
    )


def read_tours() -> list[dict[str, Any]]:
    """The guided tours, in the order of their files' names."""
    files = sorted((HERE / "tours").iterdir(), key=lambda file: file.name)
    return [json.loads(file.read_text("utf-8")) for file in files]


# --- runs --------------------------------------------------------------------------------------


async def start(request: Request) -> Response:
    try:
        run = request.app.state.runner.start(read_ask(await body(request)))
    except UsageError as error:
        return refused(400, str(error))
    return JSONResponse({"run": run.name})


async def stop(request: Request) -> Response:
    run = request.app.state.runner.runs.get(request.path_params["name"])
    if run is None:
        return refused(404, "no such run")
    run.stopping = True
    return JSONResponse({"run": run.name})


async def events(request: Request) -> Response:
    """Server-sent events, from the run's first on."""
    run = request.app.state.runner.runs.get(request.path_params["name"])
    if run is None:
        return refused(404, "no such run")

    async def lines() -> AsyncIterator[str]:
        async for event in iterate_in_threadpool(run.follow()):
            yield ": still here\n\n" if event is None else f"data: {json.dumps(event)}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


# --- films -------------------------------------------------------------------------------------


async def films(request: Request) -> Response:
    from xray.film.metadata import read_facts

    told = []
    for name, folder in request.app.state.runner.films().items():
        try:
            facts = read_facts(folder)
        except UsageError:
            continue
        told.append(
            {"film": name, **{k: facts.get(k) for k in ("prompt", "seed", "steps", "guidance")}}
        )
    return JSONResponse(told)


async def film(request: Request) -> Response:
    """A film's page, as it is handed on; it may stand in the lab's own."""
    page = request.app.state.runner.page_of(request.path_params["name"])
    if page is None:
        return refused(404, "no such film")
    return Response(page, media_type="text/html")


async def body(request: Request) -> dict[str, Any]:
    """What was posted; {} where that is no object."""
    try:
        said = json.loads(await request.body())
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
