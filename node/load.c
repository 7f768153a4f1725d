/* load.c - series from their files, see load.h */
#include "node/load.h"

#include <stdlib.h>
#include <string.h>

#include "node/base/err.h"

#include "dicom/series.h"
#include "node/config.h"
#include "node/spool.h"

int load_series(const char *const *paths, size_t n, const struct config_limits *limits,
                struct series **out, struct err *e)
{
    struct series_limits l = series_default_limits;
    l.slices = (unsigned)limits->slices;
    l.side = (unsigned)limits->rows;
    return series_read(paths, n, &l, out, e);
}

int load_spooled(const struct spool *sp, struct store *s, const struct config_limits *limits,
                 int64_t series_id, int64_t revision, struct series **out, struct err *e)
{
    struct store_instance *instances = NULL;
    size_t n = 0;
    int rc = store_series_instances(s, series_id, revision, &instances, &n, e);
    if (rc != 0)
        return rc;
    const char **paths = calloc(n + 1, sizeof *paths);
    char(*texts)[PATH_BYTES] = calloc(n + 1, sizeof *texts);
    if (paths == NULL || texts == NULL)
        rc = err_set(e, ERR_NOMEM, "no memory for a series of %zu instances", n);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = spool_path(sp, instances[i].path, texts[i], e);
        paths[i] = texts[i];
        if (rc == 0 && strcmp(instances[i].study_uid, instances[0].study_uid) != 0)
            rc = err_set(e, ERR_REFUSED,
                         "instances of different studies under one Series Instance UID");
    }
    if (rc == 0)
        rc = load_series(paths, n, limits, out, e);
    free(instances);
    free(paths);
    free(texts);
    return rc;
}
