"""The published algorithms, one package a paper, read beside it."""
