/*
 * synthesise.h - series in, synthetic series out: the one place where a series becomes a tensor
 *
 * Reads the pixels of a series, normalises them as the model wants, runs the model slice by slice,
 * and writes one DICOM object for each slice. Used by the node's worker and by `spinenode infer`,
 * so both give the same result. The same series, model and parameters give the same files.
 *
 * Refused (ERR_REFUSED), with the reason: a series that is not sound, of another contrast, spacing
 * or size than the model was made for; what the quality gate (model/quality.h) refuses, of input or
 * result, as far as it may. ERR_NUMERIC: a value that is not finite, in the series or in the
 * result. ERR_DEVICE: the GPU failed, or its first result of a model is not the CPU's
 * (node/crosscheck.h) and the CPU must not take over. A failed call leaves no file behind.
 */
#ifndef SPINENODE_SYNTHESISE_H
#define SPINENODE_SYNTHESISE_H

#include <stdbool.h>
#include <stdint.h>

#include "dicom/secondary.h"
#include "model/engine.h"
#include "model/package.h"
#include "node/base/digest.h"
#include "node/base/err.h"
#include "node/base/file.h"
#include "model/quality.h"

struct config_engine;
struct config_gate;
struct package;
struct recognition;
struct series;

/* Most values of all slices of a series together, source and result each (1 GiB of floats). */
#define SYNTHESISE_VALUES_MAX (INT64_C(1) << 28)

/* A worker's: the engine, and the models that it ran last, compiled. One thread at a time. */
struct synthesiser;

/* engine->name "auto" is the fastest engine that there is. number: of the worker, from 1, by which
 * it takes its GPU from engine->devices; 0: the first. engine is borrowed for as long as the
 * synthesiser lives. ERR_UNSUPPORTED: not in this build, or no such instruction set here;
 * ERR_DEVICE: no GPU, and engine->fallback is not the CPU. */
int synthesiser_new(const struct config_engine *engine, int number, struct synthesiser **out,
                    struct err *e);
void synthesiser_free(struct synthesiser *s); /* NULL is fine */

/* Hands over the model of a path, opened, so that synthesise() need not open it if it is asked for
 * the same path and digest: by who reads it while the series is read. Taken; one before it goes. */
void synthesiser_give(struct synthesiser *s, const char *path, const char *digest,
                      struct package *package);

/* Between jobs: lets the models that stay settle, see engine_plan_settle(). */
void synthesiser_settle(struct synthesiser *s);

/* May the CPU stand in for the GPU? NULL: no. */
bool synthesiser_may_fall_back(const struct synthesiser *s);

/* Called after each step with how many of how many are done; a slice has two, computed and written
 * (a few are written before it is called for each of them). Always by the thread that called
 * synthesise(). Anything but 0 stops the work: ERR_CANCELLED. */
typedef int synthesise_progress(void *closure, unsigned done, unsigned total);

/* Asked again and again while a slice is computed, by any thread: true stops the work, too. */
typedef bool synthesise_stop(void *closure);

/* All texts borrowed for the call. */
struct synthesis {
    const struct series *series;
    const char *contrast;     /* what the series was recognised (or said) to be: "T2" */
    const char *model_path;   /* model file */
    const char *model_digest; /* SHA-256 that it must have; NULL: whatever it has */
    const char *key;          /* the job's, by synthesise_key() */
    enum secondary_type type;
    const char *description;           /* "" or NULL: by the task */
    const char *qualification;         /* "" or NULL: RESEARCH */
    const char *salt;                  /* the site's, "" for none */
    const char *created;               /* "YYYYMMDDhhmmss" of the job, not of the clock */
    unsigned series_number;            /* k in source Series Number × 100 + k; 0: by the task */
    const struct config_gate *quality; /* what the gate may do; NULL: nothing, it is not asked */
    const char *maps; /* NULL, or a folder that gets as many files: how far the model disagrees with
                         itself (gate_map()), a series of its own */
    const char *folder;            /* exists; gets 0001.dcm, 0002.dcm … in slice order */
    bool by_fallback;              /* take the CPU for this one, if engine->fallback allows it */
    synthesise_progress *progress; /* may be NULL */
    synthesise_stop *stop;         /* may be NULL */
    void *closure;
};

struct synthesis_output {
    char file[16]; /* name in the folder */
    char sop_class_uid[UID_BYTES];
    char sop_instance_uid[UID_BYTES];
    char source_sop_instance_uid[UID_BYTES];
};

struct synthesis_result {
    struct synthesis_output *output; /* one for each slice, in slice order */
    unsigned count;
    char series_uid[UID_BYTES];
    char engine[128];                   /* what ran: "cpu avx2, 2 threads" */
    const char *engine_name;            /* "cpu", "cuda", "ref"; static */
    bool fell_back;                     /* it was not the one that the configuration names */
    char fallback_reason[ERR_TEXT_MAX]; /* why; "": the caller asked for it */
    unsigned batch;                     /* images that the engine takes at once */
    struct engine_tuned tuned;          /* while compiling; none when was_compiled */
    char model_digest[DIGEST_HEX];
    bool was_compiled;                    /* the model was still there from the last job */
    double load_ms, compile_ms;           /* 0 when was_compiled */
    enum quality_outcome outcome;         /* QUALITY_PASS or QUALITY_MARK */
    char doubt[ERR_TEXT_MAX];             /* why it was marked; "" */
    struct quality_report input, quality; /* what was found, whatever the gate may do */
    char map_series_uid[UID_BYTES];       /* "" without maps */
    double gate_ms;                       /* all that the gate took */
    /* All slices: pixels with percentiles, model, files. Pixels are read while the model is: their
     * times overlap. */
    double read_ms, run_ms, write_ms;
};

/* Does it. The files are fsync'd, and the folder. On success *out is to be given to
 * synthesis_result_fini(). Errors: see above; those of package_open() and engine_compile() (with
 * the model's path), of series_pixels() and secondary_write(); ERR_LIMIT; ERR_REFUSED when the
 * model file is not the one that model_digest names. */
int synthesise(struct synthesiser *s, const struct synthesis *what, struct synthesis_result *out,
               struct err *e);
void synthesis_result_fini(struct synthesis_result *r);

/* May this model see this series? 0, or ERR_REFUSED with the reason. facts->graph may be NULL. */
int synthesise_fits(const struct package *facts, const struct series *series, const char *contrast,
                    struct err *e);

/* The key of a job: SHA-256 over the SOP Instance UIDs of the series in slice order, task, model
 * digest and parameters. The same work asked twice has one key, whoever asks. */
int synthesise_key(const struct series *series, const char *task, const char *model_digest,
                   const char *parameters, char out[DIGEST_HEX], struct err *e);

#endif
