/* The spool and the intake: what was acknowledged is there whole after a kill at any step, what was
 * not is swept. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "node/base/clock.h"
#include "node/base/digest.h"
#include "node/base/err.h"
#include "node/base/file.h"

#include "dicom/part10.h"

#include "node/intake.h"
#include "node/spool.h"
#include "node/store.h"

#define KEY "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

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
    strcpy(p->folder, "/tmp/spinenode-spool-XXXXXX");
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
    spool_unlock(&p->sp);
    snprintf(command, sizeof command, "rm -rf '%s'", p->folder);
    assert_int_equal(system(command), 0);
    free(p);
    return 0;
}

/* Number of entries in <spool>/<kind>. */
static int entries(struct place *p, const char *kind)
{
    char path[PATH_BYTES];
    int n = 0;
    assert_int_equal(file_join(path, p->sp.root, kind, &p->e), 0);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* Writes a Part 10 file of which the data set is `body` into a new file of the spool. */
static int incoming(const struct spool *sp, int number, const char *body,
                    struct store_instance *out)
{
    uint8_t head[PART10_HEAD_MAX], hash[DIGEST_BYTES];
    size_t used = 0;
    struct part10 meta = {.sop_class = "1.2.840.10008.5.1.4.1.1.4",
                          .transfer_syntax = "1.2.840.10008.1.2.1"};
    memset(out, 0, sizeof *out);
    snprintf(out->sop_uid, sizeof out->sop_uid, "1.2.3.%d", number);
    strcpy(meta.sop_instance, out->sop_uid);
    strcpy(out->sop_class, meta.sop_class);
    strcpy(out->transfer_syntax, meta.transfer_syntax);
    strcpy(out->series_uid, "1.2.3");
    strcpy(out->study_uid, "1.2");
    strcpy(out->calling_ae, "PACS");
    if (part10_encode(&meta, head, &used, NULL) != 0)
        return -1;
    int fd = spool_incoming(sp, out->sop_uid, out->path, NULL);
    if (fd < 0 || write(fd, head, used) != (ssize_t)used ||
        write(fd, body, strlen(body)) != (ssize_t)strlen(body))
        return -1;
    struct digest *d = digest_new();
    digest_add(d, body, strlen(body));
    digest_finish(d, hash);
    digest_to_hex(hash, out->sha256);
    out->bytes = (int64_t)(used + strlen(body));
    out->received_at = clock_wall_ms();
    return fd;
}

static int instances_known(struct place *p)
{
    struct store_stats stats;
    assert_int_equal(store_stats(p->s, &stats, &p->e), 0);
    return (int)stats.instances;
}

static void spool__names_come_from_digests_not_from_the_peer(void **state)
{
    struct place *p = *state;
    char relative[STORE_PATH], other[STORE_PATH];
    int fd = spool_incoming(&p->sp, "../../../etc/passwd", relative, &p->e);
    assert_true(fd >= 0);
    close(fd);
    assert_null(strstr(relative, ".."));
    assert_int_equal(strncmp(relative, "in/", 3), 0);
    fd = spool_incoming(&p->sp, "../../../etc/passwd", other, &p->e);
    assert_true(fd >= 0);
    close(fd);
    assert_string_not_equal(relative, other);
}

static void spool__refuses_paths_that_leave_it(void **state)
{
    struct place *p = *state;
    char path[PATH_BYTES];
    assert_int_equal(spool_path(&p->sp, "../x", path, &p->e), ERR_INVALID);
    assert_int_equal(spool_path(&p->sp, "/etc/passwd", path, &p->e), ERR_INVALID);
    assert_int_equal(spool_path(&p->sp, "in/../../x", path, &p->e), ERR_INVALID);
    assert_int_equal(spool_path(&p->sp, "", path, &p->e), ERR_INVALID);
    assert_int_equal(spool_path(&p->sp, "in/x", path, &p->e), 0);
    assert_int_equal(spool_work_begin(&p->sp, "../../x", 1, path, &p->e), ERR_BUG);
}

static void spool__belongs_to_one_node(void **state)
{
    struct place *p = *state;
    struct spool other;
    assert_int_equal(spool_lock(&p->sp, &p->e), 0);
    assert_int_equal(spool_open(&other, p->folder, &p->e), 0);
    assert_int_equal(spool_lock(&other, &p->e), ERR_EXISTS);
    spool_unlock(&p->sp);
    assert_int_equal(spool_lock(&other, &p->e), 0);
    spool_unlock(&other);
}

static void spool__says_when_the_disk_is_too_full(void **state)
{
    struct place *p = *state;
    assert_int_equal(spool_room(&p->sp, 0, 0, &p->e), 0);
    assert_int_equal(spool_room(&p->sp, INT64_MAX, 0, &p->e), ERR_FULL);
    assert_int_equal(spool_room(&p->sp, 0, 101, &p->e), ERR_FULL);
}

static void intake__makes_an_instance_durable_once(void **state)
{
    struct place *p = *state;
    struct intake *in;
    struct store_instance first, again, other;
    assert_int_equal(intake_new(&in, p->s, &p->sp, &p->e), 0);
    int fd = incoming(&p->sp, 1, "body", &first);
    assert_int_equal(intake_commit(in, fd, &first, &p->e), 0);
    assert_int_equal(first.outcome, STORE_ADDED);
    close(fd);
    fd = incoming(&p->sp, 1, "body", &again);
    assert_int_equal(intake_commit(in, fd, &again, &p->e), 0);
    assert_int_equal(again.outcome, STORE_SAME);
    close(fd);
    fd = incoming(&p->sp, 1, "another body", &other);
    assert_int_equal(intake_commit(in, fd, &other, &p->e), 0);
    assert_int_equal(other.outcome, STORE_CONFLICT);
    close(fd);
    assert_int_equal(entries(p, "in"), 1);
    intake_free(in);
}

static void intake__takes_an_instance_again_whose_file_was_lost(void **state)
{
    struct place *p = *state;
    struct intake *in;
    struct store_instance first, again;
    char path[PATH_BYTES];
    assert_int_equal(intake_new(&in, p->s, &p->sp, &p->e), 0);
    int fd = incoming(&p->sp, 1, "body", &first);
    assert_int_equal(intake_commit(in, fd, &first, &p->e), 0);
    close(fd);
    assert_int_equal(spool_path(&p->sp, first.path, path, &p->e), 0);
    assert_int_equal(unlink(path), 0);
    fd = incoming(&p->sp, 1, "body", &again);
    assert_int_equal(intake_commit(in, fd, &again, &p->e), 0);
    assert_int_equal(again.outcome, STORE_ADDED);
    close(fd);
    assert_int_equal(entries(p, "in"), 1);
    assert_int_equal(instances_known(p), 1);
    intake_free(in);
}

static void intake__leaves_nothing_of_an_instance_that_cannot_be_entered(void **state)
{
    struct place *p = *state;
    struct intake *in;
    struct store_instance bad;
    assert_int_equal(intake_new(&in, p->s, &p->sp, &p->e), 0);
    int fd = incoming(&p->sp, 1, "body", &bad);
    bad.series_uid[0] = '\0';
    assert_int_equal(intake_commit(in, fd, &bad, &p->e), ERR_INVALID);
    close(fd);
    assert_int_equal(entries(p, "in"), 0);
    assert_int_equal(instances_known(p), 0);
    intake_free(in);
}

#define THREADS 8
#define EACH    20

struct crowd {
    struct intake *in;
    const struct spool *sp;
    int first;
    int added, same;
};

/* EACH of its own, and then all of those of thread 0 again. */
static void *crowd_run(void *argument)
{
    struct crowd *c = argument;
    for (int i = 0; i < 2 * EACH; i++) {
        struct store_instance instance;
        int fd = incoming(c->sp, i < EACH ? c->first + i : i - EACH, "body", &instance);
        if (fd < 0 || intake_commit(c->in, fd, &instance, NULL) != 0)
            return NULL;
        close(fd);
        c->added += instance.outcome == STORE_ADDED;
        c->same += instance.outcome == STORE_SAME;
    }
    return NULL;
}

static void intake__serves_many_at_once_without_losing_or_doubling(void **state)
{
    struct place *p = *state;
    struct intake *in;
    struct crowd crowd[THREADS];
    pthread_t threads[THREADS];
    int added = 0, same = 0;
    assert_int_equal(intake_new(&in, p->s, &p->sp, &p->e), 0);
    for (int i = 0; i < THREADS; i++) {
        crowd[i] = (struct crowd){.in = in, .sp = &p->sp, .first = i * EACH};
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_run, &crowd[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        added += crowd[i].added;
        same += crowd[i].same;
    }
    assert_int_equal(added, THREADS * EACH);
    assert_int_equal(same, THREADS * EACH);
    assert_int_equal(entries(p, "in"), THREADS * EACH);
    assert_int_equal(instances_known(p), THREADS * EACH);
    intake_free(in);
}

/* Stores instances, telling of each that was acknowledged, until it is killed. */
static void receiver(const struct place *p, int ack)
{
    struct store *s;
    struct intake *in;
    struct spool sp;
    struct err e;
    if (spool_open(&sp, p->folder, &e) != 0 || store_open(&s, p->database, &e) != 0 ||
        intake_new(&in, s, &sp, &e) != 0)
        _exit(1);
    for (int i = 0;; i++) {
        struct store_instance instance;
        int fd = incoming(&sp, i, "body", &instance);
        if (fd < 0 || intake_commit(in, fd, &instance, &e) != 0 ||
            write(ack, &i, sizeof i) != sizeof i)
            _exit(1);
        close(fd);
    }
}

static void spool__keeps_all_that_was_acknowledged_and_sweeps_the_rest(void **state)
{
    struct place *p = *state;
    struct spool_swept swept;
    int pipes[2], acked = -1;
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0)
        receiver(p, pipes[1]);
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &acked, sizeof acked), sizeof acked);
    clock_sleep_ms(50);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    while (read(pipes[0], &acked, sizeof acked) == sizeof acked)
        ;
    close(pipes[0]);
    assert_int_equal(spool_sweep(&p->sp, p->s, &swept, &p->e), 0);
    assert_int_equal(swept.rows, 0);
    assert_in_range(instances_known(p), acked + 1, acked + 2);
    assert_int_equal(entries(p, "in"), instances_known(p));
}

/* Adds one instance with its row, then does something to the file. */
static void stored(struct place *p, int number, char path[PATH_BYTES])
{
    struct store_instance instance, *list[] = {&instance};
    int fd = incoming(&p->sp, number, "body", &instance);
    close(fd);
    assert_int_equal(store_instances_add(p->s, list, 1, &p->e), 0);
    assert_int_equal(spool_path(&p->sp, instance.path, path, &p->e), 0);
}

static void spool__believes_a_row_only_if_its_file_is_what_it_says(void **state)
{
    struct place *p = *state;
    struct spool_swept swept;
    char good[PATH_BYTES], gone[PATH_BYTES], cut[PATH_BYTES], zeros[PATH_BYTES];
    struct stat st;
    stored(p, 1, good);
    stored(p, 2, gone);
    stored(p, 3, cut);
    stored(p, 4, zeros);
    assert_int_equal(unlink(gone), 0);
    assert_int_equal(truncate(cut, 200), 0);
    assert_int_equal(stat(zeros, &st), 0);
    assert_int_equal(truncate(zeros, st.st_size - 2), 0);
    assert_int_equal(truncate(zeros, st.st_size), 0);

    assert_int_equal(spool_sweep(&p->sp, p->s, &swept, &p->e), 0);
    assert_int_equal(swept.rows, 3);
    assert_int_equal(swept.files, 2);
    assert_int_equal(instances_known(p), 1);
    assert_int_equal(access(good, F_OK), 0);
    assert_int_equal(spool_sweep(&p->sp, p->s, &swept, &p->e), 0);
    assert_int_equal(swept.rows + swept.files + swept.folders, 0);
}

static void spool__sweeps_files_without_a_row(void **state)
{
    struct place *p = *state;
    struct spool_swept swept;
    struct store_instance instance;
    char foreign[PATH_BYTES];
    close(incoming(&p->sp, 1, "body", &instance));
    assert_int_equal(file_join(foreign, p->folder, "in/not one of ours", &p->e), 0);
    close(open(foreign, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(spool_sweep(&p->sp, p->s, &swept, &p->e), 0);
    assert_int_equal(swept.files, 2);
    assert_int_equal(entries(p, "in"), 0);
}

/* A job of KEY that `owner` holds. */
static int64_t job_make(struct place *p, const char *owner)
{
    struct store_new_job new = {.key = KEY, .task = "t", .rule = "r", .inputs_count = 1};
    struct store_series series;
    struct store_job job;
    char path[PATH_BYTES];
    size_t n = 0;
    stored(p, 1, path);
    assert_int_equal(store_series_list(p->s, SERIES_RECEIVING, &series, 1, &n, &p->e), 0);
    assert_int_equal(store_series_complete(p->s, series.id, 1, 1, 1, &p->e), 0);
    assert_int_equal(store_series_take(p->s, "plan", 1, 1000, &series, &p->e), 0);
    new.inputs[0] = series.id;
    new.revisions[0] = 1;
    assert_int_equal(store_series_planned(p->s, series.id, 1, &new, 1, "", 2, &n, &p->e), 0);
    assert_int_equal(store_job_lease(p->s, owner, 3, 1000, 3, &job, &p->e), 0);
    return job.id;
}

static void output_write(struct place *p, int number, const char *text)
{
    char folder[PATH_BYTES], path[PATH_BYTES];
    assert_int_equal(spool_work_begin(&p->sp, KEY, number, folder, &p->e), 0);
    assert_int_equal(file_join(path, folder, "0001.dcm", &p->e), 0);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

enum step { BEFORE_PUBLISH, BEFORE_DONE, AFTER_DONE, STEPS };

/* What is in out/ after a worker ended at that step and the node started again. */
static int outputs_after(struct place *p, enum step step)
{
    struct spool_swept swept;
    struct store_recovery back;
    int64_t job = job_make(p, "node/work-1");
    store_close(p->s);
    pid_t pid = fork();
    if (pid == 0) {
        struct store *s;
        if (store_open(&s, p->database, NULL) != 0)
            _exit(1);
        output_write(p, 1, "result");
        if (step >= BEFORE_DONE && spool_work_publish(&p->sp, KEY, 1, NULL) != 0)
            _exit(1);
        if (step >= AFTER_DONE && store_job_done(s, job, "node/work-1", NULL, 0, 1, 4, NULL) != 0)
            _exit(1);
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(store_open(&p->s, p->database, &p->e), 0);
    assert_int_equal(store_recover(p->s, "node/", 5, &back, &p->e), 0);
    assert_int_equal(back.jobs, step < AFTER_DONE);
    assert_int_equal(spool_sweep(&p->sp, p->s, &swept, &p->e), 0);
    assert_int_equal(entries(p, "work"), 0);
    return entries(p, "out");
}

static void spool__drops_outputs_of_a_worker_that_ended_before_it_published_them(void **state)
{
    assert_int_equal(outputs_after(*state, BEFORE_PUBLISH), 0);
}

static void spool__drops_outputs_of_a_worker_that_ended_between_publishing_and_done(void **state)
{
    assert_int_equal(outputs_after(*state, BEFORE_DONE), 0);
}

static void spool__keeps_outputs_of_a_job_that_is_done(void **state)
{
    assert_int_equal(outputs_after(*state, AFTER_DONE), 1);
}

static void spool__repeat_takes_the_place_of_what_an_earlier_attempt_published(void **state)
{
    struct place *p = *state;
    char path[PATH_BYTES], text[16] = "";
    output_write(p, 1, "first");
    assert_int_equal(spool_work_publish(&p->sp, KEY, 1, &p->e), 0);
    output_write(p, 2, "second");
    assert_int_equal(spool_work_publish(&p->sp, KEY, 2, &p->e), 0);
    assert_int_equal(spool_path(&p->sp, "out/" KEY "/0001.dcm", path, &p->e), 0);
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, text, sizeof text), 6);
    close(fd);
    assert_string_equal(text, "second");
    assert_int_equal(entries(p, "work"), 0);
    spool_output_drop(&p->sp, KEY);
    assert_int_equal(entries(p, "out"), 0);
}

#define IN_PLACE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_PLACE(spool__names_come_from_digests_not_from_the_peer),
        IN_PLACE(spool__refuses_paths_that_leave_it),
        IN_PLACE(spool__belongs_to_one_node),
        IN_PLACE(spool__says_when_the_disk_is_too_full),
        IN_PLACE(intake__makes_an_instance_durable_once),
        IN_PLACE(intake__takes_an_instance_again_whose_file_was_lost),
        IN_PLACE(intake__leaves_nothing_of_an_instance_that_cannot_be_entered),
        IN_PLACE(intake__serves_many_at_once_without_losing_or_doubling),
        IN_PLACE(spool__keeps_all_that_was_acknowledged_and_sweeps_the_rest),
        IN_PLACE(spool__believes_a_row_only_if_its_file_is_what_it_says),
        IN_PLACE(spool__sweeps_files_without_a_row),
        IN_PLACE(spool__drops_outputs_of_a_worker_that_ended_before_it_published_them),
        IN_PLACE(spool__drops_outputs_of_a_worker_that_ended_between_publishing_and_done),
        IN_PLACE(spool__keeps_outputs_of_a_job_that_is_done),
        IN_PLACE(spool__repeat_takes_the_place_of_what_an_earlier_attempt_published),
    };
    return cmocka_run_group_tests_name("spool", tests, NULL, NULL);
}
