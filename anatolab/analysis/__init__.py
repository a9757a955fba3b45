"""Looking inside trained models: what they attend to."""
