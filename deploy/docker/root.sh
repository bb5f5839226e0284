#!/bin/sh
# Makes the root of the image: root.sh PROGRAM FOLDER. The program, the libraries that it needs and their loader, the
# certificates of public authorities (AWS), and a user. No shell, no package manager: nothing else is in the image.
set -eu
program=$1 root=$2
mkdir -p "$root/etc/ssl/certs" "$root/usr/bin" "$root/data" "$root/tmp"
install -m 755 "$program" "$root/usr/bin/forebay"
strip "$root/usr/bin/forebay"

# "libz.so.1 => /lib/…/libz.so.1 (0x…)", and the loader without an arrow; a library that is missing has no path.
ldd "$program" | grep -q 'not found' && { ldd "$program" >&2; exit 1; }
ldd "$program" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | while read -r library; do
    install -D -m 755 "$(readlink -f "$library")" "$root$library"
done

cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'forebay:x:65532:65532:forebay:/data:/' >"$root/etc/passwd"
echo 'forebay:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
chown 65532:65532 "$root/data" && chmod 700 "$root/data"
chmod 1777 "$root/tmp"
