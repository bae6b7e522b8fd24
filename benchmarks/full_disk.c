/* A disk that is full from some write on, for the files of one folder: preloaded before the C library. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static long full_from; /* the number of the first call that fails, from 1; 0 for none */
static long calls;

/* Begin to count the calls on files of a folder, and let them fail from one on. */
void counterpart_fill_disk(const char *name, long first)
{
    snprintf(folder, sizeof folder, "%s/", name);
    full_from = first;
    calls = 0;
}

long counterpart_calls(void)
{
    return calls;
}

static int is_full(int descriptor)
{
    char link[64], path[PATH_MAX];
    if (!folder[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, folder, strlen(folder)))
        return 0;
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (!full_from || number < full_from)
        return 0;
    errno = ENOSPC;
    return 1;
}

#define FAIL_OR_CALL(result, name, parameters, arguments)                                          \
    result name parameters                                                                         \
    {                                                                                              \
        static result(*original) parameters;                                                       \
        if (!original)                                                                             \
            original = (result(*) parameters)dlsym(RTLD_NEXT, #name);                              \
        return is_full(descriptor) ? -1 : original arguments;                                      \
    }

FAIL_OR_CALL(ssize_t, write, (int descriptor, const void *data, size_t size), (descriptor, data, size))
FAIL_OR_CALL(ssize_t, writev, (int descriptor, const struct iovec *parts, int count), (descriptor, parts, count))
FAIL_OR_CALL(ssize_t, pwrite, (int descriptor, const void *data, size_t size, off_t place),
             (descriptor, data, size, place))
FAIL_OR_CALL(ssize_t, pwrite64, (int descriptor, const void *data, size_t size, off64_t place),
             (descriptor, data, size, place))
FAIL_OR_CALL(int, fsync, (int descriptor), (descriptor))
FAIL_OR_CALL(int, fdatasync, (int descriptor), (descriptor))
FAIL_OR_CALL(int, ftruncate, (int descriptor, off_t size), (descriptor, size))
FAIL_OR_CALL(int, ftruncate64, (int descriptor, off64_t size), (descriptor, size))
