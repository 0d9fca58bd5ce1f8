"""One instance as a process: gunicorn, its worker and the application they serve, seen by systemd."""
