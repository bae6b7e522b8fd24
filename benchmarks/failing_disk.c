/* A disk that fails under the files of one folder: it is full from some call on, or the process dies at some call.
   Preloaded before the C library. What is called is noted, if asked for, so that a loss of power can be played. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static char copies[PATH_MAX]; /* the folder of the log and of what was flushed; empty for none */
static long full_from;        /* the number of the first call that fails, from 1; 0 for none */
static long killed_at;        /* the number of the call at which the process dies, from 1; 0 for none */
static long calls;
static long flushed;
static int notes = -1;

/* Begin to count the calls on files of a folder, and let them fail from one on, or the process die at one. */
void counterpart_fail(const char *name, long first_that_fails, long deadly, const char *folder_of_copies)
{
    char log[PATH_MAX + 8];
    snprintf(folder, sizeof folder, "%s/", name);
    snprintf(copies, sizeof copies, "%s", folder_of_copies);
    full_from = first_that_fails;
    killed_at = deadly;
    calls = flushed = 0;
    if (copies[0]) {
        snprintf(log, sizeof log, "%s/log", copies);
        notes = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    }
}

long counterpart_calls(void)
{
    return calls;
}

static int is_inside(const char *path)
{
    return folder[0] && !strncmp(path, folder, strlen(folder));
}

/* The path of an open file. */
static const char *path_of(int descriptor, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = folder[0] ? readlink(link, path, PATH_MAX - 1) : 0;
    path[length > 0 ? length : 0] = 0;
    return path;
}

/* The whole path of a name in an open folder, or in the current one. */
static const char *path_at(int descriptor, const char *name, char *path)
{
    char around[PATH_MAX] = "";
    if (name[0] == '/')
        snprintf(path, PATH_MAX, "%s", name);
    else if (descriptor == AT_FDCWD)
        snprintf(path, PATH_MAX, "%.*s/%s", PATH_MAX / 2, getcwd(around, sizeof around) ? around : "", name);
    else
        snprintf(path, PATH_MAX, "%.*s/%s", PATH_MAX / 2, path_of(descriptor, around), name);
    return path;
}

/* Count a call on a path; true where it fails. */
static int fails(const char *path, int needs_space)
{
    if (!is_inside(path) || (!needs_space && notes < 0))
        return 0;
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (number == killed_at)
        kill(getpid(), SIGKILL);
    if (!full_from || number < full_from || !needs_space)
        return 0;
    errno = ENOSPC;
    return 1;
}

static void note(const char *what, const char *path, const char *further)
{
    if (notes >= 0 && is_inside(path))
        dprintf(notes, "%s\t%s\t%s\n", what, path, further);
}

/* Note that a file or folder is on the disk as it is now, and keep a copy of a file. */
static int keep(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    char name[PATH_MAX + 32], number[32], piece[1 << 16];
    if (notes < 0 || !(is_inside(path) || S_ISDIR(about->st_mode)))
        return 0;
    snprintf(number, sizeof number, "%ld", ++flushed);
    if (S_ISREG(about->st_mode)) {
        snprintf(name, sizeof name, "%s/%s", copies, number);
        int from = open(path, O_RDONLY), to = open(name, O_WRONLY | O_CREAT, 0600);
        for (ssize_t size; (size = read(from, piece, sizeof piece)) > 0;)
            if (write(to, piece, size) != size)
                kill(getpid(), SIGABRT);
        close(from);
        close(to);
    }
    dprintf(notes, "flush\t%s\t%s\n", path, number);
    return 0;
}

static int after_flush(int result, int descriptor)
{
    char path[PATH_MAX];
    struct stat about;
    if (result == 0 && notes >= 0 && fstat(descriptor, &about) == 0) {
        size_t length = strlen(path_of(descriptor, path));
        if (is_inside(path) || !strncmp(path, folder, length + 1) || strlen(folder) == length + 1)
            keep(path, &about, 0, NULL);
    }
    return result;
}

#define ORIGINAL(result, name, parameters)                                                         \
    static result(*original) parameters;                                                           \
    if (!original)                                                                                 \
        original = (result(*) parameters)dlsym(RTLD_NEXT, #name);

#define ON_OPEN_FILE(result, name, parameters, arguments)                                          \
    result name parameters                                                                         \
    {                                                                                              \
        char path[PATH_MAX];                                                                       \
        ORIGINAL(result, name, parameters)                                                         \
        return fails(path_of(descriptor, path), 1) ? -1 : original arguments;                      \
    }

ON_OPEN_FILE(ssize_t, write, (int descriptor, const void *data, size_t size), (descriptor, data, size))
ON_OPEN_FILE(ssize_t, writev, (int descriptor, const struct iovec *parts, int count), (descriptor, parts, count))
ON_OPEN_FILE(ssize_t, pwrite, (int descriptor, const void *data, size_t size, off_t place),
             (descriptor, data, size, place))
ON_OPEN_FILE(ssize_t, pwrite64, (int descriptor, const void *data, size_t size, off64_t place),
             (descriptor, data, size, place))
ON_OPEN_FILE(int, ftruncate, (int descriptor, off_t size), (descriptor, size))
ON_OPEN_FILE(int, ftruncate64, (int descriptor, off64_t size), (descriptor, size))

#define ON_FLUSH(name)                                                                             \
    int name(int descriptor)                                                                       \
    {                                                                                              \
        char path[PATH_MAX];                                                                       \
        ORIGINAL(int, name, (int))                                                                 \
        return fails(path_of(descriptor, path), 1) ? -1 : after_flush(original(descriptor), descriptor); \
    }

ON_FLUSH(fsync)
ON_FLUSH(fdatasync)

void sync(void)
{
    ORIGINAL(void, sync, (void))
    fails(folder, 0);
    original();
    if (notes >= 0)
        nftw(folder, keep, 16, FTW_PHYS);
}

#define ON_OPENING(name, folder_parameter, at)                                                     \
    int name(folder_parameter const char *file, int flags, ...)                                    \
    {                                                                                              \
        char path[PATH_MAX];                                                                       \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0;                          \
        va_end(more);                                                                              \
        static int (*original)(int, const char *, int, ...);                                       \
        if (!original)                                                                             \
            original = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat64");         \
        int is_new = folder[0] && (flags & O_CREAT) && access(path_at(at, file, path), F_OK);      \
        if (is_new && fails(path, 1))                                                              \
            return -1;                                                                             \
        int descriptor = original(at, file, flags | O_LARGEFILE, mode);                            \
        if (is_new && descriptor >= 0)                                                             \
            note("make", path, "");                                                                \
        return descriptor;                                                                         \
    }
#define NOTHING
#define FOLDER int at,

ON_OPENING(open, NOTHING, AT_FDCWD)
ON_OPENING(open64, NOTHING, AT_FDCWD)
ON_OPENING(openat, FOLDER, at)
ON_OPENING(openat64, FOLDER, at)

int mkdir(const char *name, mode_t mode)
{
    char path[PATH_MAX];
    ORIGINAL(int, mkdir, (const char *, mode_t))
    if (fails(path_at(AT_FDCWD, name, path), 1))
        return -1;
    int result = original(name, mode);
    if (!result)
        note("make", path, "folder");
    return result;
}

int rename(const char *old, const char *new)
{
    char from[PATH_MAX], to[PATH_MAX];
    ORIGINAL(int, rename, (const char *, const char *))
    path_at(AT_FDCWD, old, from);
    if (fails(path_at(AT_FDCWD, new, to), 1))
        return -1;
    int result = original(old, new);
    if (!result)
        note("rename", from, to);
    return result;
}

static int removed(int result, const char *path)
{
    if (!result)
        note("remove", path, "");
    return result;
}

int unlink(const char *name)
{
    char path[PATH_MAX];
    ORIGINAL(int, unlink, (const char *))
    fails(path_at(AT_FDCWD, name, path), 0);
    return removed(original(name), path);
}

int rmdir(const char *name)
{
    char path[PATH_MAX];
    ORIGINAL(int, rmdir, (const char *))
    fails(path_at(AT_FDCWD, name, path), 0);
    return removed(original(name), path);
}

int unlinkat(int descriptor, const char *name, int flags)
{
    char path[PATH_MAX];
    ORIGINAL(int, unlinkat, (int, const char *, int))
    fails(path_at(descriptor, name, path), 0);
    return removed(original(descriptor, name, flags), path);
}
