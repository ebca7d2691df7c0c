"""Tables, figures and the report."""

import logging

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # before its import, which remarks on a home it cannot write in
