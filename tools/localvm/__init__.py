"""Local Debian machines for Fortress: systemd-nspawn on an overlay over one cached image.

They are for development and tests. A guest's root is the host's root in another namespace: convenient, and no
boundary against somebody who means harm.
"""
