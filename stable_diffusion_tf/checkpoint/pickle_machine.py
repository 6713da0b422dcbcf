"""A pickle is a program for a machine with a stack. This is the machine, for torch's files alone.

It knows the instructions that torch writes, and calls nothing but what `find` hands out. Python's
own reader would do for honest files; of others it can be made to hash for ever (a key of tuples of
tuples, 60 deep) or to keep a memo of gigabytes (an index of 2**28). Here every instruction takes
its share of time and memory and no more. Instructions: pickletools of Python's library.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from ..errors import UsageError

MOST_ARGUMENTS = 16  # of a call; torch's take up to 7
KEYS = (str, type, type(None))  # what a key may be besides a small int; type: what `find` gave
CODES = {op.code.encode("latin-1"): op for op in pickletools.opcodes}


class Sealed:
    """What a pickle may give a state to: it is let go."""

    def set_state(self, state: Any) -> None:
        pass


@dataclass
class Machine:
    """find: 'module.name' → what the pickle gets for it; keep: what torch notes of numbers that lie
    outside of the pickle → what stands for them."""

    find: Callable[[str], Any]
    keep: Callable[[Any], Any]
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_since(self, start: int) -> list[Any]:
        if start < 0:
            raise ValueError("it takes more than it has put down")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def pop_marked(self) -> list[Any]:
        return self.pop_since(self.marks.pop())


def run(pickled: BytesIO, machine: Machine, place: str) -> Any:
    """The object that the pickle makes; behind it the file goes on. Raises UsageError for an
    instruction that torch does not write, and whatever a broken pickle runs into."""
    while True:
        code = pickled.read(1)
        if not code:
            raise ValueError("it ends too early")
        instruction = CODES.get(code)
        if instruction is None:
            raise ValueError(f"it has no instruction {code!r}")
        if instruction.name == "STOP":
            return machine.pop()
        if instruction.name not in STEPS:
            raise UsageError(
                f"{place} has the pickle instruction {instruction.name}, which no weights need: "
                f"nothing was run; fetch the model as .safetensors"
            )
        STEPS[instruction.name](machine, argument_of(instruction, pickled))


def argument_of(instruction: pickletools.OpcodeInfo, pickled: BytesIO) -> Any:
    try:
        return instruction.arg.reader(pickled) if instruction.arg else None
    except UnicodeDecodeError:
        raise ValueError("a name in it is no text") from None


# --- instructions: machine, argument -------------------------------------------------------------


def pushing(make: Callable[[], Any]) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.push(make())


def packing(count: int) -> Callable[[Machine, Any], None]:
    return lambda m, _: m.push(tuple(m.pop_since(len(m.stack) - count)))


def nothing(machine: Machine, _: Any) -> None:
    pass


def mark(machine: Machine, _: Any) -> None:
    machine.marks.append(len(machine.stack))


def pack_marked(machine: Machine, _: Any) -> None:
    machine.push(tuple(machine.pop_marked()))


def remember(machine: Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def remember_next(machine: Machine, _: Any) -> None:
    remember(machine, len(machine.memo))


def recall(machine: Machine, index: int) -> None:
    machine.push(machine.memo[index])


def append(machine: Machine, _: Any) -> None:
    extend(machine, machine.pop_since(len(machine.stack) - 1))


def append_marked(machine: Machine, _: Any) -> None:
    extend(machine, machine.pop_marked())


def extend(machine: Machine, values: list[Any]) -> None:
    if type(machine.stack[-1]) is not list:
        raise TypeError("it appends to what is no list")
    machine.stack[-1].extend(values)


def set_item(machine: Machine, _: Any) -> None:
    fill(machine.stack[-3], [machine.pop_since(len(machine.stack) - 2)])


def set_marked(machine: Machine, _: Any) -> None:
    flat = machine.pop_marked()
    fill(machine.stack[-1], zip(flat[::2], flat[1::2], strict=True))


def fill(found: Any, pairs: Any) -> None:
    """Put pairs into a dictionary. A key that others could make dear to hash is refused."""
    if not isinstance(found, dict):
        raise TypeError("it puts a key into what is no dictionary")
    for key, value in pairs:
        if not (isinstance(key, KEYS) or (type(key) is int and abs(key) < 2**31)):
            raise TypeError("it has a key that is neither text nor a number")
        found[key] = value


def look_up(machine: Machine, names: str) -> None:
    machine.push(machine.find(names.replace(" ", ".")))


def look_up_stacked(machine: Machine, _: Any) -> None:
    module, name = machine.pop_since(len(machine.stack) - 2)
    machine.push(machine.find(f"{module}.{name}" if type(module) is type(name) is str else ""))


def call(machine: Machine, _: Any) -> None:
    function, arguments = machine.pop_since(len(machine.stack) - 2)
    if type(arguments) is not tuple or len(arguments) > MOST_ARGUMENTS:
        raise TypeError("it has a call of too many arguments")
    machine.push(function(*arguments))


def build(machine: Machine, _: Any) -> None:
    state = machine.pop()
    if not isinstance(machine.stack[-1], Sealed):
        raise TypeError("it changes what is not its own")
    machine.stack[-1].set_state(state)


def fetch(machine: Machine, _: Any) -> None:
    machine.push(machine.keep(machine.pop()))


STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": nothing,
    "FRAME": nothing,
    "MARK": mark,
    "GLOBAL": look_up,
    "STACK_GLOBAL": look_up_stacked,
    "REDUCE": call,
    "NEWOBJ": call,
    "BUILD": build,
    "BINPERSID": fetch,
    "NONE": pushing(lambda: None),
    "NEWTRUE": pushing(lambda: True),
    "NEWFALSE": pushing(lambda: False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), Machine.push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), Machine.push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES"), Machine.push),
    "EMPTY_DICT": pushing(dict),
    "SETITEM": set_item,
    "SETITEMS": set_marked,
    "EMPTY_LIST": pushing(list),
    "APPEND": append,
    "APPENDS": append_marked,
    "EMPTY_TUPLE": pushing(tuple),
    "TUPLE": pack_marked,
    "TUPLE1": packing(1),
    "TUPLE2": packing(2),
    "TUPLE3": packing(3),
    "BINGET": recall,
    "LONG_BINGET": recall,
    "BINPUT": remember,
    "LONG_BINPUT": remember,
    "MEMOIZE": remember_next,
}
