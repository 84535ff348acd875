"""Checkpoint identity: digest of weights, configs, tokenizer and processor. Loads no torch."""

import hashlib
from pathlib import Path

from vlm_r1.files import sha256_of_file
from vlm_r1.models.hub import blob_sha256

# What determines a checkpoint's completions; optimizer state and logs do not.
DIGESTED = (
    *("*.safetensors", "config.json", "adapter_config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    *("processor_config.json", "preprocessor_config.json"),
)


def checkpoint_digest(path: str | Path) -> str:
    """First 32 hex digits of the SHA-256 over the names and contents of the `DIGESTED` files.

    Equal for a model of the hub and for a copy of its files in another folder. A path that is no
    folder is returned as it is.
    """
    folder = Path(path)
    if not folder.is_dir():
        return str(path)
    total = hashlib.sha256()
    for file in sorted({f for pattern in DIGESTED for f in folder.glob(pattern)}):
        total.update(file.name.encode())
        total.update(bytes.fromhex(blob_sha256(file) or sha256_of_file(file)))
    return total.hexdigest()[:32]
