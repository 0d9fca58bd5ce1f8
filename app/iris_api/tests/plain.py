"""The application by plain uvicorn, on a port that is given: what an instance is compared with."""

import sys

import uvicorn

from iris_api.server.app import create_app

if __name__ == "__main__":
    uvicorn.run(
        create_app(),
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        ws="none",
        proxy_headers=False,
        access_log=False,
    )
