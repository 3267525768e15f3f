"""Tracking: MLflow behind one adapter, and a tracker that does nothing. Run folders stay the source of truth."""
