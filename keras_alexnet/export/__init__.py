"""Models for programs that do not know this package."""
