"""Other faces of the line: files for other runners, generated from the stage graph."""
