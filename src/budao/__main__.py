"""`python -m budao`: the command line, where the script is not on the path."""

import sys

from budao.apps import main

if __name__ == "__main__":
    sys.exit(main())
