/* Counts the calls by which one process changes files below a folder, and makes one of them go wrong.
 *
 * Loaded with LD_PRELOAD and armed by `dyntok_fault_arm`, or from the environment when the program starts
 * (DYNTOK_FAULT="ACTION NUMBER", DYNTOK_FAULT_FOLDER, DYNTOK_FAULT_LOG). Only the process that was armed counts: its
 * children have another id, and programs that it starts do not load this library.
 *
 * `dyntok_clock_jump` makes the wall clock of the process jump forth and back while it runs.
 *
 * Each counted call is a line of the log: number, name, path below the folder. The call that is struck has a `!` more.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum action { COUNT, KILL, AFTER, TORN, SHORT, FAIL, FAIL_ON };

static pid_t armed;
static char folder[PATH_MAX];
static size_t folder_length;
static int log_handle = -1;
static enum action what;
static int error_number;
static long strike_at;
static atomic_long calls;

static long raw_write(int fd, const void *data, size_t count) { return syscall(SYS_write, fd, data, count); }

static void die(void) {
    syscall(SYS_kill, (pid_t)syscall(SYS_getpid), SIGKILL);
    for (;;) pause();
}

/* `action`: count, kill, after, torn, short, eio, enospc, eio-on, enospc-on (the last two: from then on). */
int dyntok_fault_arm(const char *where, const char *action, long number, const char *log_file) {
    static const struct { const char *name; enum action action; int error; } known[] = {
        {"count", COUNT, 0}, {"kill", KILL, 0}, {"after", AFTER, 0}, {"torn", TORN, 0}, {"short", SHORT, 0},
        {"eio", FAIL, EIO}, {"enospc", FAIL, ENOSPC}, {"eio-on", FAIL_ON, EIO}, {"enospc-on", FAIL_ON, ENOSPC},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(action, known[i].name)) continue;
        what = known[i].action;
        error_number = known[i].error;
        strike_at = number;
        atomic_store(&calls, 0);
        snprintf(folder, sizeof folder, "%s", where);
        folder_length = strlen(folder);
        log_handle = (int)syscall(SYS_openat, AT_FDCWD, log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (log_handle < 0) return -1;
        armed = (pid_t)syscall(SYS_getpid);
        return 0;
    }
    return -1;
}

__attribute__((constructor)) static void arm_from_environment(void) {
    const char *fault = getenv("DYNTOK_FAULT"), *where = getenv("DYNTOK_FAULT_FOLDER"), *log = getenv("DYNTOK_FAULT_LOG");
    char action[16];
    long number = 0;
    if (fault && where && log && sscanf(fault, "%15s %ld", action, &number) == 2)
        dyntok_fault_arm(where, action, number, log);
    unsetenv("LD_PRELOAD");
    unsetenv("DYNTOK_FAULT");
}

/* The path below the folder, or NULL if the file is elsewhere. */
static const char *below(const char *path) {
    if (strncmp(path, folder, folder_length)) return NULL;
    if (path[folder_length] == 0) return ".";
    return path[folder_length] == '/' ? path + folder_length + 1 : NULL;
}

static const char *of_handle(int fd, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0) return NULL;
    buffer[length] = 0;
    return below(buffer);
}

static const char *of_path(int base, const char *path, char *buffer) {
    if (path[0] == '/') return below(path);
    char start[PATH_MAX];
    if (base == AT_FDCWD) {
        if (!getcwd(start, sizeof start)) return NULL;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", base);
        ssize_t length = readlink(link, start, sizeof start - 1);
        if (length < 0) return NULL;
        start[length] = 0;
    }
    if (snprintf(buffer, PATH_MAX, "%s/%s", start, path) >= PATH_MAX) return NULL;
    return below(buffer);
}

/* Counts one call. The action if it is the one to be struck, else COUNT. */
static enum action strike(const char *name, const char *path, const char *to) {
    long number = atomic_fetch_add(&calls, 1) + 1;
    int struck = what != COUNT && (number == strike_at || (what == FAIL_ON && number > strike_at));
    /* A full disk lets files go. */
    if (error_number == ENOSPC && (!strcmp(name, "unlink") || !strcmp(name, "rmdir"))) struck = 0;
    char line[2 * PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%ld\t%s\t%s\t%s\t%s\n", number, name, path, to, struck ? "!" : "");
    raw_write(log_handle, line, (size_t)length);
    if (!struck) return COUNT;
    if (what == KILL) die();
    return what;
}

static int active(void) { return armed && (pid_t)syscall(SYS_getpid) == armed; }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A call that has no halves: before it, after it, or refused. */
#define WHOLE(path_expression, label, to, call) \
    do { \
        char buffer[PATH_MAX]; \
        const char *path = active() ? (path_expression) : NULL; \
        enum action action = path ? strike(label, path, to) : COUNT; \
        if (action == FAIL || action == FAIL_ON) { errno = error_number; return -1; } \
        if (action == TORN) die(); \
        __typeof__(call) result = call; \
        if (action == AFTER) die(); \
        return result; \
    } while (0)

/* A write: also half of it and then death, and half of it with success, as the kernel may do at any time. */
#define HALVED(label, size, half, call) \
    do { \
        char buffer[PATH_MAX]; \
        const char *path = active() ? of_handle(fd, buffer) : NULL; \
        enum action action = path ? strike(label, path, "") : COUNT; \
        if (action == FAIL || action == FAIL_ON) { errno = error_number; return -1; } \
        if (action == TORN) { if ((size) > 1) (void)!(half); die(); } \
        if (action == SHORT && (size) > 1) return half; \
        ssize_t result = call; \
        if (action == AFTER) die(); \
        return result; \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    HALVED("write", size, real(fd, data, size / 2), real(fd, data, size));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    HALVED("pwrite", size, real(fd, data, size / 2, at), real(fd, data, size, at));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    HALVED("pwrite", size, real(fd, data, size / 2, at), real(fd, data, size, at));
}

static ssize_t half_of(int fd, const struct iovec *parts, int count) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += parts[i].iov_len;
    size_t first = parts[0].iov_len < total / 2 ? parts[0].iov_len : total / 2;
    return raw_write(fd, parts[0].iov_base, first);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    HALVED("writev", count > 0 ? 2 : 0, half_of(fd, parts, count), real(fd, parts, count));
}

int fsync(int fd) { REAL(fsync); WHOLE(of_handle(fd, buffer), "fsync", "", real(fd)); }
int fdatasync(int fd) { REAL(fdatasync); WHOLE(of_handle(fd, buffer), "fsync", "", real(fd)); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); WHOLE(of_handle(fd, buffer), "truncate", "", real(fd, size)); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); WHOLE(of_handle(fd, buffer), "truncate", "", real(fd, size)); }
int unlink(const char *name) { REAL(unlink); WHOLE(of_path(AT_FDCWD, name, buffer), "unlink", "", real(name)); }
int rmdir(const char *name) { REAL(rmdir); WHOLE(of_path(AT_FDCWD, name, buffer), "rmdir", "", real(name)); }

int unlinkat(int base, const char *name, int flags) {
    REAL(unlinkat);
    WHOLE(of_path(base, name, buffer), flags & AT_REMOVEDIR ? "rmdir" : "unlink", "", real(base, name, flags));
}

int mkdir(const char *name, mode_t mode) {
    REAL(mkdir);
    WHOLE(of_path(AT_FDCWD, name, buffer), "mkdir", "", real(name, mode));
}

int mkdirat(int base, const char *name, mode_t mode) {
    REAL(mkdirat);
    WHOLE(of_path(base, name, buffer), "mkdir", "", real(base, name, mode));
}

static const char *target(int base, const char *name, char *buffer) {
    const char *path = of_path(base, name, buffer);
    return path ? path : "";
}

int rename(const char *from, const char *to) {
    REAL(rename);
    char other[PATH_MAX];
    WHOLE(of_path(AT_FDCWD, from, buffer), "rename", target(AT_FDCWD, to, other), real(from, to));
}

int renameat(int from_base, const char *from, int to_base, const char *to) {
    REAL(renameat);
    char other[PATH_MAX];
    WHOLE(of_path(from_base, from, buffer), "rename", target(to_base, to, other), real(from_base, from, to_base, to));
}

int renameat2(int from_base, const char *from, int to_base, const char *to, unsigned flags) {
    REAL(renameat2);
    char other[PATH_MAX];
    WHOLE(of_path(from_base, from, buffer), "rename", target(to_base, to, other),
          real(from_base, from, to_base, to, flags));
}

int link(const char *from, const char *to) {
    REAL(link);
    char other[PATH_MAX];
    WHOLE(of_path(AT_FDCWD, from, buffer), "link", target(AT_FDCWD, to, other), real(from, to));
}

int linkat(int from_base, const char *from, int to_base, const char *to, int flags) {
    REAL(linkat);
    char other[PATH_MAX];
    WHOLE(of_path(from_base, from, buffer), "link", target(to_base, to, other),
          real(from_base, from, to_base, to, flags));
}

static int makes(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }

#define MODE(flags, mode) \
    mode_t mode = 0; \
    if (makes(flags)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *name, int flags, ...) {
    REAL(open);
    MODE(flags, mode)
    WHOLE(makes(flags) ? of_path(AT_FDCWD, name, buffer) : NULL, "create", "", real(name, flags, mode));
}

int open64(const char *name, int flags, ...) {
    REAL(open64);
    MODE(flags, mode)
    WHOLE(makes(flags) ? of_path(AT_FDCWD, name, buffer) : NULL, "create", "", real(name, flags, mode));
}

int openat(int base, const char *name, int flags, ...) {
    REAL(openat);
    MODE(flags, mode)
    WHOLE(makes(flags) ? of_path(base, name, buffer) : NULL, "create", "", real(base, name, flags, mode));
}

int openat64(int base, const char *name, int flags, ...) {
    REAL(openat64);
    MODE(flags, mode)
    WHOLE(makes(flags) ? of_path(base, name, buffer) : NULL, "create", "", real(base, name, flags, mode));
}

static atomic_long clock_calls;
static long clock_jump;

/* From now on, the wall clock is so many seconds late, right or early, by turns of eight readings. */
void dyntok_clock_jump(long seconds) { clock_jump = seconds; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int result = real(clock, now);
    if (clock_jump && clock == CLOCK_REALTIME)
        now->tv_sec += clock_jump * (atomic_fetch_add(&clock_calls, 1) / 8 % 3 - 1);
    return result;
}
