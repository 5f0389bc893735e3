"""Pages for people: evidence and monitoring."""
