"""A run without the work: every call of a network is counted, and none is made.

Whatever an experiment does goes on as it would, on normal numbers of the right shapes in the place
of what the networks give out. So its findings mean nothing, and it may fail over them; it is
stopped where it begins its figure. The calls until then are counted; `stopped` says what kept it
from getting there.
"""

import copy
import io
import math
import os
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import keras
import numpy as np
from keras import tree

from stable_diffusion_tf.compiled import Call, calls_go_through
from stable_diffusion_tf.machine import memory
from stable_diffusion_tf.tiles import decode_bytes
from stable_diffusion_tf.unet import unet_bytes
from xray.plain_figure import NoFigure, no_figures

if TYPE_CHECKING:
    from stable_diffusion_tf import StableDiffusion
    from xray.options import Options

POOL = 2**20  # normal numbers that are handed out over and over
ROOT = Path(__file__).parents[2]
MEASURING = tuple(f"{ROOT / room}{os.sep}" for room in ("xray/measure", "xray/methods", "phantom"))
SNOOZE = 0.01  # seconds until a rehearsal that could not be broken off is tried again


class OutOfPatience(Exception):
    """The rehearsal takes longer than it is worth."""


class NoRoom(Exception):
    """A call holds more than the memory that is free."""

    def __init__(self, needed: int, free: int):
        super().__init__(f"{needed / 1e9:.1f} GB at the least and {free / 1e9:.1f} GB are free")
        self.needed, self.free = needed, free


class Key(NamedTuple):
    """Calls that take the same time: of one network, given as many things of the same shapes."""

    network: str
    given: int
    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Numbers in what goes in first, which the work is about proportional to."""
        return math.prod(self.shapes[0])


def key_of(call: Call) -> Key:
    shapes = tuple(map(np.shape, tree.flatten(call.arrays)))
    return Key(call.network, len(call.arrays), shapes)


# --- shapes ------------------------------------------------------------------------------------


class Shapes:
    """What functions give out, as `keras.KerasTensor`s. A function is traced once: in a batch of
    another size all has so many more rows."""

    def __init__(self):
        self.known: WeakKeyDictionary[Callable, dict[tuple, tuple[int, Any]]] = WeakKeyDictionary()

    def of(self, call: Call) -> Any:
        key = key_of(call)
        known, one = self.known.setdefault(call.compute, {}), without_rows(key)
        if one not in known:
            made = call.outline(*tree.map_structure(spec, call.arrays))
            known[one] = rows_of(key), tree.map_structure(spec, made)
        rows, specs = known[one]
        return tree.map_structure(lambda x: with_rows(x, rows, rows_of(key)), specs)

    def note(self, call: Call, made: Any) -> None:
        """What the first call of a function gave out."""
        if call.compute not in self.known:
            key = key_of(call)
            noted = rows_of(key), tree.map_structure(spec, made)
            self.known[call.compute] = {without_rows(key): noted}


def rows_of(key: Key) -> int:
    return key.shapes[0][0]


def without_rows(key: Key) -> tuple:
    return tuple(shape[1:] for shape in key.shapes)


def with_rows(x: keras.KerasTensor, before: int, now: int) -> keras.KerasTensor:
    if not x.shape or before == now:
        return x
    return keras.KerasTensor((x.shape[0] * now // before, *x.shape[1:]), x.dtype)


def spec(x: Any) -> keras.KerasTensor:
    x = x if hasattr(x, "dtype") else np.asarray(x)
    return keras.KerasTensor(tuple(x.shape), keras.backend.standardize_dtype(x.dtype))


# --- memory ------------------------------------------------------------------------------------


def least_bytes(sd: "StableDiffusion", call: Call, made: Any = ()) -> int:
    """What a call holds at the least beside the weights: by the arithmetic of its network, and all
    that it gives out."""
    rows, *sides, channels = key_of(call).shapes[0]
    places, held = rows * math.prod(sides), 0
    if call.network == "unet":
        held = places * unet_bytes(sd.unet_config)
    elif call.network == "vae" and channels == sd.vae_config.latent_channels:
        held = places * decode_bytes(sd.vae_config, 1, 1)
    elif call.network == "vae":
        held = places * decode_bytes(sd.vae_config, 1, 1) // sd.vae_config.factor**2
    return held + sum(4 * math.prod(one.shape) for one in tree.flatten(made))


def check_room(needed: int) -> None:
    """Raises NoRoom where less memory is free."""
    free = memory().available
    if free is not None and needed > free:
        raise NoRoom(needed, free)


# --- the rehearsal -----------------------------------------------------------------------------


class Rehearsal:
    """Takes the place of the networks: counts their calls, and keeps the first of each kind."""

    def __init__(self, sd: "StableDiffusion", shapes: Shapes, patience: float = math.inf):
        self.sd, self.shapes, self.until = sd, shapes, time.monotonic() + patience
        self.counts: Counter[Key] = Counter()
        self.calls: dict[Key, Call] = {}
        self.needed: dict[Key, int] = {}  # bytes that such a call holds at the least
        self.stopped: BaseException | None = None  # by what, if not at the end or at a figure
        self.between = 0.0  # seconds that all took but the calls
        self.pool = np.random.default_rng(0).standard_normal(POOL, dtype=np.float32)
        self.drawn = 0

    def __call__(self, call: Call) -> Any:
        started = time.monotonic()
        if started > self.until:
            raise OutOfPatience
        key = key_of(call)
        specs = self.shapes.of(call)
        self.counts[key] += 1
        if key not in self.calls:
            self.calls[key] = call
            self.needed[key] = least_bytes(self.sd, call, specs)
            check_room(self.needed[key])
        made = tree.map_structure(self.draw, specs)
        self.between -= time.monotonic() - started
        return made

    def draw(self, like: keras.KerasTensor) -> np.ndarray:
        """Normal numbers, others at each call; zeros of whatever is not a float."""
        if not keras.backend.is_float_dtype(like.dtype):
            return np.zeros(like.shape, like.dtype)
        self.drawn = (self.drawn + 104729) % (POOL // 2)  # a prime: no two calls begin alike
        size = math.prod(like.shape)
        numbers = self.pool[self.drawn : self.drawn + size]
        return np.resize(numbers, like.shape)  # a copy


def rehearse(
    main: Callable[..., Any],
    sd: "StableDiffusion",
    asked: "Options",
    shapes: Shapes,
    patience: float = math.inf,
) -> Rehearsal:
    """The calls of an experiment, `main`, with these options; `patience`: seconds, after which it
    is broken off. Parts of the model that it loads stay loaded; nothing else is changed, saved or
    said."""
    other, started = understudy(sd), time.monotonic()
    counted = Rehearsal(other, shapes, patience)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        for around in (silence(), no_figures(), calls_go_through(counted), alarm(patience)):
            stack.enter_context(around)
        try:
            main(other, replace(asked, folder=folder))
        except NoFigure:
            pass
        except (Exception, SystemExit) as error:  # over numbers that mean nothing, most often
            counted.stopped = error.with_traceback(None)
    lend(other, sd)
    counted.between += time.monotonic() - started
    return counted


def understudy(sd: "StableDiffusion") -> "StableDiffusion":
    """Another model over the same networks and functions. Words that it learns are its own, and it
    gives nothing back when it is done: the run that follows needs it."""
    other = copy.copy(sd)
    other.networks, other.functions = {}, dict(sd.functions)
    other.learned, other.vocabulary = dict(sd.learned), dict(sd.vocabulary)
    other.family = WeakSet([other])
    load, shared = other.network, sd.network
    other.network = lambda part: (load if is_own(part, other, sd) else shared)(part)
    other.finish = lambda *parts: None
    other.loaded_anew = lambda precision: other  # whose calls are of the same kinds
    return other


def is_own(part: str, other: "StableDiffusion", sd: "StableDiffusion") -> bool:
    """Whether the understudy has the part for itself: a text encoder with words of its own."""
    return part == "text_encoder" and other.learned.keys() != sd.learned.keys()


def lend(other: "StableDiffusion", sd: "StableDiffusion") -> None:
    """What the understudy has compiled of the networks of both. It keeps nothing itself: what the
    run releases is to be free."""
    sd.functions |= {key: x for key, x in other.functions.items() if not is_own(key[0], other, sd)}
    other.networks.clear()
    other.functions.clear()


@contextmanager
def silence() -> Iterator[None]:
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(None):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Break off what takes longer, between two calls as well, where the system has an alarm; only
    ever in code that measures, which nothing is left half done by."""
    here = threading.current_thread() is threading.main_thread()
    if math.isinf(seconds) or not here or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(_: int, frame: Any) -> None:
        if frame.f_code.co_filename.startswith(MEASURING):
            raise OutOfPatience
        signal.setitimer(signal.ITIMER_REAL, SNOOZE)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, SNOOZE))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
