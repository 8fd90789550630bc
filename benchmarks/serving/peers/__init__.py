"""What other servers that pip installs do with the same model, beside Scanline's."""
