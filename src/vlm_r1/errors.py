"""One way to say no: got X, need Y, because Z, do W."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class InputError(ValueError):
    """Something a person gave us cannot be used; the message says what would be.

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
    """A training that was told to stop when it falls ill."""


class ResultError(InputError):
    """A result file or prediction log."""


class ContractError(InputError):
    """Two results that may not be compared."""


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return " ".join(str(error).split())


def describe_fault(error: "ValidationError", whole: str = "file") -> str:
    """The first fault of a pydantic error in one line: where, what, the value found; how many more.

    Example: results.3.correct: Input should be 0 or 1 (found 2) (and 4 more faults)

    Args:
        whole: stands for the key if the fault is in the value as a whole; "": nothing does.
    """
    faults = error.errors(include_url=False)
    first = faults[0]
    where = ".".join(str(part) for part in first["loc"]) or whole
    prefix = f"{where}: " if where else ""
    found = "" if first["type"] == "missing" else f" (found {_brief(first['input'])})"
    more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
    return f"{prefix}{first['msg']}{found}{more}"


def _brief(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
