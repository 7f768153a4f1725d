/*
 * intake.c - see intake.h
 *
 * Failure modes: a file that cannot be synced takes its row back; a full disk is ERR_FULL. After a
 * kill between the three syncs the sender has no answer, and the sweep (spool.h) removes what is
 * there by half.
 */
#include "node/intake.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node/base/err.h"
#include "node/spool.h"

/* Most instances in one transaction. */
#define BATCH_MAX 256

/* One who waits; lives on its thread's stack. */
struct ticket {
    struct store_instance *instance; /* NULL in the folder's queue */
    struct ticket *next;
    bool done;
    struct err e;
};

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled, served;
    struct ticket *first, **last;
    bool stop;
    pthread_t thread;
    bool running;
};

struct intake {
    struct store *s;
    const struct spool *sp;
    int folder; /* <spool>/in */
    struct queue names, rows;
};

static void queue_init(struct queue *q)
{
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->filled, NULL);
    pthread_cond_init(&q->served, NULL);
    q->last = &q->first;
}

static void queue_put(struct queue *q, struct ticket *t)
{
    pthread_mutex_lock(&q->lock);
    *q->last = t;
    q->last = &t->next;
    pthread_cond_signal(&q->filled);
    pthread_mutex_unlock(&q->lock);
}

static int queue_await(struct queue *q, struct ticket *t, struct err *e)
{
    pthread_mutex_lock(&q->lock);
    while (!t->done)
        pthread_cond_wait(&q->served, &q->lock);
    pthread_mutex_unlock(&q->lock);
    if (t->e.code != 0 && e != NULL)
        *e = t->e;
    return t->e.code;
}

/* Up to max tickets, as a list; NULL: stop. */
static struct ticket *queue_take(struct queue *q, size_t max)
{
    pthread_mutex_lock(&q->lock);
    while (q->first == NULL && !q->stop)
        pthread_cond_wait(&q->filled, &q->lock);
    struct ticket *list = q->first, **end = &list;
    for (size_t i = 0; i < max && *end != NULL; i++)
        end = &(*end)->next;
    q->first = *end;
    *end = NULL;
    if (q->first == NULL)
        q->last = &q->first;
    pthread_mutex_unlock(&q->lock);
    return list;
}

static void queue_serve(struct queue *q, struct ticket *list)
{
    pthread_mutex_lock(&q->lock);
    while (list != NULL) {
        struct ticket *next = list->next; /* the ticket is gone once its owner saw done */
        list->done = true;
        list = next;
    }
    pthread_cond_broadcast(&q->served);
    pthread_mutex_unlock(&q->lock);
}

static void *sync_names(void *argument)
{
    struct intake *in = argument;
    struct ticket *list;
    while ((list = queue_take(&in->names, SIZE_MAX)) != NULL) {
        struct err e = {0};
        if (fsync(in->folder) != 0)
            err_errno(&e, errno, "cannot fsync folder %s/in", in->sp->root);
        for (struct ticket *t = list; t != NULL; t = t->next)
            t->e = e;
        queue_serve(&in->names, list);
    }
    return NULL;
}

static void *commit_rows(void *argument)
{
    struct intake *in = argument;
    struct ticket *list;
    while ((list = queue_take(&in->rows, BATCH_MAX)) != NULL) {
        struct store_instance *batch[BATCH_MAX];
        size_t n = 0;
        struct err e = {0};
        for (struct ticket *t = list; t != NULL; t = t->next)
            batch[n++] = t->instance;
        int rc = store_instances_add(in->s, batch, n, &e);
        /* One that cannot be entered must not take the others with it. */
        for (struct ticket *t = list; t != NULL; t = t->next) {
            if (rc != 0 && n > 1) {
                memset(&t->e, 0, sizeof t->e);
                t->e.code = store_instances_add(in->s, &t->instance, 1, &t->e);
            } else {
                t->e = e;
                t->e.code = rc;
            }
        }
        queue_serve(&in->rows, list);
    }
    return NULL;
}

static int queue_start(struct queue *q, void *(*run)(void *), struct intake *in, struct err *e)
{
    int error = pthread_create(&q->thread, NULL, run, in);
    if (error != 0)
        return err_errno(e, error, "cannot start a thread");
    q->running = true;
    return 0;
}

static void queue_fini(struct queue *q)
{
    if (q->running) {
        pthread_mutex_lock(&q->lock);
        q->stop = true;
        pthread_cond_signal(&q->filled);
        pthread_mutex_unlock(&q->lock);
        pthread_join(q->thread, NULL);
    }
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->filled);
    pthread_cond_destroy(&q->served);
}

int intake_new(struct intake **out, struct store *s, const struct spool *sp, struct err *e)
{
    char folder[PATH_BYTES];
    int rc = file_join(folder, sp->root, "in", e);
    if (rc != 0)
        return rc;
    struct intake *in = calloc(1, sizeof *in);
    if (in == NULL)
        return err_set(e, ERR_NOMEM, "no memory for the intake");
    in->s = s;
    in->sp = sp;
    queue_init(&in->names);
    queue_init(&in->rows);
    in->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (in->folder < 0)
        rc = err_errno(e, errno, "cannot open folder %s", folder);
    if (rc == 0)
        rc = queue_start(&in->names, sync_names, in, e);
    if (rc == 0)
        rc = queue_start(&in->rows, commit_rows, in, e);
    if (rc != 0) {
        intake_free(in);
        return rc;
    }
    *out = in;
    return 0;
}

void intake_free(struct intake *in)
{
    if (in == NULL)
        return;
    queue_fini(&in->names);
    queue_fini(&in->rows);
    if (in->folder >= 0)
        close(in->folder);
    free(in);
}

/* The one that we have may have been entered a moment ago and still be on its way to the disk; and
 * it may have been lost since. 0: it is durable; ERR_NOT_FOUND: it is not there as it should be. */
static int kept_sync(struct intake *in, const struct store_instance *instance, struct err *e)
{
    char path[PATH_BYTES];
    struct stat st;
    struct ticket name = {0};
    int rc = spool_path(in->sp, instance->kept, path, e);
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "cannot open %s", path);
    if (fstat(fd, &st) != 0 || st.st_size != instance->kept_bytes)
        rc = err_set(e, ERR_NOT_FOUND, "%s has another size than it should", path);
    else if (fsync(fd) != 0)
        rc = err_errno(e, errno, "cannot fsync %s", path);
    close(fd);
    if (rc == 0) {
        queue_put(&in->names, &name);
        rc = queue_await(&in->names, &name, e);
    }
    return rc;
}

static int commit_once(struct intake *in, int fd, struct store_instance *instance, struct err *e)
{
    struct ticket name = {0}, row = {.instance = instance};
    int rc = 0;
    queue_put(&in->names, &name);
    queue_put(&in->rows, &row);
    if (fsync(fd) != 0)
        rc = err_errno(e, errno, "cannot fsync %s", instance->path);
    struct err name_e, row_e;
    int name_rc = queue_await(&in->names, &name, &name_e);
    int row_rc = queue_await(&in->rows, &row, &row_e);
    if (rc == 0 && name_rc != 0) {
        *e = name_e;
        rc = name_rc;
    }
    if (rc != 0 && row_rc == 0 && instance->outcome == STORE_ADDED) {
        char uid[1][STORE_UID];
        memcpy(uid[0], instance->sop_uid, STORE_UID);
        store_instances_forget(in->s, (const char(*)[STORE_UID])uid, 1, NULL);
    }
    if (rc == 0 && row_rc != 0) {
        *e = row_e;
        rc = row_rc;
    }
    return rc;
}

int intake_commit(struct intake *in, int fd, struct store_instance *instance, struct err *e)
{
    char path[PATH_BYTES];
    struct err local;
    if (e == NULL)
        e = &local;
    int rc = commit_once(in, fd, instance, e);
    if (rc == 0 && instance->outcome == STORE_SAME) {
        rc = kept_sync(in, instance, e);
        if (rc == ERR_NOT_FOUND) {
            /* Ours was lost: the sender gives us back what we need. */
            char uid[1][STORE_UID];
            memcpy(uid[0], instance->sop_uid, STORE_UID);
            rc = store_instances_forget(in->s, (const char(*)[STORE_UID])uid, 1, e);
            if (rc == 0)
                rc = commit_once(in, fd, instance, e);
        }
    }
    if ((rc != 0 || instance->outcome != STORE_ADDED) &&
        spool_path(in->sp, instance->path, path, NULL) == 0)
        unlink(path);
    return rc;
}
