"""Pictures of two sides, A and B, for translation from one to the other: in pairs, or each side by itself."""
