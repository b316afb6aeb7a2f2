"""Errors that a person can make, and one-line messages for errors of other libraries."""


class DataError(ValueError):
    """A person's input is invalid; the message is one line that names the file, task and field."""

    def __str__(self) -> str:
        return shortened(" ".join(super().__str__().splitlines()), 1500)


class LineError(DataError):
    """A line of a file that is read line by line has no valid task; a long run skips it."""


class OversizedError(DataError):
    """A grid has more than 30 rows or columns.

    Args:
        message: names the grid.
        n_tests: test inputs of its task, where that is known.
    """

    def __init__(self, message: str, n_tests: int = 0) -> None:
        super().__init__(message)
        self.n_tests = n_tests


class OversizedLineError(OversizedError, LineError):
    """A line of a file that is read line by line has a task with a grid of more than 30 rows or columns."""


def first_line(error: BaseException) -> str:
    """Return the first sentence of an error's message that is not empty, as one line.

    A line that ends in a colon only announces the reason, so it is joined with the one behind it.

    Returns:
        The line, or the name of the error's class where there is no message.
    """
    sentence = ""
    for line in str(error).splitlines():
        sentence = f"{sentence} {line.strip()}".strip()
        if sentence and not sentence.endswith(":"):
            break
    return sentence.rstrip(": ") or type(error).__name__


def shortened(text: str, most: int = 100) -> str:
    """Return a text as a message shows it: the middle left out where it is longer than ``most`` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}[… {len(text):,} characters …]{text[-(most // 4) :]}"


class Stopped(SystemExit):
    """Raised to end the command.

    Args:
        status: its exit status.
        message: printed at the end; ``None`` prints nothing.
    """

    def __init__(self, status: int, message: str | None = None) -> None:
        super().__init__(status)
        self.message = message
