"""What scoring files costs, beside decoding them alone and beside a plain loop."""
