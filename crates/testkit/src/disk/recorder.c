/* Writes down what a program does to the files below DISK_RECORD_ROOT, in the order in which it happens: one lock is held
 * over each call and its record. Syncs are recorded and left out, since nothing has to outlast the machine here. With
 * DISK_RECORD_ENDS_AFTER=n the process is killed right behind its nth record.
 *
 * A record is a head and so many bytes after it; record.rs reads them. Files and directories go by their inode numbers. */
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
#include <sys/uio.h>
#include <unistd.h>

struct __attribute__((packed)) head {
    uint8_t kind;
    uint64_t file;
    uint64_t place;
    uint32_t length;
};

#define DESCRIPTORS 65536
static unsigned char is_ours[DESCRIPTORS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int record = -1;
static uint64_t records, ends_after;

#define REAL(result, name, ...)                                     \
    static result (*real)(__VA_ARGS__);                             \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

static void die(const char *what) {
    fprintf(stderr, "the recorder of the disk: %s: %s\n", what, strerror(errno));
    abort();
}

static void note(uint8_t kind, uint64_t file, uint64_t place, const void *bytes, size_t length) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    struct head head = {kind, file, place, (uint32_t)length};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)bytes, length}};
    if (real(record, parts, 2) != (ssize_t)(sizeof head + length)) die("write");
    if (++records == ends_after) kill(getpid(), SIGKILL);
}

__attribute__((constructor)) static void begin(void) {
    const char *dir = getenv("DISK_RECORD_ROOT"), *path = getenv("DISK_RECORD"), *end = getenv("DISK_RECORD_ENDS_AFTER");
    struct stat found;
    if (!dir || !path) return;
    root_length = strlen(dir);
    if (root_length >= sizeof root || stat(dir, &found)) die("root");
    memcpy(root, dir, root_length + 1);
    ends_after = end ? strtoull(end, NULL, 10) : 0;
    REAL(int, open64, const char *, int, ...);
    record = real(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (record < 0) die("open");
    note('O', found.st_ino, 0, NULL, 0);
}

/* The root itself counts: programs sync it for the names in it. */
static int is_below_root(const char *path) {
    char next = record >= 0 && !strncmp(path, root, root_length) ? path[root_length] : 'x';
    return next == '/' || next == 0;
}

/* The directory that holds a path, and in `name` the last part of it. */
static uint64_t parent(const char *path, const char **name) {
    char dir[PATH_MAX];
    struct stat found;
    const char *last = strrchr(path, '/');
    size_t length = last - path;
    *name = last + 1;
    if (length >= sizeof dir) die("path");
    memcpy(dir, path, length);
    dir[length] = 0;
    if (stat(dir, &found)) die("parent");
    return found.st_ino;
}

static uint64_t inode(const char *path) {
    struct stat found;
    if (lstat(path, &found)) die("inode");
    return found.st_ino;
}

/* Whether a descriptor is of a file or directory below the root. */
static int is_recorded(int fd, struct stat *found) {
    return fd >= 0 && fd < DESCRIPTORS && is_ours[fd] && !fstat(fd, found) &&
           (S_ISREG(found->st_mode) || S_ISDIR(found->st_mode));
}

static int open_recorded(const char *path, int flags, mode_t mode) {
    REAL(int, open64, const char *, int, ...);
    struct stat found;
    const char *name;
    if (!is_below_root(path)) return real(path, flags, mode);
    pthread_mutex_lock(&lock);
    int was_there = !lstat(path, &found);
    int fd = real(path, flags, mode);
    int error = errno;
    if (fd >= DESCRIPTORS) die("descriptor");
    if (fd >= 0) {
        is_ours[fd] = 1;
        if (!was_there) {
            uint64_t dir = parent(path, &name);
            note('F', inode(path), dir, name, strlen(name));
        } else if ((flags & O_TRUNC) && found.st_size > 0) {
            note('T', found.st_ino, 0, NULL, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define OPEN(name)                                      \
    int name(const char *path, int flags, ...) {        \
        va_list rest;                                   \
        va_start(rest, flags);                          \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                   \
        return open_recorded(path, flags, mode);        \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    REAL(int, close, int);
    if (fd >= 0 && fd < DESCRIPTORS) is_ours[fd] = 0;
    return real(fd);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, write, int, const void *, size_t);
    struct stat found;
    if (!is_recorded(fd, &found)) return real(fd, bytes, length);
    pthread_mutex_lock(&lock);
    int flags = fcntl(fd, F_GETFL);
    off64_t offset = lseek64(fd, 0, flags & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t written = real(fd, bytes, length);
    int error = errno;
    if (written > 0) note('W', found.st_ino, offset, bytes, written);
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

static ssize_t pwrite_recorded(int fd, const void *bytes, size_t length, off64_t offset) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    struct stat found;
    if (!is_recorded(fd, &found)) return real(fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t written = real(fd, bytes, length, offset);
    int error = errno;
    if (written > 0) note('W', found.st_ino, offset, bytes, written);
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite_recorded(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return pwrite_recorded(fd, bytes, length, offset); }

/* Copies within the kernel would show no bytes: whoever asks for one is told that there is none, and reads and writes. */
ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t length, unsigned flags) {
    REAL(ssize_t, copy_file_range, int, off64_t *, int, off64_t *, size_t, unsigned);
    struct stat found;
    if (!is_recorded(to, &found)) return real(from, from_offset, to, to_offset, length, flags);
    errno = ENOSYS;
    return -1;
}

ssize_t sendfile64(int to, int from, off64_t *offset, size_t length) {
    REAL(ssize_t, sendfile64, int, int, off64_t *, size_t);
    struct stat found;
    if (!is_recorded(to, &found)) return real(to, from, offset, length);
    errno = ENOSYS;
    return -1;
}

static int truncate_recorded(int fd, off64_t length) {
    REAL(int, ftruncate64, int, off64_t);
    struct stat found;
    if (!is_recorded(fd, &found)) return real(fd, length);
    pthread_mutex_lock(&lock);
    int done = real(fd, length);
    int error = errno;
    if (!done) note('T', found.st_ino, length, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
int ftruncate(int fd, off_t length) { return truncate_recorded(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncate_recorded(fd, length); }

static int is_synced_by_record(int fd) {
    struct stat found;
    if (!is_recorded(fd, &found)) return 0;
    pthread_mutex_lock(&lock);
    note('S', found.st_ino, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 1;
}

int fsync(int fd) {
    REAL(int, fsync, int);
    return is_synced_by_record(fd) ? 0 : real(fd);
}

int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    return is_synced_by_record(fd) ? 0 : real(fd);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    const char *name;
    if (!is_below_root(path)) return real(path, mode);
    pthread_mutex_lock(&lock);
    int done = real(path, mode);
    int error = errno;
    if (!done) {
        uint64_t dir = parent(path, &name);
        note('D', inode(path), dir, name, strlen(name));
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static int remove_recorded(const char *path, int (*real)(const char *)) {
    const char *name;
    if (!is_below_root(path)) return real(path);
    pthread_mutex_lock(&lock);
    int done = real(path);
    int error = errno;
    if (!done) {
        uint64_t dir = parent(path, &name);
        note('U', 0, dir, name, strlen(name));
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    return remove_recorded(path, real);
}

int rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    return remove_recorded(path, real);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    REAL(int, linkat, int, const char *, int, const char *, int);
    const char *name;
    if (!is_below_root(to)) return real(from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&lock);
    int done = real(from_dir, from, to_dir, to, flags);
    int error = errno;
    if (!done) {
        uint64_t dir = parent(to, &name);
        note('L', inode(to), dir, name, strlen(name));
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

/* The names follow the number of the directory that the file goes to, the old one first, with a NUL between them. */
int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    char bytes[sizeof(uint64_t) + 2 * NAME_MAX + 2];
    const char *old, *new;
    if (!is_below_root(from) || !is_below_root(to)) return real(from, to);
    pthread_mutex_lock(&lock);
    int done = real(from, to);
    int error = errno;
    if (!done) {
        uint64_t from_dir = parent(from, &old), to_dir = parent(to, &new);
        memcpy(bytes, &to_dir, sizeof to_dir);
        int names = snprintf(bytes + sizeof to_dir, sizeof bytes - sizeof to_dir, "%s%c%s", old, 0, new);
        note('R', inode(to), from_dir, bytes, sizeof to_dir + names);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
