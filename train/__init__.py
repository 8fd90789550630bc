"""Training: a data set in, a run's folder out (checkpoint, configuration, figures, report)."""
