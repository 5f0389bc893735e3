"""The one-machine stack: Postgres, MLflow and model servers as child processes."""
