"""Errors that tell a user four things: what was got, what is needed, why, and what to do."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class InputError(ValueError):
    """An input that cannot be used: a file, an option, a parameter.

    Args:
        got: what was found, with file and row where there is one.
        need: what would have been right.
        because: why it matters.
        do: the next step for the reader.
    """

    exit_code = 1  # of a command that ends with it

    def __init__(self, got: str, need: str, because: str, do: str) -> None:
        super().__init__(f"got {got}\nneed {need}\nbecause {because}\ndo: {do}")
        self.got, self.need, self.because, self.do = got, need, because, do


def error_text(error: InputError) -> str:
    """An error as a program prints it: what was found, and need, because and do indented below.

    Example: error: got steps [20]
               need: two or more, ...
    """
    lines = [f"error: got {error.got}"]
    lines += [f"  {name}: {getattr(error, name)}" for name in ("need", "because", "do")]
    return "\n".join(lines)


class ConfigError(InputError):
    """params.yaml or a command's options."""


class DataError(InputError):
    """Records, images, archives."""


class FetchError(InputError):
    """An archive that cannot be fetched."""


class TemporaryFetchError(FetchError):
    """An archive that a later try may fetch."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class ModelError(InputError):
    """A checkpoint folder or what is in it."""


class HealthError(InputError):
    """A training that an alarm has stopped (health.on_alarm: stop)."""


class ResultError(InputError):
    """A result file or prediction log."""


class ContractError(InputError):
    """Two results that may not be compared."""


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


def describe_fault(error: ValueError, whole: str = "file", rows: str = "") -> str:
    """The first fault of a pydantic error in one line: where, what, the value found; how many more.

    Any other ValueError is its own message, on one line.

    Args:
        whole: where a fault is that lies in no key; "": a fault without a place.
        rows: key of a list whose entries are called row 1, row 2, ...

    Example: row 4: correct: Input should be 0 or 1 (found 2) (and 4 more faults)
    """
    details = getattr(error, "errors", None)  # pydantic's; not imported, most programs need none
    if details is None:
        return one_line(error)
    first, *others = details(include_url=False)
    more = f" (and {len(others)} more faults)" if others else ""
    return f"{describe_detail(first, whole, rows)}{more}"


def describe_detail(fault: "ErrorDetails", whole: str = "file", rows: str = "") -> str:
    """One fault of a pydantic error, as `describe_fault` tells it."""
    keys, row = list(fault["loc"]), ""
    if rows and keys[:1] == [rows] and len(keys) > 1:
        row, keys, whole = f"row {int(keys[1]) + 1}", keys[2:], ""
    places = [row, ".".join(str(key) for key in keys) or whole]
    found = "" if fault["type"] == "missing" else f" (found {_brief(fault['input'])})"
    return ": ".join([*filter(None, places), fault["msg"]]) + found


def _brief(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
