"""A model of the Hugging Face hub at one commit, as a folder of the local cache. Loads no torch.

Stages never download: `vlm-r1 fetch model` does, and all else reads the cache.
"""

import re
from pathlib import Path

from vlm_r1.errors import FetchError, ModelError, TemporaryFetchError
from vlm_r1.files import sha256_of_file

# Weights in other formats than safetensors, which nothing here reads
UNREAD = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*"]
SHA256 = re.compile(r"[0-9a-f]{64}")


def snapshot(name: str, revision: str) -> Path:
    """The folder in the local cache with the files of `name` at the commit `revision`.

    Raises:
        ModelError: it was not fetched, or not to the end.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name, revision=revision, ignore_patterns=UNREAD, local_files_only=True
            )
        )
    except LocalEntryNotFoundError as error:
        missing = type(error).__name__ == "IncompleteSnapshotError"
        raise ModelError(
            got=f"{name} at {revision}: {'incomplete' if missing else 'not'} in the local cache",
            need="its files on this machine, or on a disk that all nodes share (HF_HOME)",
            because="a stage downloads nothing, so that it also runs without a network",
            do="`vlm-r1 fetch model`, with the --params or --profile of the experiment",
        ) from None


def fetch(name: str, revision: str) -> Path:
    """Download what is missing of `name` at the commit `revision`; verify it; give its folder.

    Raises:
        FetchError: no such model or commit, or no right to read it.
        TemporaryFetchError: the hub cannot be reached, or has sent damaged files.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, ignore_patterns=UNREAD))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FetchError(
            got=f"{name} at {revision}: {_first_line(error)}",
            need="a model on the hub, its commit, and the right to read it",
            because="task.base_model and task.revision name it",
            do="correct them, or log in with `hf auth login`",
        ) from None
    except OSError as error:
        raise _unfinished(name, _first_line(error)) from None
    _require_intact(name, folder)
    return folder


def blob_sha256(file: Path) -> str | None:
    """The SHA-256 of a large file in the hub's cache, whose name it is; None for any other file."""
    blob = file.resolve()
    is_named = blob.parent.name == "blobs" and SHA256.fullmatch(blob.name)
    return blob.name if is_named else None


def _require_intact(name: str, folder: Path) -> None:
    """Compare each large file with its SHA-256; the hub's client compares sizes only."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        expected = blob_sha256(file)
        if expected not in (None, sha256_of_file(file)):
            file.resolve().unlink()
            file.unlink()
            raise _unfinished(name, f"{file.name} does not have its SHA-256 and was removed")


def _unfinished(name: str, fault: str) -> TemporaryFetchError:
    return TemporaryFetchError(
        got=f"{name}: {fault}",
        need="a connection to the hub (HF_ENDPOINT for a mirror)",
        because="a model that is not whole cannot be loaded",
        do="`vlm-r1 fetch model` again: it goes on where it stopped",
    )


def _first_line(error: BaseException) -> str:
    first, *_ = str(error).strip().split("\n")
    return first
