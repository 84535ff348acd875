"""SFT and GRPO: the only room that knows TRL."""
