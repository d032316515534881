"""The report: a page with tables and figures, and comparisons of two runs."""
