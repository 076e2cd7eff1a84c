"""What every adapter does."""
