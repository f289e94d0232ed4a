"""Budgets: reading, preview, exact derivation within them, and the re-timing loop."""
