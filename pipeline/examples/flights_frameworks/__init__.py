"""The flights example's model in the other frameworks: what `gatehouse init NAME --framework X` puts in its place."""
