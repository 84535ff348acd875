"""Public archives: a catalog, resumable downloads, DVC tracking, unpacking."""
