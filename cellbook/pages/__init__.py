"""The studies behind the executed pages of the book, one package each; none of them calls another."""
