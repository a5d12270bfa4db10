"""How relevance passes each operation: one file per family of rules."""
