"""What serving costs, beside a plain gRPC server with the same model."""
