/*
 * Writes down every call by which a process changes files below a folder, in the order in which they
 * were made. Loaded before all libraries (LD_PRELOAD):
 *
 *   POWER_FOLDER   the folder, as an absolute path
 *   POWER_LOG      the file of the records
 *   POWER_KILL     where given, the process is killed (SIGKILL) as it begins so many syncs
 *
 * A record is a header and the two texts of which it tells the lengths; power_disk.py reads them.
 * A call and its record are made under one lock, so that their order is that of the calls. Nothing
 * is really brought to the disk: the machine that loses its power is the one in power_disk.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_FILES 65536

struct header {
    char what;
    char padding[3];
    uint32_t first;
    uint32_t second;
    uint32_t more_padding;
    uint64_t file;
    int64_t place;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_length;
static int log_file = -1;
static long syncs, last_sync = -1;
/* The inode behind each descriptor that leads below the folder, or 0. */
static uint64_t files[MOST_FILES];

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("POWER_LOG");
    folder = getenv("POWER_FOLDER");
    if (path == NULL || folder == NULL)
        return;
    folder_length = strlen(folder);
    if (getenv("POWER_KILL") != NULL)
        last_sync = atol(getenv("POWER_KILL"));
    log_file = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_file < 0)
        abort();
}

static void record(char what, uint64_t file, int64_t place, const void *first, size_t first_length,
                   const void *second, size_t second_length) {
    struct header header = {what, {0}, first_length, second_length, 0, file, place};
    struct iovec parts[3] = {{&header, sizeof header},
                             {(void *)first, first_length},
                             {(void *)second, second_length}};
    ssize_t all = sizeof header + first_length + second_length;
    int error = errno;
    if (syscall(SYS_writev, log_file, parts, 3) != all)
        abort();
    errno = error;
}

/* Make an absolute path of one that may be relative; whether it leads below the folder. */
static int below(int directory, const char *path, char *whole) {
    if (log_file < 0)
        return 0;
    if (path[0] == '/') {
        snprintf(whole, PATH_MAX, "%s", path);
    } else {
        char link[64], base[PATH_MAX];
        if (directory == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        int error = errno;
        ssize_t length = readlink(link, base, sizeof base - 1);
        errno = error;
        if (length < 0)
            return 0;
        base[length] = 0;
        if (snprintf(whole, PATH_MAX, "%s/%s", base, path) >= PATH_MAX)
            return 0;
    }
    return strncmp(whole, folder, folder_length) == 0 &&
           (whole[folder_length] == '/' || whole[folder_length] == 0);
}

/* The inode behind a descriptor that is watched, or 0. */
static uint64_t watched(int descriptor) {
    struct stat about;
    if (log_file < 0 || descriptor < 0 || descriptor >= MOST_FILES || files[descriptor] == 0)
        return 0;
    /* A descriptor may have been closed by the C library itself and be another's by now. */
    if (fstat(descriptor, &about) != 0 || about.st_ino != files[descriptor]) {
        files[descriptor] = 0;
        return 0;
    }
    return about.st_ino;
}

static int opened(int directory, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    struct stat about;
    if (!below(directory, path, whole))
        return syscall(SYS_openat, directory, path, flags, mode);
    pthread_mutex_lock(&lock);
    int error = errno;
    int there = stat(whole, &about) == 0;
    errno = error;
    int descriptor = syscall(SYS_openat, directory, path, flags, mode);
    if (descriptor >= 0 && descriptor < MOST_FILES && fstat(descriptor, &about) == 0) {
        files[descriptor] = about.st_ino;
        if (!there)
            record('c', about.st_ino, 0, whole, strlen(whole), NULL, 0);
        else if (flags & O_TRUNC)
            record('t', about.st_ino, 0, NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return descriptor;
}

#define MODE(flags, mode)                                                                          \
    mode_t mode = 0;                                                                               \
    if ((flags) & O_CREAT) {                                                                       \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode = va_arg(more, mode_t);                                                               \
        va_end(more);                                                                              \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int directory, const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(directory, path, flags | O_LARGEFILE, mode);
}

ssize_t write(int descriptor, const void *data, size_t length) {
    if (log_file < 0 || descriptor < 0 || descriptor >= MOST_FILES || files[descriptor] == 0)
        return syscall(SYS_write, descriptor, data, length);
    pthread_mutex_lock(&lock);
    uint64_t file = watched(descriptor);
    ssize_t written = syscall(SYS_write, descriptor, data, length);
    if (file != 0 && written > 0)
        /* Behind it, which is right for those that append too. */
        record('w', file, lseek(descriptor, 0, SEEK_CUR) - written, data, written, NULL, 0);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t place) {
    if (log_file < 0 || descriptor < 0 || descriptor >= MOST_FILES || files[descriptor] == 0)
        return syscall(SYS_pwrite64, descriptor, data, length, place);
    pthread_mutex_lock(&lock);
    uint64_t file = watched(descriptor);
    ssize_t written = syscall(SYS_pwrite64, descriptor, data, length, place);
    if (file != 0 && written > 0)
        record('w', file, place, data, written, NULL, 0);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t place) {
    return pwrite64(descriptor, data, length, place);
}

int ftruncate64(int descriptor, off64_t length) {
    pthread_mutex_lock(&lock);
    uint64_t file = watched(descriptor);
    int answer = syscall(SYS_ftruncate, descriptor, length);
    if (file != 0 && answer == 0)
        record('t', file, length, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int ftruncate(int descriptor, off_t length) {
    return ftruncate64(descriptor, length);
}

int fsync(int descriptor) {
    struct stat about;
    char whole[PATH_MAX], link[64];
    pthread_mutex_lock(&lock);
    uint64_t file = watched(descriptor);
    if (file == 0) {
        pthread_mutex_unlock(&lock);
        return syscall(SYS_fsync, descriptor);
    }
    if (++syncs == last_sync)
        kill(getpid(), SIGKILL);
    if (fstat(descriptor, &about) == 0 && S_ISDIR(about.st_mode)) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(link, whole, sizeof whole);
        record('S', file, 0, whole, length < 0 ? 0 : length, NULL, 0);
    } else {
        record('s', file, 0, NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

int fdatasync(int descriptor) {
    return fsync(descriptor);
}

static int removed(int directory, const char *path, int flags) {
    char whole[PATH_MAX];
    if (!below(directory, path, whole))
        return syscall(SYS_unlinkat, directory, path, flags);
    pthread_mutex_lock(&lock);
    int answer = syscall(SYS_unlinkat, directory, path, flags);
    if (answer == 0)
        record('u', 0, 0, whole, strlen(whole), NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int unlink(const char *path) {
    return removed(AT_FDCWD, path, 0);
}

int unlinkat(int directory, const char *path, int flags) {
    return removed(directory, path, flags);
}

int remove(const char *path) {
    int answer = unlink(path);
    return answer != 0 && errno == EISDIR ? removed(AT_FDCWD, path, AT_REMOVEDIR) : answer;
}

int rmdir(const char *path) {
    return removed(AT_FDCWD, path, AT_REMOVEDIR);
}

static int renamed(int from, const char *path, int to, const char *name) {
    char old[PATH_MAX], new[PATH_MAX];
    int there = below(from, path, old);
    if (!below(to, name, new) || !there)
        return syscall(SYS_renameat2, from, path, to, name, 0);
    pthread_mutex_lock(&lock);
    int answer = syscall(SYS_renameat2, from, path, to, name, 0);
    if (answer == 0)
        record('r', 0, 0, old, strlen(old), new, strlen(new));
    pthread_mutex_unlock(&lock);
    return answer;
}

int rename(const char *path, const char *name) {
    return renamed(AT_FDCWD, path, AT_FDCWD, name);
}

int renameat(int from, const char *path, int to, const char *name) {
    return renamed(from, path, to, name);
}

static int made(int directory, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    if (!below(directory, path, whole))
        return syscall(SYS_mkdirat, directory, path, mode);
    pthread_mutex_lock(&lock);
    int answer = syscall(SYS_mkdirat, directory, path, mode);
    if (answer == 0)
        record('m', 0, 0, whole, strlen(whole), NULL, 0);
    pthread_mutex_unlock(&lock);
    return answer;
}

int mkdir(const char *path, mode_t mode) {
    return made(AT_FDCWD, path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode) {
    return made(directory, path, mode);
}
