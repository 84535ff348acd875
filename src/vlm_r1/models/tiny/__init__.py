"""The tiny Qwen2.5-VL: configuration, tokenizer, curriculum, pretraining."""
