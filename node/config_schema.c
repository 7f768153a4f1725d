/* config_schema.c - the tables: every key of the configuration, its type, default and bounds */
#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

#include "node/base/log.h"

#include "dicom/dataset.h"
#include "model/package.h"
#include "node/config.h"
#include "node/config_schema.h"

/* Longest text that any key may hold, in bytes. */
#define TEXT_MAX 1000

/* Series Description (LO) holds 64 characters; "SYNTH AI " stands before ours. */
#define DESCRIPTION_MAX (64 - 9)

/* libcyaml takes every word that it does not know for true, so booleans are read as words. */
static const cyaml_strval_t yes_no[] = {{"yes", 1}, {"no", 0}, {"true", 1}, {"false", 0}};
static const cyaml_strval_t results[] = {
    {"secondary-capture", CONFIG_RESULT_SECONDARY_CAPTURE},
    {"mr-image", CONFIG_RESULT_MR_IMAGE},
};
static const cyaml_strval_t clients[] = {
    {"required", CONFIG_CLIENTS_REQUIRED},
    {"optional", CONFIG_CLIENTS_OPTIONAL},
    {"none", CONFIG_CLIENTS_NONE},
};
static const cyaml_strval_t isas[] = {
    {"auto", CONFIG_ISA_AUTO},
    {"base", CONFIG_ISA_BASE},
    {"avx2", CONFIG_ISA_AVX2},
    {"avx512", CONFIG_ISA_AVX512},
};
static const cyaml_strval_t precisions[] = {
    {"f16", CONFIG_PRECISION_F16},
    {"tf32", CONFIG_PRECISION_TF32},
    {"f32", CONFIG_PRECISION_F32},
};
static const cyaml_strval_t fallbacks[] = {
    {"auto", CONFIG_FALLBACK_AUTO},
    {"cpu", CONFIG_FALLBACK_CPU},
    {"none", CONFIG_FALLBACK_NONE},
};

static const cyaml_strval_t qualities[] = {
    {"pass", CONFIG_QUALITY_PASS},
    {"mark", CONFIG_QUALITY_MARK},
    {"refuse", CONFIG_QUALITY_REFUSE},
};
static const cyaml_strval_t rule_qualities[] = {
    {"default", CONFIG_QUALITY_DEFAULT},
    {"pass", CONFIG_QUALITY_PASS},
    {"mark", CONFIG_QUALITY_MARK},
    {"refuse", CONFIG_QUALITY_REFUSE},
};

/* Every field may be absent for libcyaml: config_yaml.c has put in what was. */
#define OPT          CYAML_FLAG_OPTIONAL
#define TEXT(S, key) CYAML_FIELD_STRING_PTR(#key, CYAML_FLAG_POINTER | OPT, S, key, 0, TEXT_MAX)
#define INT(S, key)  CYAML_FIELD_INT(#key, OPT, S, key)
#define REAL(S, key) CYAML_FIELD_FLOAT(#key, OPT, S, key)
#define WORD(S, key, words)                                                                        \
    CYAML_FIELD_ENUM(#key, OPT | CYAML_FLAG_STRICT, S, key, words, CYAML_ARRAY_LEN(words))
#define YES_NO(S, key)      WORD(S, key, yes_no)
#define PART(S, key, parts) CYAML_FIELD_MAPPING(#key, OPT, S, key, parts)
#define LIST(S, key, entry)                                                                        \
    CYAML_FIELD_SEQUENCE(#key, CYAML_FLAG_POINTER | OPT, S, key, &(entry), 0, CONFIG_LIST_MAX)
/* Lists of words, and ranges, read better in one line. */
#define WORDS(S, key)                                                                              \
    CYAML_FIELD_SEQUENCE(#key, CYAML_FLAG_POINTER | CYAML_FLAG_FLOW | OPT, S, key, &word_entry, 0, \
                         CONFIG_LIST_MAX)
#define RANGE(S, key) CYAML_FIELD_MAPPING(#key, CYAML_FLAG_FLOW | OPT, S, key, range_keys)

static const cyaml_schema_value_t word_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, TEXT_MAX),
};

static const cyaml_schema_field_t listener_tls_keys[] = {
    TEXT(struct config_listener_tls, certificate),
    TEXT(struct config_listener_tls, key),
    TEXT(struct config_listener_tls, authorities),
    WORD(struct config_listener_tls, clients, clients),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t node_keys[] = {
    TEXT(struct config_node, ae_title),
    TEXT(struct config_node, bind),
    INT(struct config_node, port),
    PART(struct config_node, tls, listener_tls_keys),
    TEXT(struct config_node, spool),
    TEXT(struct config_node, database),
    TEXT(struct config_node, site_salt),
    TEXT(struct config_node, log_level),
    TEXT(struct config_node, content_qualification),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t models_keys[] = {
    TEXT(struct config_models, folder),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t caller_keys[] = {
    TEXT(struct config_caller, ae_title),
    WORDS(struct config_caller, addresses),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t caller_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_caller, caller_keys),
};

static const cyaml_schema_field_t retry_keys[] = {
    INT(struct config_retry, first_ms),
    INT(struct config_retry, longest_ms),
    INT(struct config_retry, attempts),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t destination_tls_keys[] = {
    TEXT(struct config_destination_tls, authorities),
    TEXT(struct config_destination_tls, certificate),
    TEXT(struct config_destination_tls, key),
    TEXT(struct config_destination_tls, peer_name),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t destination_keys[] = {
    TEXT(struct config_destination, name),
    TEXT(struct config_destination, ae_title),
    TEXT(struct config_destination, host),
    INT(struct config_destination, port),
    PART(struct config_destination, tls, destination_tls_keys),
    YES_NO(struct config_destination, commitment),
    INT(struct config_destination, timeout_ms),
    PART(struct config_destination, retry, retry_keys),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t destination_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_destination, destination_keys),
};

static const cyaml_schema_field_t range_keys[] = {
    INT(struct config_range, min),
    INT(struct config_range, max),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t tag_keys[] = {
    TEXT(struct config_tag_match, tag),
    WORDS(struct config_tag_match, is),
    WORDS(struct config_tag_match, is_not),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t tag_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_tag_match, tag_keys),
};

static const cyaml_schema_field_t match_keys[] = {
    WORDS(struct config_match, contrast),       WORDS(struct config_match, plane),
    WORDS(struct config_match, body_part),      RANGE(struct config_match, slices),
    RANGE(struct config_match, rows),           RANGE(struct config_match, columns),
    LIST(struct config_match, tags, tag_entry), CYAML_FIELD_END,
};

static const cyaml_schema_field_t rule_keys[] = {
    TEXT(struct config_rule, name),
    PART(struct config_rule, match, match_keys),
    TEXT(struct config_rule, task),
    TEXT(struct config_rule, model),
    TEXT(struct config_rule, assume_contrast),
    YES_NO(struct config_rule, optional),
    WORDS(struct config_rule, destinations),
    WORD(struct config_rule, result, results),
    WORD(struct config_rule, quality, rule_qualities),
    TEXT(struct config_rule, description),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t rule_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_rule, rule_keys),
};

static const cyaml_schema_field_t completeness_keys[] = {
    INT(struct config_completeness, quiet_ms),
    TEXT(struct config_completeness, ask_pacs),
    INT(struct config_completeness, ask_ms),
    INT(struct config_completeness, max_wait_ms),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t recognition_keys[] = {
    REAL(struct config_recognition, t1_max_tr_ms),
    REAL(struct config_recognition, t1_max_te_ms),
    REAL(struct config_recognition, t2_min_tr_ms),
    REAL(struct config_recognition, t2_min_te_ms),
    REAL(struct config_recognition, pd_min_tr_ms),
    REAL(struct config_recognition, pd_max_te_ms),
    REAL(struct config_recognition, stir_min_ti_ms),
    REAL(struct config_recognition, stir_max_ti_ms),
    REAL(struct config_recognition, stir_min_tr_ms),
    REAL(struct config_recognition, t1_flair_min_ti_ms),
    REAL(struct config_recognition, t1_flair_max_ti_ms),
    REAL(struct config_recognition, plane_min_cosine),
    YES_NO(struct config_recognition, allow_3d),
    YES_NO(struct config_recognition, allow_body_part_by_name),
    YES_NO(struct config_recognition, allow_unknown_body_part),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t engine_keys[] = {
    TEXT(struct config_engine, name),
    INT(struct config_engine, threads),
    WORD(struct config_engine, isa, isas),
    YES_NO(struct config_engine, low_memory),
    WORDS(struct config_engine, devices),
    WORD(struct config_engine, precision, precisions),
    INT(struct config_engine, batch),
    TEXT(struct config_engine, cache),
    WORD(struct config_engine, fallback, fallbacks),
    YES_NO(struct config_engine, crosscheck),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t work_keys[] = {
    INT(struct config_work, workers),
    INT(struct config_work, lease_ms),
    INT(struct config_work, crashes_max),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t quality_keys[] = {
    WORD(struct config_gate, input, qualities),
    WORD(struct config_gate, result, qualities),
    WORD(struct config_gate, uncalibrated, qualities),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t limits_keys[] = {
    INT(struct config_limits, associations),
    INT(struct config_limits, negotiation_ms),
    INT(struct config_limits, idle_ms),
    INT(struct config_limits, instance_bytes),
    INT(struct config_limits, slices),
    INT(struct config_limits, rows),
    INT(struct config_limits, queue),
    INT(struct config_limits, disk_free_bytes),
    INT(struct config_limits, disk_free_percent),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t retention_keys[] = {
    INT(struct config_retention, done_ms),
    INT(struct config_retention, failed_ms),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t http_keys[] = {
    TEXT(struct config_http, bind),
    INT(struct config_http, port),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t all_keys[] = {
    PART(struct config, node, node_keys),
    PART(struct config, models, models_keys),
    LIST(struct config, callers, caller_entry),
    LIST(struct config, destinations, destination_entry),
    LIST(struct config, rules, rule_entry),
    PART(struct config, completeness, completeness_keys),
    PART(struct config, recognition, recognition_keys),
    PART(struct config, engine, engine_keys),
    PART(struct config, work, work_keys),
    PART(struct config, quality, quality_keys),
    PART(struct config, limits, limits_keys),
    PART(struct config, retention, retention_keys),
    PART(struct config, http, http_keys),
    CYAML_FIELD_END,
};
const cyaml_schema_value_t config_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config, all_keys),
};

/* ---- what texts may be ---- */

static bool is_plain(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    }
    return true;
}

/* PS3.5 6.2, AE: default repertoire without backslash and control characters, blanks around it
 * without meaning (so none are taken here). */
static bool is_ae_title(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || n > CONFIG_AE_MAX || text[0] == ' ' || text[n - 1] == ' ')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < 0x20 || *text > 0x7e || *text == '\\')
            return false;
    }
    return true;
}

static bool is_address(const char *text)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

static bool is_host(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || n > 253)
        return false;
    return is_address(text) ||
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == n;
}

static bool is_host_or_none(const char *text)
{
    return *text == '\0' || is_host(text);
}

/* Names stand in logs, metrics and the database: nothing that needs quoting there. */
static bool is_name(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || n > 63)
        return false;
    for (; *text != '\0'; text++) {
        if (!isalnum((unsigned char)*text) && strchr("-_.", *text) == NULL)
            return false;
    }
    return true;
}

static bool is_name_or_none(const char *text)
{
    return *text == '\0' || is_name(text);
}

static bool is_path(const char *text)
{
    return *text != '\0' && is_plain(text);
}

static bool is_path_or_none(const char *text)
{
    return is_plain(text);
}

static bool is_salt(const char *text)
{
    return is_plain(text) && strlen(text) <= 128;
}

static bool is_log_level(const char *text)
{
    return log_level_parse(text) >= 0;
}

static bool is_qualification(const char *text)
{
    return strcmp(text, "PRODUCT") == 0 || strcmp(text, "RESEARCH") == 0 ||
           strcmp(text, "SERVICE") == 0;
}

static bool is_contrast(const char *text)
{
    for (int c = 0; c < MODEL_CONTRAST_COUNT; c++) {
        if (strcmp(text, model_contrast_name((enum model_contrast)c)) == 0)
            return true;
    }
    return false;
}

static bool is_contrast_or_none(const char *text)
{
    return *text == '\0' || is_contrast(text);
}

static bool is_plane(const char *text)
{
    static const char *const planes[] = {"sagittal", "axial",   "coronal",
                                         "oblique",  "lateral", "frontal"};
    for (size_t i = 0; i < sizeof planes / sizeof *planes; i++) {
        if (strcmp(text, planes[i]) == 0)
            return true;
    }
    return false;
}

static bool is_pattern(const char *text)
{
    return *text != '\0' && is_plain(text);
}

static bool is_value_pattern(const char *text)
{
    return is_plain(text);
}

static bool is_tag(const char *text)
{
    uint32_t tag;
    return tag_from_text(text, &tag);
}

static bool is_task_or_none(const char *text)
{
    return *text == '\0' || model_task_parse(text) >= 0;
}

static bool is_file_name_or_none(const char *text)
{
    return strlen(text) <= 255 && is_plain(text) && strchr(text, '/') == NULL && text[0] != '.';
}

static bool is_description(const char *text)
{
    return strlen(text) <= DESCRIPTION_MAX && is_plain(text) && strchr(text, '\\') == NULL;
}

/* "0", "GPU-6d3a…" */
static bool is_device(const char *text)
{
    size_t n = strlen(text);
    bool number = n > 0 && n <= 3 && text[strspn(text, "0123456789")] == '\0';
    return number || (strncmp(text, "GPU-", 4) == 0 && n > 4 && n <= 40 &&
                      text[4 + strspn(text + 4, "0123456789abcdef-")] == '\0');
}

static bool is_engine(const char *text)
{
    return strcmp(text, "auto") == 0 || strcmp(text, "ref") == 0 || strcmp(text, "cpu") == 0 ||
           strcmp(text, "cuda") == 0;
}

/* ---- settings ---- */

#define AE_EXPECTED                                                                                \
    "an AE title: 1 to 16 printable ASCII characters, no backslash, no blanks around it"
#define NAME_EXPECTED    "a name of 1 to 63 letters, digits, '-', '_' or '.'"
#define ADDRESS_EXPECTED "a numeric IPv4 or IPv6 address"
#define FILE_EXPECTED    "the path of a PEM file, or \"\""
#define PLANE_EXPECTED   "sagittal, axial, coronal, oblique, lateral or frontal"
#define DAY_MS           86400000.0
#define TEN_SECONDS_MS   10000.0

static const struct config_setting settings[] = {
    {"node.ae_title", "SPINENODE", 0, 0, is_ae_title, AE_EXPECTED},
    {"node.bind", "0.0.0.0", 0, 0, is_address, ADDRESS_EXPECTED},
    {"node.port", "11112", 1, 65535, NULL, NULL},
    {"node.tls.certificate", "", 0, 0, is_path_or_none, FILE_EXPECTED},
    {"node.tls.key", "", 0, 0, is_path_or_none, FILE_EXPECTED},
    {"node.tls.authorities", "", 0, 0, is_path_or_none, FILE_EXPECTED},
    {"node.tls.clients", "required", 0, 0, NULL, NULL},
    {"node.spool", "/var/lib/spinenode/spool", 0, 0, is_path, "the path of a folder"},
    {"node.database", "/var/lib/spinenode/spinenode.db", 0, 0, is_path, "the path of a file"},
    {"node.site_salt", "", 0, 0, is_salt, "a text of at most 128 bytes"},
    {"node.log_level", "info", 0, 0, is_log_level, "debug, info, warning or error"},
    {"node.content_qualification", "RESEARCH", 0, 0, is_qualification,
     "PRODUCT, RESEARCH or SERVICE"},
    {"models.folder", "/usr/share/spinenode/models", 0, 0, is_path, "the path of a folder"},
    {"callers.ae_title", NULL, 0, 0, is_ae_title, AE_EXPECTED},
    {"callers.addresses", NULL, 0, 0, NULL, "a numeric address, a network or any"},
    {"destinations.name", NULL, 0, 0, is_name, NAME_EXPECTED},
    {"destinations.ae_title", NULL, 0, 0, is_ae_title, AE_EXPECTED},
    {"destinations.host", NULL, 0, 0, is_host, "a host name or a numeric address"},
    {"destinations.port", NULL, 1, 65535, NULL, NULL},
    {"destinations.tls.authorities", "", 0, 0, is_path_or_none, FILE_EXPECTED},
    {"destinations.tls.certificate", "", 0, 0, is_path_or_none, FILE_EXPECTED},
    {"destinations.tls.key", "", 0, 0, is_path_or_none, FILE_EXPECTED},
    {"destinations.tls.peer_name", "", 0, 0, is_host_or_none,
     "a host name or a numeric address, or \"\""},
    {"destinations.commitment", "no", 0, 0, NULL, NULL},
    {"destinations.timeout_ms", "30000", 100, DAY_MS, NULL, NULL},
    {"destinations.retry.first_ms", "5000", 10, DAY_MS, NULL, NULL},
    {"destinations.retry.longest_ms", "600000", 10, DAY_MS, NULL, NULL},
    {"destinations.retry.attempts", "0", 0, 1000000, NULL, NULL},
    {"rules.name", NULL, 0, 0, is_name, NAME_EXPECTED},
    {"rules.match.contrast", NULL, 0, 0, is_contrast, "T1, T2, STIR, TIRM or XR"},
    {"rules.match.plane", NULL, 0, 0, is_plane, PLANE_EXPECTED},
    {"rules.match.body_part", NULL, 0, 0, is_pattern, "a body part, perhaps with * and ?"},
    {"rules.match.slices.min", "0", 0, 100000, NULL, NULL},
    {"rules.match.slices.max", "0", 0, 100000, NULL, NULL},
    {"rules.match.rows.min", "0", 0, 100000, NULL, NULL},
    {"rules.match.rows.max", "0", 0, 100000, NULL, NULL},
    {"rules.match.columns.min", "0", 0, 100000, NULL, NULL},
    {"rules.match.columns.max", "0", 0, 100000, NULL, NULL},
    {"rules.match.tags.tag", NULL, 0, 0, is_tag, "a DICOM keyword or (gggg,eeee)"},
    {"rules.match.tags.is", NULL, 0, 0, is_value_pattern, "a value, perhaps with * and ?"},
    {"rules.match.tags.is_not", NULL, 0, 0, is_value_pattern, "a value, perhaps with * and ?"},
    {"rules.task", "", 0, 0, is_task_or_none,
     "super-resolution, t1-to-t2, t2-to-t1, t2-to-stir, t2-to-tirm or xray-to-t2"},
    {"rules.model", "", 0, 0, is_file_name_or_none,
     "the name of a file in the models folder (not a path)"},
    {"rules.assume_contrast", "", 0, 0, is_contrast_or_none, "T1, T2, STIR, TIRM or XR"},
    {"rules.optional", "no", 0, 0, NULL, NULL},
    {"rules.destinations", NULL, 0, 0, is_name, "the name of a destination"},
    {"rules.result", "secondary-capture", 0, 0, NULL, NULL},
    {"rules.quality", "default", 0, 0, NULL, NULL},
    {"rules.description", "", 0, 0, is_description, "a text of at most 55 bytes, no backslash"},
    {"completeness.quiet_ms", "5000", 100, DAY_MS, NULL, NULL},
    {"completeness.ask_pacs", "", 0, 0, is_name_or_none, "the name of a destination, or \"\""},
    {"completeness.ask_ms", "1000", 100, DAY_MS, NULL, NULL},
    {"completeness.max_wait_ms", "600000", 100, DAY_MS, NULL, NULL},
    {"recognition.t1_max_tr_ms", "1000", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.t1_max_te_ms", "30", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.t2_min_tr_ms", "2000", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.t2_min_te_ms", "70", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.pd_min_tr_ms", "1500", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.pd_max_te_ms", "50", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.stir_min_ti_ms", "80", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.stir_max_ti_ms", "260", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.stir_min_tr_ms", "1500", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.t1_flair_min_ti_ms", "600", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.t1_flair_max_ti_ms", "1500", 1, TEN_SECONDS_MS, NULL, NULL},
    {"recognition.plane_min_cosine", "0.8", 0.5, 1, NULL, NULL},
    {"recognition.allow_3d", "no", 0, 0, NULL, NULL},
    {"recognition.allow_body_part_by_name", "no", 0, 0, NULL, NULL},
    {"recognition.allow_unknown_body_part", "no", 0, 0, NULL, NULL},
    {"engine.name", "auto", 0, 0, is_engine, "auto, ref, cpu or cuda"},
    {"engine.threads", "0", 0, 1024, NULL, NULL},
    {"engine.isa", "auto", 0, 0, NULL, NULL},
    {"engine.low_memory", "no", 0, 0, NULL, NULL},
    {"engine.devices", NULL, 0, 0, is_device, "the index or the UUID of a GPU (nvidia-smi -L)"},
    {"engine.precision", "f16", 0, 0, NULL, NULL},
    {"engine.batch", "8", 1, 256, NULL, NULL},
    {"engine.cache", "/var/cache/spinenode", 0, 0, is_path_or_none,
     "the path of a folder, or \"\""},
    {"engine.fallback", "auto", 0, 0, NULL, NULL},
    {"engine.crosscheck", "yes", 0, 0, NULL, NULL},
    {"work.workers", "1", 1, 64, NULL, NULL},
    {"work.lease_ms", "120000", 1000, DAY_MS, NULL, NULL},
    {"work.crashes_max", "3", 1, 100, NULL, NULL},
    {"quality.input", "refuse", 0, 0, NULL, NULL},
    {"quality.result", "refuse", 0, 0, NULL, NULL},
    {"quality.uncalibrated", "pass", 0, 0, NULL, NULL},
    {"limits.associations", "32", 1, 1024, NULL, NULL},
    {"limits.negotiation_ms", "10000", 100, DAY_MS, NULL, NULL},
    {"limits.idle_ms", "60000", 100, DAY_MS, NULL, NULL},
    {"limits.instance_bytes", "536870912", 65536, 4294967296.0, NULL, NULL},
    {"limits.slices", "1000", 1, 10000, NULL, NULL},
    {"limits.rows", "4096", 16, 16384, NULL, NULL},
    {"limits.queue", "1000", 1, 1000000, NULL, NULL},
    {"limits.disk_free_bytes", "1073741824", 0, 1e15, NULL, NULL},
    {"limits.disk_free_percent", "5", 0, 99, NULL, NULL},
    {"retention.done_ms", "259200000", 0, 3660 * DAY_MS, NULL, NULL},
    {"retention.failed_ms", "2592000000", 0, 3660 * DAY_MS, NULL, NULL},
    {"http.bind", "127.0.0.1", 0, 0, is_address, ADDRESS_EXPECTED},
    {"http.port", "8081", 0, 65535, NULL, NULL},
};

const struct config_setting *config_setting_find(const char *path)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        if (strcmp(settings[i].path, path) == 0)
            return &settings[i];
    }
    return NULL;
}

const struct config_setting *config_setting_at(unsigned i)
{
    return i < sizeof settings / sizeof *settings ? &settings[i] : NULL;
}
