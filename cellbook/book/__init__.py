"""The book: its notebooks, what their pages measured, the pieces generated from it, and the built site."""
