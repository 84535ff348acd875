"""`vlm-r1`: the command line."""
