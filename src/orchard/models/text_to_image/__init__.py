"""Pictures out of words: a sequence of text ids goes on as a sequence of an image tokenizer's codes."""
