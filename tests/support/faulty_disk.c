/* A disk that fails: preloaded into the gateway, it stands before the C library's calls that change files.
 *
 * While the file FAULTY_DISK_ERROR is there, whatever creates, opens for writing, cuts or syncs a file or folder below FAULTY_DISK
 * fails with the errno that the file holds. Other calls, and other files, are as ever. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_on_disk(const char *path)
{
    const char *disk = getenv("FAULTY_DISK");
    return disk && strncmp(path, disk, strlen(disk)) == 0;
}

static int is_open_on_disk(int fd)
{
    char link[64], path[4096] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) > 0 && is_on_disk(path);
}

/* Sets errno and says so. */
static int fails(void)
{
    char text[8] = "";
    int fd = syscall(SYS_openat, AT_FDCWD, getenv("FAULTY_DISK_ERROR"), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    int error = read(fd, text, sizeof text - 1) > 0 ? atoi(text) : 0;
    close(fd);
    errno = error;
    return error != 0;
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    int changes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    return changes && is_on_disk(path) && fails() ? -1 : syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int ftruncate64(int fd, off64_t bytes)
{
    return is_open_on_disk(fd) && fails() ? -1 : syscall(SYS_ftruncate, fd, bytes);
}

int fdatasync(int fd)
{
    return is_open_on_disk(fd) && fails() ? -1 : syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    return is_open_on_disk(fd) && fails() ? -1 : syscall(SYS_fsync, fd);
}
