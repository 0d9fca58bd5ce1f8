"""iris-deploy, which tools/build-release makes one file of. Managed by Fortress: changes made on a host are overwritten."""

import sys

from iris_deploy.cli import main

sys.exit(main())
