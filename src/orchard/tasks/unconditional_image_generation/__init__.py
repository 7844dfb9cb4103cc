"""Images out of noise, like those of a set."""
