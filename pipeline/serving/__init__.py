"""The model server: verified before it loads, swapped without dropping a request."""
