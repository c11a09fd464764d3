"""``python -m mlomae``."""

import sys

from mlomae.cli import main

sys.exit(main())
