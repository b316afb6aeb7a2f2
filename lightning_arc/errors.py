"""Errors of other libraries, told in one line."""


def first_line(error: BaseException) -> str:
    """Return the first sentence of an error's message that says something, as one line.

    A line that ends in a colon only announces the reason, so it is joined with the one behind it.

    Returns:
        The line, or the name of the error's class where there is no message.
    """
    said = ""
    for line in str(error).splitlines():
        said = f"{said} {line.strip()}".strip()
        if said and not said.endswith(":"):
            break
    return said.rstrip(": ") or type(error).__name__
