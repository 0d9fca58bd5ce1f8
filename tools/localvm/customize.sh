#!/bin/sh
# Turns the tree in $1, fresh from mmdebstrap, into what a cloud image is before its first boot.
set -eu
cd "$1"

# Host keys and the machine's identity are made for each machine, not once for all.
rm -f etc/ssh/ssh_host_* etc/hostname etc/resolv.conf
: > etc/machine-id
mv etc/apt/sources.list.d/0000debian.sources etc/apt/sources.list.d/debian.sources

chroot . useradd --create-home --shell /bin/bash --uid 1000 debian
chroot . install -d -m 0700 -o debian -g debian /home/debian/.ssh
echo 'debian ALL=(ALL) NOPASSWD: ALL' > etc/sudoers.d/90-debian
chmod 0440 etc/sudoers.d/90-debian
printf 'PasswordAuthentication no\nKbdInteractiveAuthentication no\n' > etc/ssh/sshd_config.d/10-keys-only.conf

# sshd starts before systemd lets ordinary users in: whoever sees the port open could still be turned away.
mkdir -p etc/systemd/system/ssh.service.d
printf '[Unit]\nAfter=systemd-user-sessions.service\n' > etc/systemd/system/ssh.service.d/logins.conf

echo 'LANG=C.UTF-8' > etc/default/locale
chroot . systemctl --quiet enable systemd-networkd.service ssh.service
# They would take apt's lock in the middle of somebody's test.
chroot . systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer
chroot . update-ca-certificates
