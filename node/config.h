/*
 * config.h - the one YAML file that says what this node does
 *
 * The members of struct config carry the names of the keys in the file, section by section, so that
 * `limits.associations` in the file is config->limits.associations here. config/spinenode.yaml
 * explains every key. A configuration that loaded is complete (every absent key has its default),
 * consistent (names resolve, ranges hold) and never changes: a reload makes a new one.
 *
 * Refused, always with file, line and key and what was expected there: unknown or repeated keys,
 * wrong types, values out of range, names that do not resolve, YAML aliases, more than one
 * document.
 *
 * Texts are never NULL: "" stands for "not given". Lists have <name>_count entries.
 */
#ifndef SPINENODE_CONFIG_H
#define SPINENODE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

struct buf;
struct err;
struct recognise_options;
struct tls_config;
struct transport;

/* Largest configuration file, and most entries in any of its lists. */
#define CONFIG_FILE_MAX (1024 * 1024)
#define CONFIG_LIST_MAX 256

/* Longest AE title (PS3.5 table 6.2-1). */
#define CONFIG_AE_MAX 16

enum config_result {
    CONFIG_RESULT_SECONDARY_CAPTURE, /* one Secondary Capture Image per source slice */
    CONFIG_RESULT_MR_IMAGE,          /* one derived MR Image per source slice; MR to MR only */
};

/* The most that the quality gate may do; the order is that of enum quality_outcome. */
enum config_quality {
    CONFIG_QUALITY_PASS,
    CONFIG_QUALITY_MARK,
    CONFIG_QUALITY_REFUSE,
    CONFIG_QUALITY_DEFAULT /* in a rule: as in the section quality */
};

enum config_isa { CONFIG_ISA_AUTO, CONFIG_ISA_BASE, CONFIG_ISA_AVX2, CONFIG_ISA_AVX512 };

enum config_precision { CONFIG_PRECISION_F16, CONFIG_PRECISION_TF32, CONFIG_PRECISION_F32 };

/* What goes on when the GPU does not: CONFIG_FALLBACK_AUTO is the CPU if engine.name is auto. */
enum config_fallback { CONFIG_FALLBACK_AUTO, CONFIG_FALLBACK_CPU, CONFIG_FALLBACK_NONE };

enum config_clients { CONFIG_CLIENTS_REQUIRED, CONFIG_CLIENTS_OPTIONAL, CONFIG_CLIENTS_NONE };

/* TLS of the listener; without a certificate it speaks plain DICOM. PEM files, absolute paths. */
struct config_listener_tls {
    char *certificate;           /* ours, then the chain; "" = no TLS */
    char *key;                   /* not encrypted, not readable for everybody */
    char *authorities;           /* whose certificates callers may show */
    enum config_clients clients; /* must they show one? */
};

/* TLS towards a destination; without authorities it is plain DICOM. PEM files, absolute paths. */
struct config_destination_tls {
    char *authorities; /* whose certificate it may show; "" = no TLS */
    char *certificate; /* that we show; "" = none */
    char *key;
    char *peer_name; /* that its certificate is made out to; "" = host */
};

/* Who we are and where our data lies. Paths are absolute once loaded (relative ones in the file are
 * taken from the folder that the file is in). */
struct config_node {
    char *ae_title;
    char *bind; /* numeric address, IPv4 or IPv6 */
    int32_t port;
    struct config_listener_tls tls;
    char *spool;                 /* folder */
    char *database;              /* SQLite file */
    char *site_salt;             /* goes into every UID that we make */
    char *log_level;             /* debug | info | warning | error */
    char *content_qualification; /* PRODUCT | RESEARCH | SERVICE, into (0018,9004) */
};

/* A peer that may open an association to us. Without callers nobody may. */
struct config_caller {
    char *ae_title;
    char **addresses; /* it calls from one of these: network_parse(); at least one */
    uint32_t addresses_count;
};

struct config_retry {
    int32_t first_ms;   /* wait after the first transient failure; doubles each time */
    int32_t longest_ms; /* cap of the wait */
    int32_t attempts;   /* give up after so many; 0 = never */
};

/* A peer to which results are sent. */
struct config_destination {
    char *name; /* how rules call it */
    char *ae_title;
    char *host;
    int32_t port;
    struct config_destination_tls tls;
    bool commitment;    /* ask for storage commitment of what was sent */
    int32_t timeout_ms; /* connect, and every single answer */
    struct config_retry retry;
};

/* Inclusive; 0 = no bound. */
struct config_range {
    int32_t min;
    int32_t max;
};

/* True for a series if the tag's value (of any of its values, when it has several) matches one of
 * `is` (empty: anything, even absent) and none of `is_not`. Wildcards * and ?, case ignored. */
struct config_tag_match {
    char *tag; /* keyword or (gggg,eeee) */
    char **is;
    uint32_t is_count;
    char **is_not;
    uint32_t is_not_count;
};

/* All that is given must hold; an empty list or range is not given. */
struct config_match {
    char **contrast; /* T1 T2 STIR TIRM XR, as recognised */
    uint32_t contrast_count;
    char **plane; /* sagittal axial coronal oblique lateral frontal */
    uint32_t plane_count;
    char **body_part; /* wildcards; CSPINE TSPINE LSPINE SPINE … as recognised */
    uint32_t body_part_count;
    struct config_range slices;
    struct config_range rows;
    struct config_range columns;
    struct config_tag_match *tags;
    uint32_t tags_count;
};

struct config_rule {
    char *name;
    struct config_match match;
    char *task;  /* one of model/package.h; the newest model in the folder that does it is taken */
    char *model; /* file name in the models folder; "" = by task. Both given: must agree */
    char *assume_contrast; /* the admin's word above physics; "" = recognise */
    bool optional;         /* no such model in the folder: the rule is passed over; else an error */
    char **destinations;
    uint32_t destinations_count;
    enum config_result result;
    enum config_quality quality; /* for input and result */
    char *description;           /* goes after "SYNTH AI " in SeriesDescription; "" = by the task */
};

/* When is a series complete? After the association ended and quiet_ms passed, or earlier when the
 * PACS named by ask_pacs counts as many instances as we have. */
struct config_completeness {
    int32_t quiet_ms;
    char *ask_pacs;      /* a destination's name; "" = do not ask */
    int32_t ask_ms;      /* between two questions */
    int32_t max_wait_ms; /* go on with what is there, whatever is still missing */
};

struct config_limits {
    int32_t associations;      /* at once; more are rejected as "local limit exceeded" */
    int32_t negotiation_ms;    /* for a new connection to become an association */
    int32_t idle_ms;           /* an association without traffic is ended */
    int64_t instance_bytes;    /* one data set */
    int32_t slices;            /* instances in one series that is to be processed */
    int32_t rows;              /* rows or columns of one image */
    int32_t queue;             /* series that wait to be processed; more: 0xA700 */
    int64_t disk_free_bytes;   /* less free where the spool is: 0xA700 */
    int32_t disk_free_percent; /* likewise */
};

/* The physics by which a series is recognised: the members of struct recognise_options
 * (dicom/recognise.h) that an admin may set, under their names there. */
struct config_recognition {
    double t1_max_tr_ms, t1_max_te_ms;
    double t2_min_tr_ms, t2_min_te_ms;
    double pd_min_tr_ms, pd_max_te_ms;
    double stir_min_ti_ms, stir_max_ti_ms, stir_min_tr_ms;
    double t1_flair_min_ti_ms, t1_flair_max_ti_ms;
    double plane_min_cosine;
    bool allow_3d;
    bool allow_body_part_by_name;
    bool allow_unknown_body_part;
};

struct config_engine {
    char *name;      /* auto | ref | cpu | cuda */
    int32_t threads; /* 0 = all that this process may use */
    enum config_isa isa;
    bool low_memory;
    /* The GPU's: */
    char **devices; /* index or UUID; worker n has the n-th, and again from the first; none: the
                       first GPU */
    uint32_t devices_count;
    enum config_precision precision;
    int32_t batch; /* images at once, at most; 0 (never from a file): 8 */
    char *cache;   /* folder for tuned plans, "" = they are tuned at each start */
    enum config_fallback fallback;
    bool crosscheck; /* the first result of a model on a GPU is held against the CPU's */
};

struct config_work {
    int32_t workers;
    int32_t lease_ms;    /* a job whose worker is silent for so long goes back */
    int32_t crashes_max; /* a job that killed so many workers is set aside */
};

struct config_gate {
    enum config_quality input;        /* a series that the model was not made for */
    enum config_quality result;       /* a result that is not consistent with its series */
    enum config_quality uncalibrated; /* results of a model that carries no limits */
};

/* How long what came to its end stays here (store_purge_next()); 0 = for ever. */
struct config_retention {
    int64_t done_ms;   /* done and delivered, or refused */
    int64_t failed_ms; /* a job or a delivery of it failed, or was cancelled or set aside */
};

struct config_http {
    char *bind;
    int32_t port; /* 0 = no HTTP */
};

struct config_models {
    char *folder;
};

struct config {
    struct config_node node;
    struct config_models models;
    struct config_caller *callers;
    uint32_t callers_count;
    struct config_destination *destinations;
    uint32_t destinations_count;
    struct config_rule *rules;
    uint32_t rules_count;
    struct config_completeness completeness;
    struct config_recognition recognition;
    struct config_engine engine;
    struct config_work work;
    struct config_gate quality;
    struct config_limits limits;
    struct config_retention retention;
    struct config_http http;
    char *path; /* the file that it came from, absolute; not a key */
};

/* Reads and checks the file. On success *out is to be freed with config_free(). On failure *out is
 * left alone and e says "FILE:LINE: KEY: …" (ERR_CONFIG; ERR_IO, ERR_NOT_FOUND, ERR_LIMIT for the
 * file itself). Not for several threads at once (libcyaml logs through one function). */
int config_load(const char *path, struct config **out, struct err *e);

/* The same for a node that is to run: reads the files for TLS, too, which others than the node need
 * not be able to. *transport is to be freed before the configuration. */
int config_load_to_run(const char *path, struct config **out, struct transport **transport,
                       struct err *e);

/* NULL is fine. */
void config_free(struct config *c);

/* Adds the effective configuration, every key with its value, as YAML that loads as the same. */
int config_dump(const struct config *c, struct buf *out, struct err *e);

/* The site's thresholds for recognise(). Nothing in *out points into c. */
void config_recognise_options(const struct config *c, struct recognise_options *out);

/* What dicom/tls.h wants to know; false: no TLS there. Texts are borrowed. */
bool config_listener_tls(const struct config *c, struct tls_config *out);
bool config_destination_tls(const struct config_destination *d, struct tls_config *out);

/* The destination of that name, or NULL. Borrowed from c. */
const struct config_destination *config_destination_find(const struct config *c, const char *name);

#endif
