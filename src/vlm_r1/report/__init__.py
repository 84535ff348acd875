"""Report: units in, curves, gallery, verdict and pages out."""
