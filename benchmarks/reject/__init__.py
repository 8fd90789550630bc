"""What the reject option catches, and what it costs."""
