"""The defences by training: one file each, found by name."""
