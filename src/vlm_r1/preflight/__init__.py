"""Will this run work, and will it fit: checks before anything long starts."""
