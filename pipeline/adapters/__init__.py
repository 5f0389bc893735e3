"""One module for each thing outside: database, MLflow, source, disk, Jenkins."""
