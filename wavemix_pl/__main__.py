"""`python -m wavemix_pl` is the command `wavemix-pl`."""

import sys

from wavemix_pl.cli import main

sys.exit(main())
