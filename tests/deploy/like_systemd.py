"""Starts a service as its unit says, on a machine where systemd does not run: like_systemd.py ROOT UNIT SOCKETS.

ROOT is where the package was installed; the program runs at its own paths in it, on this machine's libraries. What of the
unit is carried out: the user, the environment file, credentials, passed sockets (SOCKETS are descriptors), the descriptors'
limit, the file system read-only but for the unit's own folders, no new privileges, the system calls. To be run as root in a mount
namespace of its own; NOTIFY_SOCKET, if set, is a name of the abstract namespace and is passed on."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pyseccomp
from units import Unit

FIRST_PASSED = 3


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def bind(source, target, *options):
    target.mkdir(parents=True, exist_ok=True)
    mount("--bind", source, target)
    if options:
        mount("-o", ",".join(("remount", "bind", *options)), target)


def system_calls(names, seen=()):
    """What systemd means by these: sets begin with @."""
    for name in names:
        if not name.startswith("@"):
            yield name
            continue
        text = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True).stdout
        members = [line.strip() for line in text.splitlines()[1:] if line.strip() and "#" not in line]
        yield from system_calls(members)


def allowed(unit):
    calls = set()
    for line in unit.all("SystemCallFilter"):
        names = set(system_calls(line.removeprefix("~").split()))
        calls = calls - names if line.startswith("~") else calls | names
    return calls | {"execve"}  # by which the program itself is started


def filtered(unit):
    refused = pyseccomp.ERRNO(getattr(__import__("errno"), unit.one("SystemCallErrorNumber")))
    rules = pyseccomp.SyscallFilter(refused)
    for call in allowed(unit):
        try:
            rules.add_rule(pyseccomp.ALLOW, call)
        except (OSError, RuntimeError):
            pass  # a call of another architecture
    return rules


def prepare(root, unit, user):
    """The file system as the service sees it; gives back where its credentials are."""
    bind(root, root)
    for folder in ("lib", "lib64", "usr/lib", "etc/ssl", "dev", "proc"):
        if Path("/", folder).is_dir():
            bind(f"/{folder}", root / folder, "ro")
    credentials = root / "run/credentials/forebay.service"
    credentials.mkdir(parents=True, exist_ok=True)
    for name in unit.all("LoadCredential"):
        if (stored := root / "etc/credstore" / name).exists():
            (credentials / name).write_bytes(stored.read_bytes())
            os.chown(credentials / name, user, user)
            (credentials / name).chmod(0o400)
    own = [root / "var/lib" / unit.one("StateDirectory"), root / "var/log" / unit.one("LogsDirectory"), root / "tmp"]
    for folder in own:
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, user, user)
        bind(folder, folder)
    mount("-o", "remount,bind,ro", root)


def main(root, file, *sockets):
    root, unit = Path(root), Unit(file)
    user, group = (field(root, unit.one("User"), database) for database in ("passwd", "group"))
    prepare(root, unit, user)
    environment = unit.environment(root) | {"PATH": "/usr/bin"}
    environment |= {name: os.environ[name] for name in ("NOTIFY_SOCKET",) if name in os.environ}
    environment["WATCHDOG_USEC"] = str(1_000_000 * int(unit.one("WatchdogSec").removesuffix("s")))
    if sockets:
        environment |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_PID": str(os.getpid())}
    for place, socket in enumerate(sockets):
        os.dup2(int(socket), FIRST_PASSED + place)
    files = int(unit.one("LimitNOFILE"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    rules = filtered(unit)
    os.chroot(root)
    os.chdir(unit.one("WorkingDirectory"))
    os.umask(int(unit.one("UMask"), 8))
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
    rules.load()  # sets no_new_privs first
    command = unit.one("ExecStart").split()
    os.execve(command[0], command, environment)


def field(root, name, database):
    """The number of a user or a group."""
    lines = (root / "etc" / database).read_text().splitlines()
    return next(int(line.split(":")[2]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
