"""Images whose pixels all belong to segments: things, which are counted, and stuff."""
