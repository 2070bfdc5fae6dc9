"""Text: vocabularies, corpora, and what makes text from a model."""
