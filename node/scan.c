/* scan.c - see scan.h */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "node/base/err.h"
#include "node/base/file.h"

#include "node/scan.h"

static int add_file(struct scan *s, const char *path, struct err *e)
{
    if (s->count == SCAN_FILES_MAX)
        return err_set(e, ERR_LIMIT, "more than %d files; name a smaller folder", SCAN_FILES_MAX);
    /* Grows at every power of two. */
    if ((s->count & (s->count - 1)) == 0) {
        size_t room = s->count == 0 ? 1 : 2 * s->count;
        char **paths = realloc(s->paths, room * sizeof *paths);
        if (paths == NULL)
            return err_set(e, ERR_NOMEM, "listing files: no memory");
        s->paths = paths;
    }
    s->paths[s->count] = strdup(path);
    if (s->paths[s->count] == NULL)
        return err_set(e, ERR_NOMEM, "listing files: no memory");
    s->count++;
    return 0;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = suffix != NULL ? strlen(suffix) : 0;
    return n >= m && strcmp(name + n - m, suffix != NULL ? suffix : "") == 0;
}

static int add_folder(struct scan *s, const char *folder, const char *suffix, int depth,
                      struct err *e)
{
    if (depth > SCAN_DEPTH_MAX)
        return err_set(e, ERR_LIMIT, "%s is nested more than %d folders deep", folder,
                       SCAN_DEPTH_MAX);
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return err_errno(e, errno, "opening %s", folder);
    int rc = 0;
    struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        char path[PATH_BYTES];
        struct stat st;
        if (entry->d_name[0] == '.')
            continue;
        rc = file_join(path, folder, entry->d_name, e);
        if (rc != 0 || lstat(path, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode))
            rc = add_folder(s, path, suffix, depth + 1, e);
        else if (has_suffix(entry->d_name, suffix) && stat(path, &st) == 0 && S_ISREG(st.st_mode))
            rc = add_file(s, path, e);
    }
    closedir(dir);
    return rc;
}

static int compare(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

int scan_add(struct scan *s, const char *path, const char *suffix, struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_errno(e, errno, "opening %s", path);
    if (!S_ISDIR(st.st_mode))
        return add_file(s, path, e);
    size_t before = s->count;
    int rc = add_folder(s, path, suffix, 0, e);
    if (s->count > before)
        qsort(s->paths + before, s->count - before, sizeof *s->paths, compare);
    return rc;
}

void scan_fini(struct scan *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->paths[i]);
    free(s->paths);
    *s = (struct scan){0};
}
