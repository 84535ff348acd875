"""The whole prompt of one user turn with one picture, in a model's own chat format."""

from transformers import ProcessorMixin


def chat_text(processor: ProcessorMixin, user_text: str) -> str:
    """The prompt up to the assistant's first token; the picture stands before the text."""
    content = [{"type": "image"}, {"type": "text", "text": user_text}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
