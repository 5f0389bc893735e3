"""Gatehouse: from data to production, with nothing let through unmeasured, unapproved or changed.

No library that it uses calls home. onnxruntime reports to its maker from 1.32 on, MLflow since 3.2, both unless told
otherwise before they are imported.
"""

import os

QUIET = {"ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
os.environ |= QUIET
