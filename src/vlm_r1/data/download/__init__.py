"""Public archives: what there is, downloading, verifying, unpacking."""
