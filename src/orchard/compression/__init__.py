"""Making a trained model smaller: one folder per method, and what they share. It names no task."""
