/* The store: states move only from where the caller believes them to be, leases go back, nothing
 * acknowledged is lost when a process is killed. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "node/base/clock.h"
#include "node/base/err.h"
#include "node/base/file.h"
#include "node/store.h"

#define LEASE_MS    1000
#define CRASHES_MAX 3

struct place {
    char folder[64];
    char path[PATH_BYTES];
    struct store *s;
    struct err e;
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    strcpy(p->folder, "/tmp/spinenode-store-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->path, sizeof p->path, "%s/node.db", p->folder);
    assert_int_equal(store_open(&p->s, p->path, &p->e), 0);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    static const char *const endings[] = {"", "-wal", "-shm"};
    store_close(p->s);
    for (size_t i = 0; i < 3; i++) {
        char path[PATH_BYTES + 8];
        snprintf(path, sizeof path, "%s%s", p->path, endings[i]);
        unlink(path);
    }
    rmdir(p->folder);
    free(p);
    return 0;
}

static void instance_fill(struct store_instance *in, const char *series, int number, int64_t now)
{
    memset(in, 0, sizeof *in);
    snprintf(in->sop_uid, sizeof in->sop_uid, "%s.%d", series, number);
    snprintf(in->series_uid, sizeof in->series_uid, "%s", series);
    strcpy(in->sop_class, "1.2.840.10008.5.1.4.1.1.4");
    strcpy(in->study_uid, "1.2.3");
    strcpy(in->transfer_syntax, "1.2.840.10008.1.2.1");
    strcpy(in->calling_ae, "PACS");
    snprintf(in->path, sizeof in->path, "in/%d", number);
    snprintf(in->sha256, sizeof in->sha256, "%064d", number);
    in->bytes = 100;
    in->received_at = now;
}

static enum store_outcome add(struct place *p, const char *series, int number, int64_t now)
{
    struct store_instance in, *list[] = {&in};
    instance_fill(&in, series, number, now);
    assert_int_equal(store_instances_add(p->s, list, 1, &p->e), 0);
    return in.outcome;
}

static struct store_series only_series(struct place *p, enum series_state state)
{
    struct store_series series[4];
    size_t n = 0;
    assert_int_equal(store_series_list(p->s, state, series, 4, &n, &p->e), 0);
    assert_int_equal(n, 1);
    return series[0];
}

static void job_fill(struct store_new_job *job, const struct store_series *series, const char *key)
{
    memset(job, 0, sizeof *job);
    snprintf(job->key, sizeof job->key, "%s", key);
    strcpy(job->task, "t2-to-t1");
    strcpy(job->rule, "spine");
    strcpy(job->model, "m.onnx");
    strcpy(job->destinations[0], "pacs");
    strcpy(job->destinations[1], "archive");
    job->destinations_count = 2;
    job->inputs[0] = series->id;
    job->revisions[0] = series->revision;
    job->inputs_count = 1;
}

/* One series of two instances, complete and planned into one job. */
static struct store_series plan_one(struct place *p, const char *key)
{
    struct store_new_job job;
    size_t made = 0;
    struct store_series series;
    add(p, "1.2.4", 1, 10);
    add(p, "1.2.4", 2, 20);
    series = only_series(p, SERIES_RECEIVING);
    assert_int_equal(store_series_complete(p->s, series.id, 1, 2, 30, &p->e), 0);
    assert_int_equal(store_series_take(p->s, "node/plan", 40, LEASE_MS, &series, &p->e), 0);
    job_fill(&job, &series, key);
    assert_int_equal(
        store_series_planned(p->s, series.id, 1, &job, 1, "T2 sagittal", 50, &made, &p->e), 0);
    assert_int_equal(made, 1);
    return series;
}

static struct store_job lease(struct place *p, const char *owner, int64_t now)
{
    struct store_job job;
    assert_int_equal(store_job_lease(p->s, owner, now, LEASE_MS, CRASHES_MAX, &job, &p->e), 0);
    return job;
}

static struct store_job job_get(struct place *p, int64_t id)
{
    struct store_job job;
    assert_int_equal(store_job_get(p->s, id, &job, &p->e), 0);
    return job;
}

static void outputs_fill(struct store_output out[2])
{
    memset(out, 0, 2 * sizeof *out);
    for (int i = 0; i < 2; i++) {
        snprintf(out[i].sop_uid, sizeof out[i].sop_uid, "2.25.%d", i + 1);
        strcpy(out[i].sop_class, "1.2.840.10008.5.1.4.1.1.7");
        snprintf(out[i].path, sizeof out[i].path, "out/k/%d.dcm", i);
        out[i].bytes = 7;
    }
}

/* A job that is done, with two outputs on their way to two destinations. */
static int64_t finish_one(struct place *p)
{
    struct store_output outputs[2];
    plan_one(p, "k1");
    struct store_job job = lease(p, "node/work-1", 60);
    outputs_fill(outputs);
    assert_int_equal(store_job_done(p->s, job.id, "node/work-1", outputs, 2, 900, 100, &p->e), 0);
    return job.id;
}

static void store__adds_an_instance_once(void **state)
{
    struct place *p = *state;
    struct store_instance other, *list[] = {&other};
    assert_int_equal(add(p, "1.2.4", 1, 10), STORE_ADDED);
    assert_int_equal(add(p, "1.2.4", 1, 20), STORE_SAME);
    assert_int_equal(only_series(p, SERIES_RECEIVING).instances, 1);

    instance_fill(&other, "1.2.4", 1, 30);
    strcpy(other.sha256, "another content");
    assert_int_equal(store_instances_add(p->s, list, 1, &p->e), 0);
    assert_int_equal(other.outcome, STORE_CONFLICT);

    /* The same in another encoding is no conflict. */
    strcpy(other.transfer_syntax, "1.2.840.10008.1.2");
    assert_int_equal(store_instances_add(p->s, list, 1, &p->e), 0);
    assert_int_equal(other.outcome, STORE_SAME);
    strcpy(other.series_uid, "1.2.5");
    assert_int_equal(store_instances_add(p->s, list, 1, &p->e), 0);
    assert_int_equal(other.outcome, STORE_CONFLICT);
    assert_int_equal(only_series(p, SERIES_RECEIVING).bytes, 100);
}

static void store__knows_two_of_one_batch_for_the_same(void **state)
{
    struct place *p = *state;
    struct store_instance a, b, *list[] = {&a, &b};
    instance_fill(&a, "1.2.4", 1, 10);
    instance_fill(&b, "1.2.4", 1, 10);
    assert_int_equal(store_instances_add(p->s, list, 2, &p->e), 0);
    assert_int_equal(a.outcome, STORE_ADDED);
    assert_int_equal(b.outcome, STORE_SAME);
}

static void store__refuses_texts_that_do_not_fit(void **state)
{
    struct place *p = *state;
    struct store_instance in, *list[] = {&in};
    instance_fill(&in, "1.2.4", 1, 10);
    memset(in.sop_uid, '1', sizeof in.sop_uid);
    assert_int_equal(store_instances_add(p->s, list, 1, &p->e), ERR_LIMIT);
    instance_fill(&in, "1.2.4", 1, 10);
    in.series_uid[0] = '\0';
    assert_int_equal(store_instances_add(p->s, list, 1, &p->e), ERR_INVALID);
}

static void store__does_not_complete_a_series_that_grew(void **state)
{
    struct place *p = *state;
    add(p, "1.2.4", 1, 10);
    struct store_series series = only_series(p, SERIES_RECEIVING);
    add(p, "1.2.4", 2, 20);
    assert_int_equal(store_series_complete(p->s, series.id, 1, 1, 30, &p->e), ERR_NOT_FOUND);
    assert_int_equal(store_series_complete(p->s, series.id, 1, 2, 30, &p->e), 0);
}

static void store__late_instance_makes_a_revision_and_supersedes_its_job(void **state)
{
    struct place *p = *state;
    struct store_new_job job;
    struct store_instance *instances;
    size_t n = 0, made = 0;
    struct store_series series = plan_one(p, "k1");
    assert_int_equal(add(p, "1.2.4", 2, 60), STORE_SAME);
    assert_int_equal(only_series(p, SERIES_PLANNED).revision, 1);

    add(p, "1.2.4", 3, 70);
    series = only_series(p, SERIES_RECEIVING);
    assert_int_equal(series.revision, 2);
    assert_int_equal(store_series_instances(p->s, series.id, 1, &instances, &n, &p->e), 0);
    assert_int_equal(n, 2);
    free(instances);
    assert_int_equal(store_series_instances(p->s, series.id, 2, &instances, &n, &p->e), 0);
    assert_int_equal(n, 3);
    assert_string_equal(instances[2].sop_uid, "1.2.4.3");
    free(instances);

    assert_int_equal(store_series_complete(p->s, series.id, 2, 3, 80, &p->e), 0);
    assert_int_equal(store_series_take(p->s, "node/plan", 90, LEASE_MS, &series, &p->e), 0);
    job_fill(&job, &series, "k2");
    assert_int_equal(store_series_planned(p->s, series.id, 2, &job, 1, "", 100, &made, &p->e), 0);
    assert_int_equal(made, 1);
    assert_int_equal(job_get(p, 1).state, JOB_CANCELLED);
    assert_string_equal(lease(p, "node/work-1", 110).key, "k2");
}

static void store__drops_a_plan_that_a_late_instance_overtook(void **state)
{
    struct place *p = *state;
    struct store_series series;
    struct store_new_job job;
    size_t made = 7;
    add(p, "1.2.4", 1, 10);
    series = only_series(p, SERIES_RECEIVING);
    assert_int_equal(store_series_complete(p->s, series.id, 1, 1, 30, &p->e), 0);
    assert_int_equal(store_series_take(p->s, "node/plan", 40, LEASE_MS, &series, &p->e), 0);
    add(p, "1.2.4", 2, 50);
    job_fill(&job, &series, "k1");
    assert_int_equal(store_series_planned(p->s, series.id, 1, &job, 1, "", 60, &made, &p->e),
                     ERR_NOT_FOUND);
    assert_int_equal(made, 0);
    assert_int_equal(store_job_lease(p->s, "w", 70, LEASE_MS, 3, &(struct store_job){0}, &p->e),
                     ERR_NOT_FOUND);
}

static void store__same_work_asked_twice_is_one_job(void **state)
{
    struct place *p = *state;
    struct store_new_job job;
    size_t made = 0;
    struct store_series series = plan_one(p, "k1");
    assert_int_equal(store_series_retry(p->s, series.id, 60, &p->e), 0);
    assert_int_equal(store_series_take(p->s, "node/plan", 70, LEASE_MS, &series, &p->e), 0);
    job_fill(&job, &series, "k1");
    assert_int_equal(store_series_planned(p->s, series.id, 1, &job, 1, "", 80, &made, &p->e), 0);
    assert_int_equal(made, 0);
}

static void store__refused_series_keeps_its_reason_until_it_is_tried_again(void **state)
{
    struct place *p = *state;
    struct store_series series;
    add(p, "1.2.4", 1, 10);
    series = only_series(p, SERIES_RECEIVING);
    assert_int_equal(store_series_complete(p->s, series.id, 1, 1, 20, &p->e), 0);
    assert_int_equal(store_series_take(p->s, "node/plan", 30, LEASE_MS, &series, &p->e), 0);
    assert_int_equal(store_series_refused(p->s, series.id, 1, "axial", 40, &p->e), 0);
    assert_string_equal(only_series(p, SERIES_REFUSED).reason, "axial");
    assert_int_equal(store_series_retry(p->s, series.id, 50, &p->e), 0);
    assert_string_equal(only_series(p, SERIES_COMPLETE).reason, "");
    assert_int_equal(store_series_retry(p->s, series.id, 50, &p->e), ERR_REFUSED);
}

static void store__job_goes_through_its_life(void **state)
{
    struct place *p = *state;
    struct store_output *outputs;
    struct store_delivery *deliveries;
    size_t n = 0;
    int64_t id = finish_one(p);
    struct store_job job = job_get(p, id);
    assert_int_equal(job.state, JOB_DONE);
    assert_int_equal(job.outputs, 2);
    assert_int_equal(job.run_ms, 900);
    assert_int_equal(job.destinations_count, 2);
    assert_string_equal(job.destinations[1], "archive");
    assert_string_equal(job.inputs[0].series_uid, "1.2.4");
    assert_int_equal(store_job_outputs(p->s, id, &outputs, &n, &p->e), 0);
    assert_int_equal(n, 2);
    assert_string_equal(outputs[1].path, "out/k/1.dcm");
    free(outputs);
    assert_int_equal(store_job_deliveries(p->s, id, &deliveries, &n, &p->e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(deliveries[0].items, 2);
    assert_int_equal(deliveries[0].state, DELIVERY_PENDING);
    free(deliveries);
}

static void store__lease_belongs_to_its_owner_alone(void **state)
{
    struct place *p = *state;
    plan_one(p, "k1");
    struct store_job job = lease(p, "node/work-1", 60), none;
    assert_int_equal(store_job_lease(p->s, "node/work-2", 70, LEASE_MS, 3, &none, &p->e),
                     ERR_NOT_FOUND);
    assert_int_equal(store_job_renew(p->s, job.id, "node/work-2", 80, LEASE_MS, &p->e),
                     ERR_NOT_FOUND);
    assert_int_equal(store_job_done(p->s, job.id, "node/work-2", NULL, 0, 0, 80, &p->e),
                     ERR_NOT_FOUND);
    assert_int_equal(store_job_renew(p->s, job.id, "node/work-1", 80, LEASE_MS, &p->e), 0);
    /* Renewed at 80: still held at 1070, free at 1080. */
    assert_int_equal(store_job_lease(p->s, "node/work-2", 1070, LEASE_MS, 3, &none, &p->e),
                     ERR_NOT_FOUND);
    job = lease(p, "node/work-2", 1080);
    assert_int_equal(job.crashes, 1);
    assert_int_equal(store_job_done(p->s, job.id, "node/work-1", NULL, 0, 0, 1090, &p->e),
                     ERR_NOT_FOUND);
}

static void store__quarantines_a_job_at_its_third_crash(void **state)
{
    struct place *p = *state;
    struct store_recovery gone;
    struct store_job none;
    plan_one(p, "k1");
    for (int i = 1; i <= 3; i++) {
        struct store_job job = lease(p, "node/work-1", 100 * i);
        assert_int_equal(job.crashes, i - 1);
        assert_int_equal(store_owner_died(p->s, "node/work-1", "signal 9", CRASHES_MAX, 100 * i + 1,
                                          &gone, &p->e),
                         0);
        assert_int_equal(gone.jobs, 1);
        assert_int_equal(gone.set_aside, i == 3);
    }
    assert_int_equal(store_job_lease(p->s, "w", 500, LEASE_MS, CRASHES_MAX, &none, &p->e),
                     ERR_NOT_FOUND);
    assert_int_equal(job_get(p, 1).state, JOB_QUARANTINED);
    assert_non_null(strstr(job_get(p, 1).reason, "signal 9"));
    assert_int_equal(store_job_retry(p->s, 1, 600, &p->e), 0);
    assert_int_equal(lease(p, "w", 700).crashes, 0);
}

static void store__expired_leases_count_as_crashes(void **state)
{
    struct place *p = *state;
    struct store_job none;
    plan_one(p, "k1");
    for (int i = 0; i < 3; i++)
        lease(p, "node/work-1", 10000 * (i + 1));
    assert_int_equal(store_job_lease(p->s, "w", 90000, LEASE_MS, CRASHES_MAX, &none, &p->e),
                     ERR_NOT_FOUND);
    assert_int_equal(job_get(p, 1).state, JOB_QUARANTINED);
}

static void store__interruption_of_the_whole_node_is_no_crash(void **state)
{
    struct place *p = *state;
    struct store_recovery gone;
    struct store_job job;
    plan_one(p, "k1");
    for (int i = 1; i <= 5; i++) {
        lease(p, "node/work-1", 100 * i);
        assert_int_equal(store_recover(p->s, "other/", 100 * i + 1, &gone, &p->e), 0);
        assert_int_equal(gone.jobs, 0);
        assert_int_equal(store_recover(p->s, "node/", 100 * i + 1, &gone, &p->e), 0);
        assert_int_equal(gone.jobs, 1);
    }
    job = job_get(p, 1);
    assert_int_equal(job.state, JOB_WAITING);
    assert_int_equal(job.crashes, 0);
    assert_int_equal(job.interruptions, 5);
    for (int i = 6; i <= STORE_INTERRUPTIONS_MAX; i++) {
        lease(p, "node/work-1", 100 * i);
        assert_int_equal(store_recover(p->s, "node/", 100 * i + 1, &gone, &p->e), 0);
    }
    assert_int_equal(job_get(p, 1).state, JOB_QUARANTINED);
}

static void store__recovery_starts_the_quiet_time_of_broken_associations(void **state)
{
    struct place *p = *state;
    struct store_recovery gone;
    add(p, "1.2.4", 1, 10);
    assert_int_equal(only_series(p, SERIES_RECEIVING).ended_at, 0);
    assert_int_equal(store_recover(p->s, "node/", 99, &gone, &p->e), 0);
    assert_int_equal(only_series(p, SERIES_RECEIVING).ended_at, 99);
}

static void store__end_of_an_association_counts_only_after_its_last_instance(void **state)
{
    struct place *p = *state;
    const char uids[1][STORE_UID] = {"1.2.4"};
    add(p, "1.2.4", 1, 10);
    assert_int_equal(store_association_ended(p->s, uids, 1, 20, &p->e), 0);
    assert_int_equal(store_associations_lost(p->s, 30, &p->e), 0);
    assert_int_equal(only_series(p, SERIES_RECEIVING).ended_at, 20);
    add(p, "1.2.4", 2, 40);
    assert_int_equal(store_associations_lost(p->s, 50, &p->e), 0);
    assert_int_equal(only_series(p, SERIES_RECEIVING).ended_at, 50);
}

static void store__series_that_kills_the_planner_is_set_aside(void **state)
{
    struct place *p = *state;
    struct store_recovery gone;
    struct store_series series;
    add(p, "1.2.4", 1, 10);
    series = only_series(p, SERIES_RECEIVING);
    assert_int_equal(store_series_complete(p->s, series.id, 1, 1, 30, &p->e), 0);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(store_series_take(p->s, "node/plan", 40 * i, LEASE_MS, &series, &p->e), 0);
        assert_int_equal(
            store_owner_died(p->s, "node/plan", "signal 11", CRASHES_MAX, 41 * i, &gone, &p->e), 0);
    }
    assert_non_null(strstr(only_series(p, SERIES_REFUSED).reason, "signal 11"));
}

static void store__cancel_reaches_waiting_and_leased_jobs(void **state)
{
    struct place *p = *state;
    struct store_output outputs[2];
    plan_one(p, "k1");
    assert_int_equal(store_job_cancel(p->s, 1, 60, &p->e), 0);
    assert_int_equal(job_get(p, 1).state, JOB_CANCELLED);
    assert_int_equal(store_job_cancel(p->s, 1, 60, &p->e), ERR_REFUSED);
    assert_int_equal(store_job_retry(p->s, 1, 70, &p->e), 0);
    lease(p, "w", 80);
    assert_int_equal(store_job_cancel(p->s, 1, 90, &p->e), 0);
    assert_int_equal(store_job_renew(p->s, 1, "w", 100, LEASE_MS, &p->e), ERR_CANCELLED);
    outputs_fill(outputs);
    assert_int_equal(store_job_done(p->s, 1, "w", outputs, 2, 0, 110, &p->e), ERR_CANCELLED);
    assert_int_equal(store_job_ended(p->s, 1, "w", JOB_CANCELLED, "", 120, &p->e), 0);
    assert_int_equal(job_get(p, 1).state, JOB_CANCELLED);
    assert_int_equal(job_get(p, 1).outputs, 0);
}

static void store__returned_job_waits_for_its_time(void **state)
{
    struct place *p = *state;
    struct store_job none;
    plan_one(p, "k1");
    lease(p, "w", 60);
    assert_int_equal(store_job_return(p->s, 1, "w", "no memory", 500, 70, &p->e), 0);
    assert_int_equal(store_job_lease(p->s, "w", 499, LEASE_MS, 3, &none, &p->e), ERR_NOT_FOUND);
    assert_int_equal(lease(p, "w", 500).crashes, 0);
}

static void store__delivery_sends_each_item_to_each_destination(void **state)
{
    struct place *p = *state;
    char names[4][STORE_NAME];
    size_t n = 0;
    int64_t next = 0;
    struct store_delivery delivery;
    struct store_item *items;
    finish_one(p);
    assert_int_equal(store_deliveries_due(p->s, 100, names, 4, &n, &next, &p->e), 0);
    assert_int_equal(n, 2);
    assert_true(next == INT64_MAX);
    assert_int_equal(
        store_delivery_take(p->s, "pacs", "node/deliver", 100, LEASE_MS, &delivery, &p->e), 0);
    assert_int_equal(
        store_delivery_take(p->s, "pacs", "node/deliver", 100, LEASE_MS, &delivery, &p->e),
        ERR_NOT_FOUND);
    assert_int_equal(store_delivery_items(p->s, delivery.id, &items, &n, &p->e), 0);
    assert_int_equal(n, 2);
    assert_false(items[0].sent);
    assert_int_equal(store_items_sent(p->s, &items[0].id, 1, 110, &p->e), 0);
    free(items);

    /* The stage dies: what was sent stays sent. */
    struct store_recovery gone;
    assert_int_equal(
        store_owner_died(p->s, "node/deliver", "signal 9", CRASHES_MAX, 120, &gone, &p->e), 0);
    assert_int_equal(gone.deliveries, 1);
    assert_int_equal(
        store_delivery_take(p->s, "pacs", "node/deliver", 120, LEASE_MS, &delivery, &p->e), 0);
    assert_int_equal(delivery.items_sent, 1);
    assert_int_equal(store_delivery_items(p->s, delivery.id, &items, &n, &p->e), 0);
    assert_true(items[0].sent);
    assert_false(items[1].sent);
    free(items);
    assert_int_equal(store_delivery_ended(p->s, delivery.id, "node/deliver", DELIVERY_PENDING,
                                          "busy", 900, true, 130, &p->e),
                     0);
    assert_int_equal(store_deliveries_due(p->s, 899, names, 4, &n, &next, &p->e), 0);
    assert_int_equal(n, 1); /* archive only */
    assert_int_equal(next, 900);
}

static void store__delivery_stays_with_the_one_who_holds_it(void **state)
{
    struct place *p = *state;
    struct store_delivery delivery;
    finish_one(p);
    assert_int_equal(store_delivery_take(p->s, "pacs", "a", 100, LEASE_MS, &delivery, &p->e), 0);
    assert_int_equal(store_delivery_renew(p->s, delivery.id, "b", 200, LEASE_MS, &p->e),
                     ERR_NOT_FOUND);
    assert_int_equal(
        store_delivery_ended(p->s, delivery.id, "b", DELIVERY_SENT, "", 0, true, 200, &p->e),
        ERR_NOT_FOUND);
    /* Its lease runs out. */
    assert_int_equal(store_delivery_take(p->s, "pacs", "b", 1100, LEASE_MS, &delivery, &p->e), 0);
    assert_int_equal(delivery.state, DELIVERY_SENDING);
}

/* Sends everything to "pacs" and asks for commitment under T1. */
static int64_t ask_commitment(struct place *p, const char *transaction, int64_t now)
{
    struct store_delivery delivery;
    struct store_item *items;
    size_t n = 0;
    assert_int_equal(store_delivery_take(p->s, "pacs", "d", now, LEASE_MS, &delivery, &p->e), 0);
    assert_int_equal(store_delivery_items(p->s, delivery.id, &items, &n, &p->e), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(store_items_sent(p->s, &items[i].id, 1, now, &p->e), 0);
    free(items);
    assert_int_equal(
        store_delivery_ended(p->s, delivery.id, "d", DELIVERY_SENT, "", now, false, now, &p->e), 0);
    assert_int_equal(store_delivery_take(p->s, "pacs", "d", now, LEASE_MS, &delivery, &p->e), 0);
    assert_int_equal(delivery.state, DELIVERY_SENT);
    assert_int_equal(
        store_commitment_asked(p->s, delivery.id, "d", transaction, now + 5000, now, &p->e), 0);
    assert_int_equal(store_delivery_ended(p->s, delivery.id, "d", DELIVERY_SENT, "", now + 5000,
                                          false, now, &p->e),
                     0);
    return delivery.id;
}

static struct store_delivery delivery_get(struct place *p, int64_t job, int64_t id)
{
    struct store_delivery *list, found = {0};
    size_t n = 0;
    assert_int_equal(store_job_deliveries(p->s, job, &list, &n, &p->e), 0);
    for (size_t i = 0; i < n; i++)
        if (list[i].id == id)
            found = list[i];
    free(list);
    assert_int_equal(found.id, id);
    return found;
}

static void store__commitment_closes_a_delivery(void **state)
{
    struct place *p = *state;
    struct store_commitment ok[] = {{"2.25.1", 0}, {"2.25.2", 0}};
    int64_t job = finish_one(p), id = ask_commitment(p, "1.9.1", 200), told = 0;
    assert_int_equal(delivery_get(p, job, id).state, DELIVERY_SENT);
    assert_int_equal(delivery_get(p, job, id).due_at, 5200);
    assert_int_equal(store_commitment_result(p->s, "1.9.2", ok, 2, 300, &told, &p->e),
                     ERR_NOT_FOUND);
    assert_int_equal(store_commitment_result(p->s, "1.9.1", ok, 1, 300, &told, &p->e), 0);
    assert_int_equal(delivery_get(p, job, id).state, DELIVERY_SENT);
    assert_int_equal(store_commitment_result(p->s, "1.9.1", ok, 2, 300, &told, &p->e), 0);
    assert_int_equal(told, id);
    assert_int_equal(delivery_get(p, job, id).state, DELIVERY_COMMITTED);
    assert_int_equal(delivery_get(p, job, id).due_at, 0);
}

static void store__sends_again_what_the_peer_does_not_keep_but_not_for_ever(void **state)
{
    struct place *p = *state;
    struct store_commitment half[] = {{"2.25.1", 0}, {"2.25.2", 0x0112}};
    int64_t job = finish_one(p), now = 200, id = 0;
    char transaction[STORE_UID];
    for (int i = 0; i < 3; i++, now += 2000) {
        snprintf(transaction, sizeof transaction, "1.9.%d", i);
        id = ask_commitment(p, transaction, now);
        assert_int_equal(store_commitment_result(p->s, transaction, half, 2, now, NULL, &p->e), 0);
        struct store_delivery d = delivery_get(p, job, id);
        assert_int_equal(d.items_sent, 1);
        assert_int_equal(d.items_committed, 1);
        assert_int_equal(d.state, i < 2 ? DELIVERY_PENDING : DELIVERY_FAILED);
    }
    assert_non_null(strstr(delivery_get(p, job, id).reason, "0112"));
    assert_int_equal(store_job_retry(p->s, job, now, &p->e), 0);
    assert_int_equal(delivery_get(p, job, id).state, DELIVERY_PENDING);
}

static void store__forgets_instances_and_series_that_hold_nothing(void **state)
{
    struct place *p = *state;
    struct store_stats stats;
    add(p, "1.2.4", 1, 10);
    add(p, "1.2.4", 2, 10);
    assert_int_equal(store_instances_forget(p->s, (const char[1][STORE_UID]){"1.2.4.1"}, 1, &p->e),
                     0);
    assert_int_equal(only_series(p, SERIES_RECEIVING).instances, 1);
    assert_int_equal(only_series(p, SERIES_RECEIVING).bytes, 100);
    assert_int_equal(store_instances_forget(p->s, (const char[1][STORE_UID]){"1.2.4.2"}, 1, &p->e),
                     0);
    assert_int_equal(store_stats(p->s, &stats, &p->e), 0);
    assert_int_equal(stats.series[SERIES_RECEIVING], 0);
    assert_int_equal(add(p, "1.2.4", 1, 20), STORE_ADDED);
}

static void store__counts_states(void **state)
{
    struct place *p = *state;
    struct store_stats stats;
    finish_one(p);
    assert_int_equal(store_stats(p->s, &stats, &p->e), 0);
    assert_int_equal(stats.instances, 2);
    assert_int_equal(stats.series[SERIES_PLANNED], 1);
    assert_int_equal(stats.jobs[JOB_DONE], 1);
    assert_int_equal(stats.deliveries[DELIVERY_PENDING], 2);
}

static void store__tells_when_another_process_changed_it(void **state)
{
    struct place *p = *state;
    int64_t before = 0, after = 0;
    struct store *other;
    assert_int_equal(store_version(p->s, &before, &p->e), 0);
    assert_int_equal(store_open(&other, p->path, &p->e), 0);
    struct place q = {.s = other};
    add(&q, "1.2.4", 1, 10);
    store_close(other);
    assert_int_equal(store_version(p->s, &after, &p->e), 0);
    assert_int_not_equal(before, after);
}

static void store__leaves_a_database_of_a_newer_schema_alone(void **state)
{
    struct place *p = *state;
    sqlite3 *db;
    struct store *other = NULL;
    assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(store_open(&other, p->path, &p->e), ERR_CONFIG);
    assert_null(other);
    assert_non_null(strstr(p->e.text, "schema 99"));
}

/* Adds instances and says so in a pipe, until it is killed. */
static void adder(const char *path, int ack, int who)
{
    struct store *s;
    struct err e;
    if (store_open(&s, path, &e) != 0)
        _exit(1);
    for (int i = 1;; i++) {
        struct store_instance in, *list[] = {&in};
        char series[STORE_UID];
        snprintf(series, sizeof series, "1.7.%d", who);
        instance_fill(&in, series, i, i);
        if (store_instances_add(s, list, 1, &e) != 0)
            _exit(1);
        if (write(ack, &i, sizeof i) != sizeof i)
            _exit(1);
    }
}

static int count_visit(void *context, const struct store_instance *instance)
{
    int *highest = context;
    int who = 0, number = 0;
    assert_int_equal(sscanf(instance->sop_uid, "1.7.%d.%d", &who, &number), 2);
    assert_in_range(who, 0, 2);
    assert_int_equal(number, highest[who] + 1); /* without gaps, in order */
    highest[who] = number;
    return 0;
}

static void store__keeps_all_that_was_acknowledged_when_writers_are_killed(void **state)
{
    struct place *p = *state;
    int acked[3] = {0}, seen[3] = {0};
    pid_t pids[3];
    int pipes[3][2];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pipe(pipes[i]), 0);
        pids[i] = fork();
        if (pids[i] == 0)
            adder(p->path, pipes[i][1], i);
        close(pipes[i][1]);
    }
    assert_int_equal(read(pipes[0][0], &acked[0], sizeof acked[0]), sizeof acked[0]);
    clock_sleep_ms(100);
    for (int i = 0; i < 3; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
        while (read(pipes[i][0], &acked[i], sizeof acked[i]) == sizeof acked[i])
            ;
        close(pipes[i][0]);
    }
    assert_int_equal(store_instances_visit(p->s, count_visit, seen, &p->e), 0);
    for (int i = 0; i < 3; i++)
        assert_in_range(seen[i], acked[i], acked[i] + 1);
    assert_true(acked[0] + acked[1] + acked[2] > 0);
}

static void sql(struct place *p, const char *statement)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(p->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, statement, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void store__goes_on_after_a_statement_that_failed(void **state)
{
    struct place *p = *state;
    struct store_job job;
    plan_one(p, "k1");
    sql(p, "ALTER TABLE jobs RENAME COLUMN id TO number");
    assert_int_equal(store_job_lease(p->s, "w", 100, LEASE_MS, CRASHES_MAX, &job, &p->e), ERR_BUG);
    sql(p, "ALTER TABLE jobs RENAME COLUMN number TO id");
    alarm(20); /* a connection that stayed locked would wait for ever */
    assert_string_equal(lease(p, "w", 100).key, "k1");
    alarm(0);
}

#define IN_PLACE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_PLACE(store__goes_on_after_a_statement_that_failed),
        IN_PLACE(store__adds_an_instance_once),
        IN_PLACE(store__knows_two_of_one_batch_for_the_same),
        IN_PLACE(store__refuses_texts_that_do_not_fit),
        IN_PLACE(store__does_not_complete_a_series_that_grew),
        IN_PLACE(store__late_instance_makes_a_revision_and_supersedes_its_job),
        IN_PLACE(store__drops_a_plan_that_a_late_instance_overtook),
        IN_PLACE(store__same_work_asked_twice_is_one_job),
        IN_PLACE(store__refused_series_keeps_its_reason_until_it_is_tried_again),
        IN_PLACE(store__job_goes_through_its_life),
        IN_PLACE(store__lease_belongs_to_its_owner_alone),
        IN_PLACE(store__quarantines_a_job_at_its_third_crash),
        IN_PLACE(store__expired_leases_count_as_crashes),
        IN_PLACE(store__interruption_of_the_whole_node_is_no_crash),
        IN_PLACE(store__recovery_starts_the_quiet_time_of_broken_associations),
        IN_PLACE(store__end_of_an_association_counts_only_after_its_last_instance),
        IN_PLACE(store__series_that_kills_the_planner_is_set_aside),
        IN_PLACE(store__cancel_reaches_waiting_and_leased_jobs),
        IN_PLACE(store__returned_job_waits_for_its_time),
        IN_PLACE(store__delivery_sends_each_item_to_each_destination),
        IN_PLACE(store__delivery_stays_with_the_one_who_holds_it),
        IN_PLACE(store__commitment_closes_a_delivery),
        IN_PLACE(store__sends_again_what_the_peer_does_not_keep_but_not_for_ever),
        IN_PLACE(store__forgets_instances_and_series_that_hold_nothing),
        IN_PLACE(store__counts_states),
        IN_PLACE(store__tells_when_another_process_changed_it),
        IN_PLACE(store__leaves_a_database_of_a_newer_schema_alone),
        IN_PLACE(store__keeps_all_that_was_acknowledged_when_writers_are_killed),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
