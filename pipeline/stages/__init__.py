"""One file and one public way in for each stage of the graph."""
