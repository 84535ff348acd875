"""The report: results in; analysis, verdict and pages out."""
