"""Images with a mask each: a class for every pixel."""
