"""Models, training, profiles and metrics for the book of five papers on representations of single cells."""
