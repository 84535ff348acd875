"""One way to say no: got X, need Y, because Z, do W."""


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
