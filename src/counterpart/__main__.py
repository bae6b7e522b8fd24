"""``python -m counterpart``, and ``torchrun --nproc-per-node 2 -m counterpart train ...``."""

import sys

from .cli import main

sys.exit(main())
