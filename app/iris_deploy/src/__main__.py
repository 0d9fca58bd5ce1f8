"""iris-deploy, made one file by tools/build-release. Managed by Fortress: changes made on a host are overwritten."""

import sys

from iris_deploy.cli import main

sys.exit(main())
