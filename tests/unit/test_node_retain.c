/* Retention: what is over goes whole, what is not over never goes, and what comes again after it
 * was removed gives the same results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "node/base/err.h"
#include "node/base/file.h"
#include "node/spool.h"
#include "node/store.h"

#define KEY_1 "1111111111111111111111111111111111111111111111111111111111111111"
#define KEY_2 "2222222222222222222222222222222222222222222222222222222222222222"
#define A     "1.2.4"
#define B     "1.2.5"

/* Everything in these tests happens before this. */
#define LATE 1000000

struct place {
    char folder[64];
    char database[PATH_BYTES];
    struct spool sp;
    struct store *s;
    struct err e;
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    strcpy(p->folder, "/tmp/spinenode-retain-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->database, sizeof p->database, "%s/node.db", p->folder);
    assert_int_equal(spool_open(&p->sp, p->folder, &p->e), 0);
    assert_int_equal(store_open(&p->s, p->database, &p->e), 0);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[PATH_BYTES];
    store_close(p->s);
    snprintf(command, sizeof command, "rm -rf '%s'", p->folder);
    assert_int_equal(system(command), 0);
    free(p);
    return 0;
}

static bool there(struct place *p, const char *relative)
{
    char path[PATH_BYTES];
    struct stat st;
    assert_int_equal(spool_path(&p->sp, relative, path, &p->e), 0);
    return stat(path, &st) == 0;
}

static void file_make(struct place *p, const char *relative)
{
    char path[PATH_BYTES];
    assert_int_equal(spool_path(&p->sp, relative, path, &p->e), 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("content", f);
    fclose(f);
}

static void file_of(char out[STORE_PATH], const char *series, int number)
{
    snprintf(out, STORE_PATH, "in/%s-%016x.dcm", series, (unsigned)number);
}

static enum store_outcome add(struct place *p, const char *series, int number, int64_t now)
{
    struct store_instance in, *list[] = {&in};
    memset(&in, 0, sizeof in);
    snprintf(in.sop_uid, sizeof in.sop_uid, "%s.%d", series, number);
    strcpy(in.series_uid, series);
    strcpy(in.sop_class, "1.2.840.10008.5.1.4.1.1.4");
    strcpy(in.study_uid, "1.2.3");
    strcpy(in.transfer_syntax, "1.2.840.10008.1.2.1");
    strcpy(in.calling_ae, "PACS");
    file_of(in.path, series, number);
    in.bytes = 100;
    in.received_at = now;
    assert_int_equal(store_instances_add(p->s, list, 1, &p->e), 0);
    if (in.outcome == STORE_ADDED)
        file_make(p, in.path);
    return in.outcome;
}

static struct store_series receiving(struct place *p)
{
    struct store_series series;
    size_t n = 0;
    assert_int_equal(store_series_list(p->s, SERIES_RECEIVING, &series, 1, &n, &p->e), 0);
    assert_int_equal(n, 1);
    return series;
}

/* Received, complete and taken for planning. */
static struct store_series take(struct place *p, const char *uid, int64_t now)
{
    struct store_series series;
    add(p, uid, 1, now);
    add(p, uid, 2, now);
    series = receiving(p);
    assert_int_equal(store_series_complete(p->s, series.id, 1, 2, now, &p->e), 0);
    assert_int_equal(store_series_take(p->s, "n/plan", now, 1000, &series, &p->e), 0);
    return series;
}

static struct store_series plan(struct place *p, const char *uid, const char *key, int64_t now)
{
    struct store_new_job job;
    size_t made = 0;
    struct store_series series = take(p, uid, now);
    memset(&job, 0, sizeof job);
    strcpy(job.key, key);
    strcpy(job.task, "t2-to-t1");
    strcpy(job.destinations[0], "pacs");
    job.destinations_count = 1;
    job.inputs[0] = series.id;
    job.revisions[0] = series.revision;
    job.inputs_count = 1;
    assert_int_equal(store_series_planned(p->s, series.id, 1, &job, 1, "", now, &made, &p->e), 0);
    assert_int_equal(made, 1);
    return series;
}

static struct store_job lease(struct place *p, int64_t now)
{
    struct store_job job;
    assert_int_equal(store_job_lease(p->s, "n/work-1", now, 1000, 3, &job, &p->e), 0);
    return job;
}

/* Leases the next job and enters its one output; content stands for the digest of its file. */
static int finish(struct place *p, const char *content, int64_t now, struct store_job *job)
{
    struct store_output out;
    char folder[STORE_PATH], path[PATH_BYTES];
    *job = lease(p, now);
    memset(&out, 0, sizeof out);
    strcpy(out.sop_uid, "2.25.1");
    snprintf(out.path, sizeof out.path, "out/%s/1.dcm", job->key);
    strcpy(out.sha256, content);
    out.bytes = 7;
    snprintf(folder, sizeof folder, "out/%s", job->key);
    assert_int_equal(spool_path(&p->sp, folder, path, &p->e), 0);
    mkdir(path, 0750);
    file_make(p, out.path);
    return store_job_done(p->s, job->id, "n/work-1", &out, 1, 5, now, &p->e);
}

static struct store_delivery send_take(struct place *p, int64_t now)
{
    struct store_delivery d;
    assert_int_equal(store_delivery_take(p->s, "pacs", "n/deliver", now, 1000, &d, &p->e), 0);
    return d;
}

static void send_end(struct place *p, enum delivery_state state, int64_t due, int64_t now)
{
    struct store_delivery d = send_take(p, now);
    assert_int_equal(
        store_delivery_ended(p->s, d.id, "n/deliver", state, "", due, true, now, &p->e), 0);
}

/* A series whose job is done and delivered. */
static struct store_series deliver(struct place *p, const char *uid, const char *key, int64_t now)
{
    struct store_job job;
    struct store_series series = plan(p, uid, key, now);
    assert_int_equal(finish(p, "c1", now, &job), 0);
    send_end(p, DELIVERY_SENT, 0, now);
    return series;
}

static int purge(struct place *p, int64_t done, int64_t failed, int64_t delivered,
                 struct store_purged *out)
{
    const struct store_retention what = {done, failed, delivered};
    return store_purge_next(p->s, &what, out, &p->e);
}

static void assert_kept(struct place *p)
{
    struct store_purged gone;
    assert_int_equal(purge(p, LATE, LATE, LATE, &gone), ERR_NOT_FOUND);
}

static size_t drain(struct place *p)
{
    struct spool_emptied emptied;
    assert_int_equal(spool_trash(&p->sp, p->s, SPOOL_TRASH_MAX, &emptied, &p->e), 0);
    assert_int_equal(emptied.problems, 0);
    return emptied.paths;
}

static int64_t count(struct place *p, const char *table)
{
    sqlite3 *db;
    sqlite3_stmt *row;
    char sql[64];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", table);
    assert_int_equal(sqlite3_open(p->database, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &row, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(row, 0);
    sqlite3_finalize(row);
    sqlite3_close(db);
    return n;
}

static void retain__removes_a_delivered_series_with_all_that_came_of_it(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    char path[STORE_PATH];
    deliver(p, A, KEY_1, 100);
    assert_int_equal(purge(p, 100, 0, 0, &gone), ERR_NOT_FOUND); /* not older than that */
    assert_int_equal(purge(p, 101, 0, 0, &gone), 0);
    assert_string_equal(gone.series_uid, A);
    assert_int_equal(gone.jobs, 1);
    assert_int_equal(gone.instances, 2);
    assert_int_equal(gone.outputs, 1);
    assert_int_equal(gone.bytes, 207);
    assert_false(gone.failed);
    static const char *const tables[] = {"series",     "instances", "jobs",    "job_inputs",
                                         "deliveries", "items",     "outputs", "commitments"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        assert_int_equal(count(p, tables[i]), 0);
    file_of(path, A, 1);
    assert_true(there(p, path));
    assert_int_equal(drain(p), 3);
    assert_false(there(p, path));
    assert_false(there(p, "out/" KEY_1));
    assert_int_equal(drain(p), 0);
}

static void retain__keeps_what_has_not_come_to_its_end(void **state)
{
    struct place *p = *state;
    struct store_series series;
    struct store_job job;
    size_t made;
    add(p, A, 1, 10);
    assert_kept(p); /* receiving */
    series = receiving(p);
    assert_int_equal(store_series_complete(p->s, series.id, 1, 1, 20, &p->e), 0);
    assert_kept(p); /* complete */
    assert_int_equal(store_series_take(p->s, "n/plan", 30, 1000, &series, &p->e), 0);
    assert_kept(p); /* planning */
    assert_int_equal(store_series_planned(p->s, series.id, 1, NULL, 0, "", 40, &made, &p->e), 0);

    plan(p, B, KEY_1, 50);
    struct store_purged gone;
    assert_int_equal(purge(p, LATE, LATE, LATE, &gone), 0);
    assert_string_equal(gone.series_uid, A); /* nothing to be done for it */
    assert_kept(p);                          /* B: waiting */
    job = lease(p, 60);
    assert_kept(p); /* leased */
    assert_int_equal(store_job_return(p->s, job.id, "n/work-1", "", 60, 60, &p->e), 0);
    assert_int_equal(finish(p, "c1", 70, &job), 0);
    assert_kept(p); /* pending */
    struct store_delivery d = send_take(p, 80);
    assert_kept(p); /* sending */
    assert_int_equal(
        store_delivery_ended(p->s, d.id, "n/deliver", DELIVERY_SENT, "", 5000, true, 90, &p->e), 0);
    assert_kept(p); /* sent, commitment is to be asked for */
    d = send_take(p, 5000);
    assert_int_equal(d.state, DELIVERY_SENT);
    assert_kept(p); /* being asked for */
    assert_int_equal(store_commitment_asked(p->s, d.id, "n/deliver", "2.25.9", 9000, 5000, &p->e),
                     0);
    assert_kept(p); /* asked for */
    struct store_commitment c = {.sop_uid = "2.25.1"};
    struct store_item *items;
    size_t n;
    assert_int_equal(store_delivery_items(p->s, d.id, &items, &n, &p->e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(store_items_sent(p->s, &items[0].id, 1, 5000, &p->e), 0);
    free(items);
    assert_int_equal(store_commitment_result(p->s, "2.25.9", &c, 1, 6000, NULL, &p->e), 0);
    assert_int_equal(purge(p, 6000, 0, 0, &gone), ERR_NOT_FOUND);
    assert_int_equal(purge(p, 6001, 0, 0, &gone), 0); /* committed */
    assert_string_equal(gone.series_uid, B);
}

static void retain__keeps_failures_for_a_time_of_their_own(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    struct store_job job;
    plan(p, A, KEY_1, 100);
    job = lease(p, 100);
    assert_int_equal(store_job_ended(p->s, job.id, "n/work-1", JOB_FAILED, "broken", 100, &p->e),
                     0);
    plan(p, B, KEY_2, 200);
    assert_int_equal(finish(p, "c1", 200, &job), 0);
    send_end(p, DELIVERY_FAILED, 0, 200);
    assert_int_equal(purge(p, LATE, 0, LATE, &gone), ERR_NOT_FOUND);
    assert_int_equal(purge(p, LATE, 101, LATE, &gone), 0);
    assert_string_equal(gone.series_uid, A);
    assert_true(gone.failed);
    assert_int_equal(purge(p, LATE, 200, LATE, &gone), ERR_NOT_FOUND);
    assert_int_equal(purge(p, 0, 201, 0, &gone), 0);
    assert_string_equal(gone.series_uid, B);
    assert_int_equal(gone.outputs, 1);
}

static void retain__failure_that_is_tried_again_is_not_over(void **state)
{
    struct place *p = *state;
    struct store_job job;
    plan(p, A, KEY_1, 100);
    job = lease(p, 100);
    assert_int_equal(store_job_ended(p->s, job.id, "n/work-1", JOB_FAILED, "broken", 100, &p->e),
                     0);
    assert_int_equal(store_job_retry(p->s, job.id, 300, &p->e), 0);
    assert_kept(p);
}

static void retain__refused_series_goes_with_what_is_done_but_not_early(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    struct store_series series = take(p, A, 100);
    assert_int_equal(store_series_refused(p->s, series.id, 1, "no spine", 100, &p->e), 0);
    assert_int_equal(purge(p, 0, LATE, LATE, &gone), ERR_NOT_FOUND);
    assert_int_equal(purge(p, 101, 0, 0, &gone), 0);
    assert_int_equal(gone.jobs, 0);
    assert_int_equal(gone.instances, 2);
}

static void retain__early_goes_only_what_is_delivered_oldest_first(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    struct store_job job;
    deliver(p, A, KEY_1, 200);
    deliver(p, B, KEY_2, 100);
    plan(p, "1.2.6", "33", 50);
    assert_int_equal(finish(p, "c1", 50, &job), 0); /* not sent yet */
    assert_int_equal(purge(p, 0, 0, LATE, &gone), 0);
    assert_string_equal(gone.series_uid, B);
    assert_int_equal(purge(p, 0, 0, LATE, &gone), 0);
    assert_string_equal(gone.series_uid, A);
    assert_int_equal(purge(p, 0, 0, LATE, &gone), ERR_NOT_FOUND);
}

static void retain__series_that_is_sent_again_is_not_cut_in_two(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    deliver(p, A, KEY_1, 100);
    assert_int_equal(add(p, A, 1, 50000), STORE_SAME);
    assert_int_equal(purge(p, 50000, 50000, 50000, &gone), ERR_NOT_FOUND);
    assert_int_equal(add(p, A, 2, 50100), STORE_SAME);
    assert_int_equal(purge(p, 60000, 0, 0, &gone), 0);
}

static void retain__zero_keeps_for_ever(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    deliver(p, A, KEY_1, 100);
    assert_int_equal(purge(p, 0, LATE, 0, &gone), ERR_NOT_FOUND);
    assert_int_equal(purge(p, 0, 0, 0, &gone), ERR_NOT_FOUND);
}

static void retain__work_done_again_takes_over_its_old_time_and_a_new_id(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    struct store_job job;
    struct store_series first = deliver(p, A, KEY_1, 100);
    assert_int_equal(purge(p, LATE, 0, 0, &gone), 0);
    assert_int_equal(drain(p), 3);

    struct store_series again = plan(p, A, KEY_1, 5000);
    assert_true(again.id > first.id);
    assert_int_equal(again.revision, 1);
    assert_int_equal(finish(p, "c1", 5000, &job), 0);
    assert_int_equal(job.created_at, 100);
    assert_int_equal(job.id, 2);

    /* And once more. */
    send_end(p, DELIVERY_SENT, 0, 5000);
    assert_int_equal(purge(p, LATE, 0, 0, &gone), 0);
    assert_int_equal(drain(p), 3);
    plan(p, A, KEY_1, 9000);
    assert_int_equal(finish(p, "c1", 9000, &job), 0);
    assert_int_equal(job.created_at, 100);
}

static void retain__refuses_other_contents_under_the_same_uids(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    struct store_job job;
    deliver(p, A, KEY_1, 100);
    assert_int_equal(purge(p, LATE, 0, 0, &gone), 0);
    assert_int_equal(drain(p), 3);
    plan(p, A, KEY_1, 5000);
    assert_int_equal(finish(p, "other", 5000, &job), ERR_REFUSED);
    assert_non_null(strstr(p->e.text, "same UIDs"));
    assert_int_equal(count(p, "outputs"), 0);
    assert_int_equal(store_job_get(p->s, job.id, &job, &p->e), 0);
    assert_int_equal(job.state, JOB_LEASED);
}

static void retain__files_go_after_a_kill_behind_the_rows(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    struct spool_swept swept;
    char path[STORE_PATH];
    deliver(p, A, KEY_1, 100);
    assert_int_equal(purge(p, LATE, 0, 0, &gone), 0);
    store_close(p->s); /* killed here */
    p->s = NULL;
    assert_int_equal(store_open(&p->s, p->database, &p->e), 0);
    assert_int_equal(drain(p), 3);
    file_of(path, A, 2);
    assert_false(there(p, path));
    assert_false(there(p, "out/" KEY_1));

    /* The whole node was killed: the sweep is first. */
    deliver(p, B, KEY_2, 100);
    assert_int_equal(purge(p, LATE, 0, 0, &gone), 0);
    assert_int_equal(spool_sweep(&p->sp, p->s, &swept, &p->e), 0);
    assert_int_equal(swept.files, 2);
    assert_int_equal(swept.folders, 1);
    assert_int_equal(swept.rows, 0);
    assert_int_equal(drain(p), 3);
}

static void retain__trash_leaves_the_outputs_of_work_done_again(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    struct store_job job;
    deliver(p, A, KEY_1, 100);
    assert_int_equal(purge(p, LATE, 0, 0, &gone), 0);
    /* Before the trash is emptied it is all here again, under names of its own but for out/. */
    plan(p, A, KEY_1, 5000);
    assert_int_equal(finish(p, "c1", 5000, &job), 0);
    assert_int_equal(drain(p), 3);
    assert_true(there(p, "out/" KEY_1 "/1.dcm"));
}

static void retain__trash_is_emptied_in_small_steps(void **state)
{
    struct place *p = *state;
    struct spool_emptied emptied;
    struct store_purged gone;
    deliver(p, A, KEY_1, 100);
    assert_int_equal(purge(p, LATE, 0, 0, &gone), 0);
    assert_int_equal(spool_trash(&p->sp, p->s, 2, &emptied, &p->e), 0);
    assert_int_equal(emptied.paths, 2);
    assert_int_equal(drain(p), 1);
}

static void store__brings_a_database_of_schema_1_up(void **state)
{
    struct place *p = *state;
    struct store_purged gone;
    sqlite3 *db;
    deliver(p, A, KEY_1, 100);
    store_close(p->s);
    p->s = NULL;
    assert_int_equal(sqlite3_open(p->database, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "DROP TABLE past_jobs; DROP TABLE trash; DROP TABLE used_ids;"
                                  "DROP INDEX items_by_output; DROP INDEX commitments_by_delivery;"
                                  "ALTER TABLE series DROP COLUMN seen_at; PRAGMA user_version=1",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(store_open(&p->s, p->database, &p->e), 0);
    assert_int_equal(purge(p, LATE, 0, 0, &gone), 0);
    assert_string_equal(gone.series_uid, A);
    assert_int_equal(drain(p), 3);
}

#define IN_PLACE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_PLACE(retain__removes_a_delivered_series_with_all_that_came_of_it),
        IN_PLACE(retain__keeps_what_has_not_come_to_its_end),
        IN_PLACE(retain__keeps_failures_for_a_time_of_their_own),
        IN_PLACE(retain__failure_that_is_tried_again_is_not_over),
        IN_PLACE(retain__refused_series_goes_with_what_is_done_but_not_early),
        IN_PLACE(retain__early_goes_only_what_is_delivered_oldest_first),
        IN_PLACE(retain__series_that_is_sent_again_is_not_cut_in_two),
        IN_PLACE(retain__zero_keeps_for_ever),
        IN_PLACE(retain__work_done_again_takes_over_its_old_time_and_a_new_id),
        IN_PLACE(retain__refuses_other_contents_under_the_same_uids),
        IN_PLACE(retain__files_go_after_a_kill_behind_the_rows),
        IN_PLACE(retain__trash_leaves_the_outputs_of_work_done_again),
        IN_PLACE(retain__trash_is_emptied_in_small_steps),
        IN_PLACE(store__brings_a_database_of_schema_1_up),
    };
    return cmocka_run_group_tests_name("retain", tests, NULL, NULL);
}
