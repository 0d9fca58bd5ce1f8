"""What engine an instance takes, under the name that iris-deploy of release 1.0.0 calls it by."""

import sys

from iris_api.engines.choice import main

if __name__ == "__main__":
    sys.exit(main())
