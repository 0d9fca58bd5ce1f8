"""Rolls deployments of the Iris API out over the instances of one host, and back; standard library only.

A deployment is an application (its release, settings and unit) together with a model. Every instance has a link to the
deployment it runs, so that whatever starts it again, a crash or a reboot, starts that one and no other:

    /opt/iris-api/
        releases/ID/        an application in its virtual environment, put there by Ansible
        models/ID/          a model bundle, likewise
        environments/ID/    what a model needs beside a release, in a virtual environment that goes on in the release's
        deployments/ID/     app -> its release or environment, model -> its bundle, iris-api.env, iris-api@.service,
                            deployment.json
        instances/N         -> the deployment of iris-api@N
        current             -> the deployment that went through last
        history.jsonl       what happened here, a line each
        hold.json           who keeps deployments off, and why

What is run stands in `commands`, as data that tests assert without a host. When it is run stands in `rollout`, as a
list of steps with the undo of each, which `transaction` takes in turn. `machine` runs it, and tests put another in its
place. `jobs` has systemd carry a deployment or a rollback out, so that it ends in order whoever is cut off. `archive`
is what a backup has of all this. What is replaced or removed in one step is by `files`.
"""


class Problem(Exception):
    """A request that can't be carried out; nothing was changed, and the message says what to do."""


class Failure(Exception):
    """A deployment that does not do what it must; the message says what was seen."""
