"""One run at a time, as a film on disk, and its steps told to whoever listens."""

import queue
import re
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phantom.attribution.examples import masks_in
from phantom.prompts import is_phantom, marks, not_read
from phantom.world import SIDE
from stable_diffusion_tf.errors import UsageError
from stable_diffusion_tf.images import to_uint8
from xray import measure, script
from xray.film import Film, page
from xray.film.html import data_uri
from xray.film.storage import Frame, frame_path

from .asks import Ask
from .changes import Places, edits_of, loaded_as, noise_of, python_of

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion

WAITING, KEPT = 4, 50  # runs that may wait, and finished ones whose events are kept
PAGE, FACTS = "run.html", "film.json"
NAME = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]{3}")
MEGABYTES = 4.0  # of a film's page


class Stopped(Exception):
    """Somebody has seen enough."""


@dataclass
class Run:
    """A run that was asked for: its events so far, and whether there will be more."""

    name: str
    ask: Ask
    events: list[dict[str, Any]] = field(default_factory=list)
    over: bool = False
    stopping: bool = False
    news: threading.Condition = field(default_factory=threading.Condition)

    def tell(self, kind: str, **facts: Any) -> None:
        with self.news:
            self.events.append({"kind": kind, **facts})
            self.over = kind in ("done", "stopped", "failed")
            self.news.notify_all()

    def follow(self, patience: float = 15.0) -> Iterator[dict[str, Any] | None]:
        """All events from the first on, until the run is over; None where nothing happens."""
        told = 0
        while True:
            with self.news:
                if told == len(self.events) and not self.over:
                    self.news.wait(patience)
                some, over = self.events[told:], self.over
            yield from some or [None]
            told += len(some)
            if over and told == len(self.events):
                return


class Runner:
    """Takes runs in their order and films each into a folder of its own.

    others: models that a run may ask for beside the first, by name; each is loaded when it is first
    asked for.
    """

    def __init__(self, sd: "StableDiffusion", out: Path, others: Sequence[str] = ()):
        self.sd, self.out, self.places = sd, out, Places(sd)
        self.models = {sd.checkpoint.place.name: sd} | dict.fromkeys(others)
        self.runs: OrderedDict[str, Run] = OrderedDict()
        self.waiting: queue.Queue[Run] = queue.Queue(WAITING)
        self.lock = threading.Lock()
        self.last: np.ndarray | None = None
        threading.Thread(target=self.work, daemon=True).start()

    def start(self, ask: Ask) -> Run:
        """Raises UsageError where too many runs wait, or something is asked that is not there."""
        if ask.weights and ask.weights not in self.models:
            raise UsageError(f"the lab has no {ask.weights!r}; it has {', '.join(self.models)}")
        if ask.back and ask.back not in self.films():
            raise UsageError(f"there is no film {ask.back[:80]!r}")
        if not ask.weights or self.models[ask.weights] is self.sd:
            for change in ask.changes:
                self.places.check(change)
        with self.lock:
            name = self.new_name()
            run = Run(name, ask)
            try:
                self.waiting.put_nowait(run)
            except queue.Full:
                raise UsageError("too many runs wait; stop one first") from None
            self.runs[name] = run
            while len(self.runs) > KEPT + WAITING:
                self.runs.popitem(last=False)
        return run

    def new_name(self) -> str:
        stem, number = time.strftime("%Y%m%d-%H%M%S"), 0
        while (name := f"{stem}-{number:03}") in self.runs or (self.out / name).exists():
            number += 1
        return name

    # --- films ---------------------------------------------------------------------------------

    def films(self) -> dict[str, Path]:
        """Name → folder, the newest first: what a page may name, and nothing else."""
        there = self.out.glob(f"*/{FACTS}")
        folders = {path.parent.name: path.parent for path in there}
        return {
            name: folders[name] for name in sorted(folders, reverse=True) if NAME.fullmatch(name)
        }

    def open_all(self, names: Iterable[str]) -> dict[str, Film]:
        known = self.films()
        return {name: Film.open(known[name]) for name in names if name in known}

    def page_of(self, name: str) -> bytes | None:
        """The film as a page; None where there is no such film, or it has no step."""
        folder = self.films().get(name)
        if folder is None:
            return None
        if not (folder / PAGE).is_file():
            film = Film.open(folder)
            if not len(film):
                return None
            self.write_page(film)
        return (folder / PAGE).read_bytes()

    def write_page(self, film: Film) -> None:
        judged = is_phantom(self.sd) and film.image is not None
        masks = masks_in(film.image) if judged else {}
        film.to_html(film.folder / PAGE, masks, MEGABYTES)

    # --- the work ------------------------------------------------------------------------------

    def warm(self) -> None:
        """A run of one step that nobody asked for, so that all is compiled when somebody does."""
        if self.sd.size <= SIDE:  # of a large model it would take long
            with tempfile.TemporaryDirectory() as folder:
                quiet = {"progress": lambda rows: rows, "steps": 1}
                film = Film.shoot(self.sd, "", probes=page.probes(), out=folder, **quiet)
                preview(self.sd, film[0]["x0"])

    def work(self) -> None:
        with suppress(UsageError):  # a full disk is told to whoever asks for a run
            self.warm()
        while True:
            run = self.waiting.get()
            try:
                self.film(run)
            except Stopped:
                run.tell("stopped", film=run.name)
            except UsageError as error:
                run.tell("failed", said=str(error))
            except Exception as error:  # the next run shall have its turn
                run.tell("failed", said=f"{type(error).__name__}: {error}")

    def film(self, run: Run) -> None:
        ask, started = run.ask, time.perf_counter()
        if run.stopping:
            raise Stopped
        sd = self.model(ask.weights)
        places = self.places if sd is self.sd else Places(sd)
        films = self.open_all([ask.back, *(change.film for change in ask.changes)])
        edits = edits_of(sd, ask, places, films)
        python = python_of(ask, loaded_as(sd), places, films)
        run.tell("begun", notes=not_read(sd, ask.prompt), python=python)
        film = Film.shoot(
            sd,
            ask.prompt,
            negative=ask.negative,
            steps=ask.steps,
            guidance=ask.guidance,
            eta=ask.eta,
            seed=ask.seed,
            probes=page.probes(),
            edits=edits,
            latent=noise_of(sd, films[ask.back], ask.steps) if ask.back else None,
            out=self.out / run.name,
            progress=self.telling(sd, run, started),
        )
        self.write_page(film)
        run.tell(
            "done",
            film=run.name,
            seconds=round(time.perf_counter() - started, 2),
            picture=whole(film.image),
            found=self.found(film.image, ask),
        )
        self.last = film.image

    def model(self, name: str) -> "StableDiffusion":
        """Loaded when it is first asked for."""
        if not name:
            return self.sd
        if self.models[name] is None:
            self.models[name] = script.load_model(name)
        return self.models[name]

    def telling(
        self, sd: "StableDiffusion", run: Run, started: float
    ) -> Callable[[Sequence[int]], Iterator[int]]:
        """A bar for the run: after every step what it came to, read from the disk."""

        def progress(steps: Sequence[int]) -> Iterator[int]:
            for step in steps:
                if run.stopping:
                    raise Stopped
                yield step
                frame = Frame(frame_path(self.out / run.name, step))
                spent = time.perf_counter() - started
                run.tell(
                    "step",
                    index=step,
                    of=len(steps),
                    t=frame.t,
                    seconds=round(spent, 2),
                    picture=whole(preview(sd, frame["x0"])),
                )

        return progress

    def found(self, image: np.ndarray, ask: Ask) -> dict[str, Any]:
        """What the judge says of a phantom's picture, and how far it is from the last one."""
        judged = marks(image[None], ask.prompt) if is_phantom(self.sd) else None
        told: Mapping[str, Any] = judged._asdict() if judged else {}
        found: dict[str, Any] = {n: bool(mark[0]) for n, mark in told.items() if mark is not None}
        if self.last is not None and self.last.shape == image.shape:
            found["from the last"] = round(
                float(measure.distance(image[None], self.last[None])[0]), 1
            )
        return found


def preview(sd: "StableDiffusion", x0: np.ndarray) -> np.ndarray:
    """x̂0 as a picture: decoded where that is quick, else by the linear map of SD 1.x."""
    image = sd.decode_latent(x0) if sd.size <= SIDE else measure.linear_rgb(x0)
    return to_uint8(np.clip(image, -1, 1))[0]


def whole(image: np.ndarray) -> str:
    """A picture at its own size, as the address of itself."""
    return data_uri(image, max(image.shape))
