"""What a user can put right: the message says what is wrong, where, and what to type next."""


class UsageError(ValueError):
    """Bad input. Scripts print it as one line and leave with status 2."""

    def __init__(self, message: str):
        super().__init__(on_one_line(message))


def on_one_line(text: str) -> str:
    """Text with what would steer a terminal, or break the line, spelled out: names of files and of
    what is in them may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
