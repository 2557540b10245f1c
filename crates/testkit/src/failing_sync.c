/* Fails every sync of a file whose path contains the text in the first line of the plan, and notes each in a line there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    char part[256] = "", link[64], path[4096];
    const char *plan = getenv("SYNC_FAILS_PLAN");
    FILE *file = plan ? fopen(plan, "r") : NULL;
    if (!file) return 0;
    if (!fgets(part, sizeof part, file)) part[0] = 0;
    fclose(file);
    part[strcspn(part, "\n")] = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!part[0] || length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, part)) return 0;
    file = fopen(plan, "a");
    if (file) { fprintf(file, "failed\n"); fclose(file); }
    errno = EIO;
    return 1;
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    return fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    return fails(fd) ? -1 : real(fd);
}
