"""What pipelines and MLflow cost beyond computing."""

PARTS = ("pipeline", "tracking", "many-runs")
