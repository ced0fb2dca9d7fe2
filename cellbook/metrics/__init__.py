"""Is the biology in the profiles, and is the batch? One implementation each, with the papers' protocols by name."""
