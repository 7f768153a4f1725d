/*
 * spool.c - see spool.h
 *
 * One flat folder for what comes in: its fsync is the one that all concurrent instances share.
 */
#include "node/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "node/base/digest.h"
#include "node/base/err.h"

/* dicom/ */
#include "dicom/part10.h"

/* Rows younger than the youngest by this are checked by digest. */
#define SUSPECT_MS (2 * 60 * 1000)

static const char *const folders[] = {"in", "work", "out"};

int spool_open(struct spool *sp, const char *root, struct err *e)
{
    sp->lock = -1;
    int n = snprintf(sp->root, sizeof sp->root, "%s", root);
    if (n < 0 || (size_t)n >= sizeof sp->root - STORE_PATH)
        return err_set(e, ERR_LIMIT, "path of the spool is too long: %s", root);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[PATH_BYTES];
        int rc = file_join(path, sp->root, folders[i], e);
        if (rc == 0)
            rc = file_make_folders(path, 0750, e);
        if (rc != 0)
            return err_context(e, "spool %s", root);
    }
    return 0;
}

int spool_lock(struct spool *sp, struct err *e)
{
    char path[PATH_BYTES];
    int rc = file_join(path, sp->root, "lock", e);
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_errno(e, errno, "cannot open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        rc = errno == EWOULDBLOCK
                 ? err_set(e, ERR_EXISTS, "another node works on spool %s: stop it first", sp->root)
                 : err_errno(e, errno, "cannot lock %s", path);
        close(fd);
        return rc;
    }
    sp->lock = fd;
    return 0;
}

void spool_unlock(struct spool *sp)
{
    if (sp->lock >= 0)
        close(sp->lock);
    sp->lock = -1;
}

int spool_path(const struct spool *sp, const char *relative, char out[PATH_BYTES], struct err *e)
{
    if (relative[0] == '/' || relative[0] == '\0' || strstr(relative, "..") != NULL)
        return err_set(e, ERR_INVALID, "not a path within the spool: %s", relative);
    return file_join(out, sp->root, relative, e);
}

int spool_incoming(const struct spool *sp, const char *sop_uid, char relative[STORE_PATH],
                   struct err *e)
{
    uint8_t hash[DIGEST_BYTES];
    char hex[DIGEST_HEX], path[PATH_BYTES];
    uint64_t chance;
    struct digest *d = digest_new();
    digest_add_text(d, sop_uid);
    digest_finish(d, hash);
    digest_to_hex(hash, hex);
    for (int attempt = 0; attempt < 8; attempt++) {
        if (getrandom(&chance, sizeof chance, 0) != sizeof chance)
            return err_errno(e, errno, "cannot get random bytes");
        snprintf(relative, STORE_PATH, "in/%.24s-%016" PRIx64 ".dcm", hex, chance);
        int rc = spool_path(sp, relative, path, e);
        if (rc != 0)
            return rc;
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
        if (fd >= 0)
            return fd;
        if (errno != EEXIST)
            return err_errno(e, errno, "cannot create %s", path);
    }
    return err_set(e, ERR_BUG, "no free file name in %s/in", sp->root);
}

int spool_room(const struct spool *sp, int64_t free_bytes, int32_t free_percent, struct err *e)
{
    struct statvfs fs;
    if (statvfs(sp->root, &fs) != 0)
        return err_errno(e, errno, "cannot ask for the free space of %s", sp->root);
    int64_t left = (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
    double percent = fs.f_blocks > 0 ? 100.0 * (double)fs.f_bavail / (double)fs.f_blocks : 100.0;
    if (left < free_bytes || percent < free_percent)
        return err_set(e, ERR_FULL,
                       "disk of the spool is full: %" PRId64 " MB (%.0f %%) free, wanted %" PRId64
                       " MB and %d %%",
                       left / 1000000, percent, free_bytes / 1000000, (int)free_percent);
    return 0;
}

/* Removes a folder of files; folders in it are never made here. */
static int folder_remove(const char *path, struct err *e)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return errno == ENOENT ? 0 : err_errno(e, errno, "cannot open folder %s", path);
    int rc = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL && rc == 0;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(dir), entry->d_name, 0) != 0)
            rc = err_errno(e, errno, "cannot remove %s/%s", path, entry->d_name);
    }
    closedir(dir);
    if (rc == 0 && rmdir(path) != 0)
        rc = err_errno(e, errno, "cannot remove folder %s", path);
    return rc;
}

/* <spool>/<kind>/<key>, with -<number> behind it unless that is negative. */
static int job_folder(const struct spool *sp, const char *kind, const char *key, int number,
                      char out[PATH_BYTES], struct err *e)
{
    size_t n = strlen(key);
    if (n == 0 || n >= STORE_HEX || strspn(key, "0123456789abcdef") != n)
        return err_set(e, ERR_BUG, "not a job's key: %s", key);
    char relative[STORE_PATH];
    if (number < 0)
        snprintf(relative, sizeof relative, "%s/%s", kind, key);
    else
        snprintf(relative, sizeof relative, "%s/%s-%d", kind, key, number);
    return spool_path(sp, relative, out, e);
}

int spool_work_begin(const struct spool *sp, const char *job_key, int number, char out[PATH_BYTES],
                     struct err *e)
{
    int rc = job_folder(sp, "work", job_key, number, out, e);
    if (rc == 0)
        rc = folder_remove(out, e);
    if (rc == 0 && mkdir(out, 0750) != 0)
        rc = err_errno(e, errno, "cannot make folder %s", out);
    return rc;
}

static int folder_sync_files(const char *path, struct err *e)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return err_errno(e, errno, "cannot open folder %s", path);
    int rc = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL && rc == 0;) {
        if (entry->d_name[0] == '.')
            continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) != 0)
            rc = err_errno(e, errno, "cannot fsync %s/%s", path, entry->d_name);
        if (fd >= 0)
            close(fd);
    }
    if (rc == 0 && fsync(dirfd(dir)) != 0)
        rc = err_errno(e, errno, "cannot fsync folder %s", path);
    closedir(dir);
    return rc;
}

int spool_work_publish(const struct spool *sp, const char *job_key, int number, struct err *e)
{
    char from[PATH_BYTES], to[PATH_BYTES], out[PATH_BYTES];
    int rc = job_folder(sp, "work", job_key, number, from, e);
    if (rc == 0)
        rc = job_folder(sp, "out", job_key, -1, to, e);
    if (rc == 0)
        rc = file_join(out, sp->root, "out", e);
    if (rc == 0)
        rc = folder_sync_files(from, e);
    if (rc == 0)
        rc = folder_remove(to, e);
    if (rc == 0 && rename(from, to) != 0)
        rc = err_errno(e, errno, "cannot move %s to %s", from, to);
    if (rc == 0)
        rc = file_sync_folder(out, e);
    return rc;
}

/* What stays because it cannot be removed now is swept at the next start. */
void spool_work_drop(const struct spool *sp, const char *job_key, int number)
{
    char path[PATH_BYTES];
    if (job_folder(sp, "work", job_key, number, path, NULL) == 0)
        folder_remove(path, NULL);
}

void spool_output_drop(const struct spool *sp, const char *job_key)
{
    char path[PATH_BYTES];
    if (job_folder(sp, "out", job_key, -1, path, NULL) == 0)
        folder_remove(path, NULL);
}

static int trash_remove(const struct spool *sp, struct store *s, const char *relative,
                        struct err *e)
{
    char path[PATH_BYTES];
    enum job_state state;
    int rc = spool_path(sp, relative, path, e);
    if (rc != 0)
        return rc;
    if (strncmp(relative, "out/", 4) != 0)
        return unlink(path) == 0 || errno == ENOENT ? 0
                                                    : err_errno(e, errno, "cannot remove %s", path);
    rc = store_job_state(s, relative + 4, &state, e);
    if (rc == ERR_NOT_FOUND)
        rc = folder_remove(path, e);
    return rc;
}

int spool_trash(const struct spool *sp, struct store *s, size_t max, struct spool_emptied *out,
                struct err *e)
{
    char paths[SPOOL_TRASH_MAX][STORE_PATH];
    memset(out, 0, sizeof *out);
    max = max < SPOOL_TRASH_MAX ? max : SPOOL_TRASH_MAX;
    int rc = store_trash_list(s, paths, max, &out->paths, e);
    for (size_t i = 0; i < out->paths && rc == 0; i++)
        if (trash_remove(sp, s, paths[i], &out->problem) != 0)
            out->problems++;
    if (rc == 0 && out->paths > 0)
        rc = store_trash_forget(s, (const char(*)[STORE_PATH])paths, out->paths, e);
    return rc;
}

/* ---- the sweep ------------------------------------------------------------------------------ */

struct sweep {
    const struct spool *sp;
    uint64_t *names; /* hash of the path of every row, sorted */
    size_t n, cap;
    char (*bad)[STORE_UID]; /* SOP Instance UIDs of rows that are not believed */
    size_t bad_n, bad_cap;
    int64_t suspect_since;
    int64_t youngest;
};

/* The random part of a name made by spool_incoming(), which is unique enough to know it by. */
static bool name_token(const char *name, uint64_t *out)
{
    const char *dash = strrchr(name, '-');
    char *end = NULL;
    if (dash == NULL)
        return false;
    *out = strtoull(dash + 1, &end, 16);
    return end == dash + 17 && strcmp(end, ".dcm") == 0;
}

static int find_youngest(void *context, const struct store_instance *instance)
{
    struct sweep *w = context;
    if (instance->received_at > w->youngest)
        w->youngest = instance->received_at;
    return 0;
}

static bool digest_agrees(const char *path, const char *expected)
{
    struct part10 head;
    uint8_t hash[DIGEST_BYTES];
    char hex[DIGEST_HEX], chunk[65536];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool same = false;
    ssize_t n = -1;
    if (part10_read(fd, &head, NULL) == 0) {
        struct digest *d = digest_new();
        off_t at = (off_t)head.data_set;
        while ((n = pread(fd, chunk, sizeof chunk, at)) > 0) {
            digest_add(d, chunk, (size_t)n);
            at += n;
        }
        digest_finish(d, hash);
        digest_to_hex(hash, hex);
        same = n == 0 && strcmp(hex, expected) == 0;
    }
    close(fd);
    return same;
}

static int check_row(void *context, const struct store_instance *instance)
{
    struct sweep *w = context;
    char path[PATH_BYTES];
    struct stat st;
    uint64_t token = 0;
    bool good = name_token(instance->path, &token) &&
                spool_path(w->sp, instance->path, path, NULL) == 0 && stat(path, &st) == 0 &&
                st.st_size == instance->bytes;
    if (good && instance->received_at >= w->suspect_since && instance->sha256[0] != '\0')
        good = digest_agrees(path, instance->sha256);
    if (good) {
        if (w->n == w->cap) {
            size_t cap = w->cap ? w->cap * 2 : 1024;
            uint64_t *names = realloc(w->names, cap * sizeof *names);
            if (names == NULL)
                return ERR_NOMEM;
            w->names = names;
            w->cap = cap;
        }
        w->names[w->n++] = token;
        return 0;
    }
    if (w->bad_n == w->bad_cap) {
        size_t cap = w->bad_cap ? w->bad_cap * 2 : 64;
        void *bad = realloc(w->bad, cap * sizeof *w->bad);
        if (bad == NULL)
            return ERR_NOMEM;
        w->bad = bad;
        w->bad_cap = cap;
    }
    snprintf(w->bad[w->bad_n++], STORE_UID, "%s", instance->sop_uid);
    return 0;
}

static int compare_tokens(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Visits the entries of <spool>/<kind>. */
static int folder_visit(const struct spool *sp, const char *kind,
                        int (*visit)(const char *path, const char *name, void *context,
                                     struct err *e),
                        void *context, struct err *e)
{
    char folder[PATH_BYTES], path[PATH_BYTES];
    int rc = file_join(folder, sp->root, kind, e);
    if (rc != 0)
        return rc;
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return err_errno(e, errno, "cannot open folder %s", folder);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL && rc == 0;) {
        if (entry->d_name[0] == '.')
            continue;
        rc = file_join(path, folder, entry->d_name, e);
        if (rc == 0)
            rc = visit(path, entry->d_name, context, e);
    }
    closedir(dir);
    return rc;
}

struct sweep_context {
    struct sweep *rows;
    struct store *s;
    struct spool_swept *swept;
};

static int sweep_file(const char *path, const char *name, void *context, struct err *e)
{
    struct sweep_context *c = context;
    uint64_t token;
    if (name_token(name, &token) && c->rows->n > 0 &&
        bsearch(&token, c->rows->names, c->rows->n, sizeof token, compare_tokens) != NULL)
        return 0;
    c->swept->files++;
    return unlink(path) == 0 ? 0 : err_errno(e, errno, "cannot remove %s", path);
}

static int sweep_output(const char *path, const char *name, void *context, struct err *e)
{
    struct sweep_context *c = context;
    enum job_state state = JOB_STATES;
    int rc = store_job_state(c->s, name, &state, e);
    if (rc != 0 && rc != ERR_NOT_FOUND)
        return rc;
    if (rc == 0 && state == JOB_DONE)
        return 0;
    c->swept->folders++;
    return folder_remove(path, e);
}

static int sweep_work(const char *path, const char *name, void *context, struct err *e)
{
    struct sweep_context *c = context;
    (void)name;
    c->swept->folders++;
    return folder_remove(path, e);
}

int spool_sweep(const struct spool *sp, struct store *s, struct spool_swept *out, struct err *e)
{
    struct sweep rows = {.sp = sp};
    struct sweep_context context = {&rows, s, out};
    memset(out, 0, sizeof *out);
    int rc = store_instances_visit(s, find_youngest, &rows, e);
    rows.suspect_since = rows.youngest - SUSPECT_MS;
    if (rc == 0 && (rc = store_instances_visit(s, check_row, &rows, e)) == ERR_NOMEM)
        err_set(e, rc, "no memory to check the spool");
    if (rc != 0)
        goto out;
    if (rows.n > 0)
        qsort(rows.names, rows.n, sizeof *rows.names, compare_tokens);
    out->rows = (int64_t)rows.bad_n;
    if (rows.bad_n > 0)
        rc = store_instances_forget(s, (const char(*)[STORE_UID])rows.bad, rows.bad_n, e);
    if (rc == 0)
        rc = folder_visit(sp, "in", sweep_file, &context, e);
    if (rc == 0)
        rc = folder_visit(sp, "work", sweep_work, &context, e);
    if (rc == 0)
        rc = folder_visit(sp, "out", sweep_output, &context, e);
out:
    free(rows.names);
    free(rows.bad);
    return rc;
}
