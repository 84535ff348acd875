"""The report as files: HTML, Markdown, figures."""
