"""What names a checkpoint: a digest of its weights and of how it is asked. Loads no torch."""

import hashlib
from pathlib import Path

# What a checkpoint's behavior hangs on; optimizer state and logs are not part of its identity.
DIGESTED = (
    *("*.safetensors", "config.json", "adapter_config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    *("processor_config.json", "preprocessor_config.json"),
)


def checkpoint_digest(path: str | Path) -> str:
    """First 32 hex digits of the SHA-256 over a checkpoint's weights, configs, tokenizer, template.

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
