/* A disk that is full from its n-th write on, for files below one folder (LD_PRELOAD).
 *
 * full_from(n, folder): the calls that take room (write, pwrite, ftruncate, fallocate) or bring it
 * to the disk (fsync, fdatasync) are counted; the n-th and all later ones fail with ENOSPC. Of the
 * n-th write one half is still written, as disks do. full_from(-1, "") makes room again.
 * full_calls() is how many were counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static long from = -1, calls = 0;
static char folder[4096];

void full_from(long n, const char *below) {
    calls = 0;
    from = n;
    snprintf(folder, sizeof folder, "%s", below);
}

long full_calls(void) { return calls; }

/* 0: has room; 1: the first that has none; 2: a later one. */
static int full(int fd) {
    char link[64], path[4096];
    if (!*folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    long call = __sync_fetch_and_add(&calls, 1);
    return from < 0 || call < from ? 0 : call == from ? 1 : 2;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
#define NONE do { errno = ENOSPC; return -1; } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int state = full(fd);
    if (state == 2 || (state == 1 && size < 2)) NONE;
    return real(fd, data, state ? size / 2 : size);
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t size, off_t at) { \
        REAL(ssize_t, #name, int, const void *, size_t, off_t); \
        int state = full(fd); \
        if (state == 2 || (state == 1 && size < 2)) NONE; \
        return real(fd, data, state ? size / 2 : size, at); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define TAKES(name, parameters, arguments, ...) \
    int name parameters { \
        REAL(int, #name, __VA_ARGS__); \
        if (full(fd)) NONE; \
        return real arguments; \
    }
TAKES(ftruncate, (int fd, off_t size), (fd, size), int, off_t)
TAKES(ftruncate64, (int fd, off_t size), (fd, size), int, off_t)
TAKES(fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), int, int, off_t, off_t)
TAKES(fsync, (int fd), (fd), int)
TAKES(fdatasync, (int fd), (fd), int)

int posix_fallocate(int fd, off_t at, off_t size) {
    REAL(int, "posix_fallocate", int, off_t, off_t);
    return full(fd) ? ENOSPC : real(fd, at, size);
}
