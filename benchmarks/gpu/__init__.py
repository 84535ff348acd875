"""What only a GPU can show, as named checks, each with a figure and a verdict."""
