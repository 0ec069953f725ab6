"""Programs for the command line; `commands` has an entry point for each."""
