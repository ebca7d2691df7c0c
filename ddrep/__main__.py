import sys

from ddrep.cli import main

sys.exit(main())
