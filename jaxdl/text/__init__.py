"""Text in, token ids out: vocabularies, and data sets of reviews, characters and sentence pairs."""
