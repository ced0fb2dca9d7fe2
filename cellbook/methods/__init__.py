"""One module a paper, read beside it; and the baselines that every learned method must beat."""
