"""What is put around a loaded model."""
