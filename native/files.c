/* Many files of one folder at a time: what Python would do in a dozen calls for each, each taking the GIL anew.
 *
 *   list_names     the names in a folder
 *   stat_entries   lstat, and (given the folder's path) whether there are extended attributes
 *   read_files     the bytes of files that are still what a stat said of them
 *   write_files    new files with owner, mode and time
 *
 * POSIX only; elsewhere, and where nothing could compile this, snapvault.platform.bulk does the same in Python.
 */
#define _GNU_SOURCE /* O_NOATIME */
#include "native.h"

#ifndef _WIN32

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/xattr.h>
#endif
#ifndef O_NOATIME
#define O_NOATIME 0
#endif

#ifdef __APPLE__
#define MTIME(st) ((st)->st_mtimespec)
#define CTIME(st) ((st)->st_ctimespec)
#else
#define MTIME(st) ((st)->st_mtim)
#define CTIME(st) ((st)->st_ctim)
#endif

/* NodeKind of snapvault.format.tree, -1 for what no node can be. */
static int kind_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG: return 0;
    case S_IFDIR: return 1;
    case S_IFLNK: return 2;
    case S_IFCHR: return 3;
    case S_IFBLK: return 4;
    case S_IFIFO: return 5;
    case S_IFSOCK: return 6;
    default: return -1;
    }
}

/* Whether the nanoseconds fit: from 1677 to 2262. File systems go further. */
static int fits(struct timespec t)
{
    return t.tv_sec > INT64_MIN / 1000000000 && t.tv_sec < INT64_MAX / 1000000000;
}

static int64_t nanoseconds(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static PyObject *nanoseconds_object(struct timespec t)
{
    if (fits(t))
        return PyLong_FromLongLong(nanoseconds(t));
    PyObject *seconds = PyLong_FromLongLong(t.tv_sec), *billion = PyLong_FromLong(1000000000);
    PyObject *whole = seconds && billion ? PyNumber_Multiply(seconds, billion) : NULL;
    PyObject *rest = PyLong_FromLong(t.tv_nsec), *sum = whole && rest ? PyNumber_Add(whole, rest) : NULL;
    Py_XDECREF(seconds);
    Py_XDECREF(billion);
    Py_XDECREF(whole);
    Py_XDECREF(rest);
    return sum;
}

/* ------------------------------------------------------------------------------------------------- list_names */

typedef struct {
    char *bytes; /* names, each with its zero */
    size_t used, room;
} Names;

static int add_name(Names *names, const char *name)
{
    size_t length = strlen(name) + 1;
    if (names->used + length > names->room) {
        size_t room = 2 * (names->room + length) + 4096;
        char *bytes = realloc(names->bytes, room);
        if (bytes == NULL)
            return ENOMEM;
        names->bytes = bytes;
        names->room = room;
    }
    memcpy(names->bytes + names->used, name, length);
    names->used += length;
    return 0;
}

/* All names in a folder but "." and "..": 0 or an error number. The caller's descriptor stays open, at the beginning. */
static int read_names(int fd, Names *names)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    DIR *folder = own < 0 ? NULL : fdopendir(own);
    if (folder == NULL) {
        int error = errno;
        if (own >= 0)
            close(own);
        return error;
    }
    int error = 0;
    rewinddir(folder);
    while (!error) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (entry == NULL) {
            error = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            error = add_name(names, entry->d_name);
    }
    rewinddir(folder); /* the caller's descriptor has the same position */
    closedir(folder);
    return error;
}

PyObject *native_list_names(PyObject *self, PyObject *args)
{
    int fd, error;
    Names names = {NULL, 0, 0};
    (void)self;
    if (!PyArg_ParseTuple(args, "i:list_names", &fd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = read_names(fd, &names);
    Py_END_ALLOW_THREADS
    PyObject *list = NULL;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    } else
        list = PyList_New(0);
    for (size_t at = 0; list != NULL && at < names.used; at += strlen(names.bytes + at) + 1) {
        PyObject *name = PyBytes_FromString(names.bytes + at);
        if (name == NULL || PyList_Append(list, name) < 0)
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    free(names.bytes);
    return list;
}

/* ----------------------------------------------------------------------------------------------- stat_entries */

typedef struct {
    const char *name; /* of the caller's tuple, which cannot change */
    struct stat st;
    int error;      /* of lstat */
    int attributes; /* how many bytes their names take, or minus the error number */
} Entry;

static int attributes_of(char *path, size_t prefix, const char *name)
{
#ifdef __linux__
    size_t length = strlen(name);
    if (prefix + length >= PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(path + prefix, name, length + 1);
    ssize_t size = llistxattr(path, NULL, 0);
    if (size < 0)
        return errno == ENOTSUP || errno == ENOSYS ? 0 : -errno;
    return (int)size;
#else
    (void)path, (void)prefix, (void)name;
    return 0;
#endif
}

static PyObject *entry_tuple(PyObject *name, const Entry *e)
{
    const struct stat *st = &e->st;
    int kind = kind_of(st->st_mode);
    long long size = kind == 0 ? (long long)st->st_size : 0;
    PyObject *mtime = nanoseconds_object(MTIME(st)), *ctime = nanoseconds_object(CTIME(st)); /* NULL: the call fails */
    int mode = st->st_mode & 07777;
    if ((kind == 0 || kind == 1) && e->attributes == 0 && (kind == 1 || st->st_nlink == 1))
        return Py_BuildValue("(OiiIINNKL)", name, kind, mode, (unsigned)st->st_uid, (unsigned)st->st_gid, mtime, ctime,
                             (unsigned long long)st->st_ino, size);
    return Py_BuildValue("(OiiIINNKLKKKi)", name, kind, mode, (unsigned)st->st_uid, (unsigned)st->st_gid, mtime, ctime,
                         (unsigned long long)st->st_ino, size, (unsigned long long)st->st_nlink,
                         (unsigned long long)st->st_dev, (unsigned long long)st->st_rdev, e->attributes);
}

PyObject *native_stat_entries(PyObject *self, PyObject *args)
{
    int fd;
    const char *prefix;
    Py_ssize_t prefix_length;
    PyObject *names;
    (void)self;
    if (!PyArg_ParseTuple(args, "iy#O!:stat_entries", &fd, &prefix, &prefix_length, &PyTuple_Type, &names))
        return NULL;
    Py_ssize_t count = PyTuple_Size(names);
    char path[PATH_MAX + 1];
    Entry *entries = PyMem_Calloc((size_t)count + 1, sizeof(Entry));
    if (entries == NULL)
        return PyErr_NoMemory();
    PyObject *result = NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        entries[i].name = PyBytes_AsString(PyTuple_GetItem(names, i));
        if (entries[i].name == NULL)
            goto done;
    }
    size_t length = prefix_length < PATH_MAX ? (size_t)prefix_length : PATH_MAX;
    memcpy(path, prefix, length);
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        Entry *e = &entries[i];
        e->error = fstatat(fd, e->name, &e->st, AT_SYMLINK_NOFOLLOW) ? errno : 0;
        e->attributes = e->error || !length ? 0 : attributes_of(path, length, e->name);
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        Entry *e = &entries[i];
        PyObject *item = e->error ? PyLong_FromLong(e->error) : entry_tuple(PyTuple_GetItem(names, i), e);
        if (item == NULL || PyList_SetItem(result, i, item) < 0)
            Py_CLEAR(result);
    }
done:
    PyMem_Free(entries);
    return result;
}

/* ------------------------------------------------------------------------------------------------- read_files */

typedef struct {
    const char *name;
    char *data; /* room for size bytes */
    long long size, mtime, ctime;
    unsigned long long inode;
    int good;
} Wanted;

static int as_expected(int fd, const Wanted *w)
{
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        return 0;
    if (st.st_size != w->size || (unsigned long long)st.st_ino != w->inode)
        return 0;
    if (!fits(MTIME(&st)) || !fits(CTIME(&st)))
        return 0;
    if (nanoseconds(MTIME(&st)) != w->mtime || nanoseconds(CTIME(&st)) != w->ctime)
        return 0;
    return (long long)st.st_blocks * 512 >= st.st_size; /* else it has holes, or is compressed by its file system */
}

static int open_quietly(int folder, const char *name)
{
    /* O_NONBLOCK: a FIFO put where a file was must not make the open wait for its writer. */
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    int fd = openat(folder, name, flags | O_NOATIME);
    return fd < 0 && errno == EPERM ? openat(folder, name, flags) : fd;
}

static void read_one(int folder, Wanted *w)
{
    int fd = open_quietly(folder, w->name);
    if (fd < 0)
        return;
    if (as_expected(fd, w)) {
        long long have = 0;
        while (have < w->size) {
            ssize_t got = read(fd, w->data + have, (size_t)(w->size - have));
            if (got > 0)
                have += got;
            else if (got == 0 || errno != EINTR)
                break;
        }
        w->good = have == w->size && as_expected(fd, w);
    }
    close(fd);
}

/* A time that does not fit is that of no file that is read here. False: an exception. */
static int time_of(PyObject *number, long long *time)
{
    int overflow;
    *time = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow)
        *time = INT64_MIN;
    return overflow || *time != -1 || !PyErr_Occurred();
}

/* Room for the bytes of each file, in a new list; NULL with an exception. */
static PyObject *make_room(PyObject *files, Wanted *wanted, Py_ssize_t count)
{
    PyObject *room = PyList_New(count);
    for (Py_ssize_t i = 0; room != NULL && i < count; i++) {
        Wanted *w = &wanted[i];
        PyObject *data = NULL, *file = PyTuple_GetItem(files, i);
        PyObject *mtime, *ctime;
        if (PyArg_ParseTuple(file, "yLOOK", &w->name, &w->size, &mtime, &ctime, &w->inode) &&
            time_of(mtime, &w->mtime) && time_of(ctime, &w->ctime))
            data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)w->size);
        if (data == NULL || PyList_SetItem(room, i, data) < 0)
            Py_CLEAR(room);
        else
            w->data = PyBytes_AsString(data);
    }
    return room;
}

PyObject *native_read_files(PyObject *self, PyObject *args)
{
    int folder;
    PyObject *files;
    (void)self;
    if (!PyArg_ParseTuple(args, "iO!:read_files", &folder, &PyTuple_Type, &files))
        return NULL;
    Py_ssize_t count = PyTuple_Size(files);
    Wanted *wanted = PyMem_Calloc((size_t)count + 1, sizeof(Wanted));
    if (wanted == NULL)
        return PyErr_NoMemory();
    PyObject *result = make_room(files, wanted, count);
    if (result != NULL) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++)
            read_one(folder, &wanted[i]);
        Py_END_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++) {
            if (!wanted[i].good) {
                Py_INCREF(Py_None);
                PyList_SetItem(result, i, Py_None);
            }
        }
    }
    PyMem_Free(wanted);
    return result;
}

/* ------------------------------------------------------------------------------------------------ write_files */

typedef struct {
    int folder, mode;
    const char *name;
    Py_buffer data; /* held until the call ends */
    unsigned uid, gid;
    long long mtime;
    int error;
} New;

/* Whether a new file has attributes other than the labels that security modules give to every file: an ACL, from the
 * default ACL of its folder. */
static int inherited(int fd)
{
#ifdef __linux__
    char names[512];
    ssize_t size = flistxattr(fd, names, sizeof names);
    if (size < 0)
        return errno == ERANGE;
    for (const char *name = names; name < names + size; name += strlen(name) + 1)
        if (strncmp(name, "security.", 9))
            return 1;
#else
    (void)fd;
#endif
    return 0;
}

/* Owner, mode and time of a file that was just made; 0, or -1 with errno. A change of owner clears setuid, and every
 * change moves the times: hence the order. */
static int describe(int fd, const New *n)
{
    struct stat st;
    if (fstat(fd, &st))
        return -1;
    if (inherited(fd)) { /* not for us to sort out */
        errno = EEXIST;
        return -1;
    }
    int now = st.st_mode & 07777;
    if (st.st_uid != n->uid || st.st_gid != n->gid) {
        if (fchown(fd, n->uid, n->gid))
            return -1;
        now &= ~06000;
    }
    if (now != n->mode && fchmod(fd, (mode_t)n->mode))
        return -1;
    int64_t seconds = n->mtime / 1000000000, rest = n->mtime % 1000000000;
    if (rest < 0)
        seconds--, rest += 1000000000;
    struct timespec both = {(time_t)seconds, (long)rest}, times[2] = {both, both};
    return futimens(fd, times);
}

static int write_all(int fd, const char *data, Py_ssize_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, data, (size_t)length);
        if (written < 0 && errno != EINTR)
            return -1;
        if (written > 0)
            data += written, length -= written;
    }
    return 0;
}

/* What a new file may let its group and others do before it has its owner: what both may in the end, since until then
 * its group is another one. */
static mode_t early(int mode)
{
    int common = mode >> 3 & mode & 7;
    return (mode_t)((mode & 0700) | common << 3 | common);
}

static int make_one(const New *n)
{
    int fd = openat(n->folder, n->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, early(n->mode));
    if (fd < 0)
        return errno;
    int error = write_all(fd, n->data.buf, n->data.len) || describe(fd, n) ? errno : 0;
    if (close(fd) && !error && errno != EINTR)
        error = errno;
    if (error)
        unlinkat(n->folder, n->name, 0); /* it is ours: nothing had the name before */
    return error;
}

PyObject *native_write_files(PyObject *self, PyObject *args)
{
    PyObject *files;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!:write_files", &PyTuple_Type, &files))
        return NULL;
    Py_ssize_t count = PyTuple_Size(files), taken = 0;
    New *made = PyMem_Calloc((size_t)count + 1, sizeof(New));
    if (made == NULL)
        return PyErr_NoMemory();
    PyObject *result = NULL;
    for (; taken < count; taken++) {
        New *n = &made[taken];
        if (!PyArg_ParseTuple(PyTuple_GetItem(files, taken), "iyy*iIIL", &n->folder, &n->name, &n->data, &n->mode,
                              &n->uid, &n->gid, &n->mtime))
            goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++)
        made[i].error = make_one(&made[i]);
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *error = PyLong_FromLong(made[i].error);
        if (error == NULL || PyList_SetItem(result, i, error) < 0)
            Py_CLEAR(result);
    }
done:
    for (Py_ssize_t i = 0; i < taken; i++)
        PyBuffer_Release(&made[i].data);
    PyMem_Free(made);
    return result;
}

#endif
