"""Pictures of a run, and its report: one page, with figures and numbers as files."""
