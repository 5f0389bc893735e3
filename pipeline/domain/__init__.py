"""The pure core: values in, values out; no server, no clock, no disk."""
