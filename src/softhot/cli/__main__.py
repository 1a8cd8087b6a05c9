"""`python -m softhot.cli` is the `softhot` command."""

import sys

from softhot.cli import main

sys.exit(main())
