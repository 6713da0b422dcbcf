"""What a user can put right: the message says what is wrong, where, and what to type next."""


class UsageError(ValueError):
    """Bad input. Scripts print it as one line and leave with status 2."""
