"""Names of rewards that others than GRPO must know: a reader of rows, the health checks."""

# Those that compare answered with true boxes: a row may name the one that judges it
BOX_REWARDS = ("iou", "iou_hard", "giou", "center", "map", "odlength")
