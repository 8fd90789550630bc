"""What scoring files costs, beside decoding them alone and beside a plain loop."""

import os

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SCANLINE_")}
