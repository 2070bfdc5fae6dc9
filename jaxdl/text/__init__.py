"""Text: vocabularies, corpora, batching by length, decoding and generation."""
