"""What names a checkpoint: the digest of its weights, config and tokenizer. Loads no torch."""

import hashlib
from pathlib import Path

# What a checkpoint's behaviour hangs on; optimizer state and logs are not part of its identity.
DIGESTED = ("*.safetensors", "config.json", "adapter_config.json", "tokenizer.json")


def checkpoint_digest(path: str | Path) -> str:
    """First 32 hex digits of the SHA-256 over a checkpoint's weights, config and tokenizer.

    A hub name has no local files to digest and stands for itself.
    """
    folder = Path(path)
    if not folder.is_dir():
        return str(path)
    total = hashlib.sha256()
    for file in sorted({f for pattern in DIGESTED for f in folder.glob(pattern)}):
        total.update(file.name.encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:32]
