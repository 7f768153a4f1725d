/* recognise.c - see recognise.h */
#include "dicom/recognise.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "dicom/series.h"
#include "dicom/series_check.h"
#include "dicom/sop.h"

/* Above this field, fat relaxes so much slower that its nulling TI is a fifth longer. */
#define HIGH_FIELD_TESLA  2.0
#define HIGH_FIELD_FACTOR 1.2

/* Two axes about as far from a projection's normal: neither is the plane. */
#define OBLIQUE_MARGIN 0.05

const struct recognise_options recognise_defaults = {.t1_max_tr_ms = 1000,
                                                     .t1_max_te_ms = 30,
                                                     .t2_min_tr_ms = 2000,
                                                     .t2_min_te_ms = 70,
                                                     .pd_min_tr_ms = 1500,
                                                     .pd_max_te_ms = 50,
                                                     .stir_min_ti_ms = 80,
                                                     .stir_max_ti_ms = 260,
                                                     .stir_min_tr_ms = 1500,
                                                     .t1_flair_min_ti_ms = 600,
                                                     .t1_flair_max_ti_ms = 1500,
                                                     .plane_min_cosine = 0.8};

static const char unknown[] = "unknown";

/* Coded regions and Body Part Examined words that are a spine (PS3.16 Annex L, CID 4031). */
static const struct region {
    const char *sct; /* NULL: a body part word only */
    const char *word;
    const char *body_part;
} regions[] = {
    {"122494005", "CSPINE", "CSPINE"},
    {"122495006", "TSPINE", "TSPINE"},
    {"122496007", "LSPINE", "LSPINE"},
    {"421060004", "SPINE", "SPINE"},
    {"1217253001", "LSSPINE", "LSSPINE"},
    {NULL, "TLSPINE", "TLSPINE"},
    {"297171002", "CTSPINE", "SPINE"},
    {NULL, "CERVICAL SPINE", "CSPINE"},
    {NULL, "THORACIC SPINE", "TSPINE"},
    {NULL, "LUMBAR SPINE", "LSPINE"},
    {NULL, "C_SPINE", "CSPINE"},
    {NULL, "T_SPINE", "TSPINE"},
    {NULL, "L_SPINE", "LSPINE"},
    {NULL, "C SPINE", "CSPINE"},
    {NULL, "T SPINE", "TSPINE"},
    {NULL, "L SPINE", "LSPINE"},
    {NULL, "C-SPINE", "CSPINE"},
    {NULL, "T-SPINE", "TSPINE"},
    {NULL, "L-SPINE", "LSPINE"},
    {NULL, "LUMBAR", "LSPINE"},
    {NULL, "CERVICAL", "CSPINE"},
    {NULL, "THORACIC", "TSPINE"},
    {NULL, "WSPINE", "SPINE"},
    {NULL, "LUMBOSACRAL SPINE", "LSSPINE"},
    {NULL, "TH-SPINE", "TSPINE"},
    {NULL, "THSPINE", "TSPINE"},
};

/* Words of names that mean a spine, English, German, Italian, French, Spanish. */
static const struct spine_word {
    const char *word, *body_part;
} builtin_spine_words[] = {
    {"lspine", "LSPINE"},   {"cspine", "CSPINE"}, {"tspine", "TSPINE"},   {"lumbar", "LSPINE"},
    {"lumbal", "LSPINE"},   {"lws", "LSPINE"},    {"bws", "TSPINE"},      {"hws", "CSPINE"},
    {"spine", "SPINE"},     {"ws", "SPINE"},      {"rachide", "SPINE"},   {"lombare", "LSPINE"},
    {"lombaire", "LSPINE"}, {"rachis", "SPINE"},  {"columna", "SPINE"},   {"cervical", "CSPINE"},
    {"dorsale", "TSPINE"},  {"colonna", "SPINE"}, {"thoracic", "TSPINE"},
};

static void because(struct recognition *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void because(struct recognition *r, const char *format, ...)
{
    if (r->reasons == RECOGNISE_REASONS)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(r->reason[r->reasons++], RECOGNISE_REASON_BYTES, format, args);
    va_end(args);
}

/* The first refusal stands. */
static void refuse(struct recognition *r, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void refuse(struct recognition *r, int code, const char *format, ...)
{
    if (r->refusal.code != 0)
        return;
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err_set(&r->refusal, code, "%s", text);
}

/* Is word one of the values joined by backslashes? With prefix, does a value begin with it? */
static bool has_value(const char *values, const char *word, bool prefix)
{
    size_t n = strlen(word);
    for (const char *p = values; p; p = strchr(p, '\\')) {
        p += *p == '\\';
        while (*p == ' ')
            p++;
        size_t length = strcspn(p, "\\");
        while (length > 0 && p[length - 1] == ' ')
            length--;
        if ((length == n || (prefix && length > n)) && strncmp(p, word, n) == 0)
            return true;
    }
    return false;
}

/* The k-th value (from 1) into out, "" if there is none. */
static void value_at(const char *values, int k, char *out, size_t size)
{
    const char *p = values;
    for (int i = 1; i < k && p; i++) {
        p = strchr(p, '\\');
        p = p ? p + 1 : NULL;
    }
    size_t n = p ? strcspn(p, "\\") : 0;
    n = n < size ? n : size - 1;
    memcpy(out, p ? p : "", n);
    out[n] = '\0';
}

/* Is word (lower case letters) a word of text: letters bound by anything else than letters? */
static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = text; *p; p++) {
        if ((p == text || !isalpha((unsigned char)p[-1])) && strncasecmp(p, word, n) == 0 &&
            !isalpha((unsigned char)p[n]))
            return true;
    }
    return false;
}

/* In which name is one of the words (NULL at the end)? NULL: none. *found: the word. */
static const char *name_with(const struct series_facts *f, const char *const *words,
                             const char **found)
{
    const struct {
        const char *name, *text;
    } names[] = {{"SeriesDescription", f->series_description},
                 {"ProtocolName", f->protocol_name},
                 {"SequenceName", f->sequence_name}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (const char *const *word = words; *word; word++)
            if (has_word(names[i].text, *word)) {
                *found = *word;
                return names[i].name;
            }
    return NULL;
}

/* ---- what must never be processed, whatever it shows ---- */

static void check_synthetic(const struct series_facts *f, struct recognition *r)
{
    char fourth[FACT_BYTES];
    value_at(f->image_type, 4, fourth, sizeof fourth);
    const char *mark = strcmp(f->synthetic_data, "YES") == 0 ? "SyntheticData is YES"
                       : strncmp(fourth, "SYNTH_", 6) == 0   ? "ImageType says SYNTH"
                       : f->has_synthesizer ? "contributing equipment (109100,DCM) synthesized it"
                                            : NULL;
    if (!mark)
        return;
    because(r, "synthetic: %s", mark);
    refuse(r, ERR_REFUSED, "synthetic image (%s): a model's result is never processed again", mark);
}

static void check_class(const struct series *s, struct recognition *r)
{
    const char *uid = s->sop_class_uid;
    if (strcmp(uid, SOP_MR) == 0) {
        r->kind = "mr";
    } else if (strcmp(uid, SOP_CR) == 0 || strcmp(uid, SOP_DX_PRESENTATION) == 0) {
        r->kind = "xray";
    } else if (strcmp(uid, SOP_DX_PROCESSING) == 0) {
        r->kind = "xray";
        refuse(r, ERR_UNSUPPORTED,
               "DX For Processing: only images For Presentation are supported; route those");
    } else if (strcmp(uid, SOP_ENHANCED_MR) == 0 || strncmp(uid, SOP_MR ".", sizeof SOP_MR) == 0) {
        r->kind = "mr";
        refuse(r, ERR_UNSUPPORTED,
               "Enhanced (multi-frame) MR is not supported yet: let the scanner or PACS send "
               "classic MR images");
    } else if (strncmp(uid, SOP_SECONDARY_CAPTURE, strlen(SOP_SECONDARY_CAPTURE)) == 0) {
        refuse(r, ERR_REFUSED, "secondary capture: not an acquisition of a scanner");
    } else {
        refuse(r, ERR_UNSUPPORTED, "SOP class %s is none that is processed (MR, CR, DX)",
               uid[0] ? uid : "missing");
    }
    because(r, "%s: SOP class %s", r->kind, uid);
}

/* An x-ray For Presentation is derived from one For Processing (PS3.3 C.8.11.3.1.1), and values
 * behind the second of its Image Type are not those of MR. */
static void check_kind_of_image(const struct series_facts *f, struct recognition *r)
{
    bool xray = strcmp(r->kind, "xray") == 0;
    static const char *const localizer_words[] = {"localizer", "localiser", "scout", "survey",
                                                  "loc",       "topogram",  NULL};
    static const char *const dixon_values[] = {"W",     "F",         "IP",           "OP",
                                               "WATER", "FAT",       "IN_PHASE",     "OUT_PHASE",
                                               "DIXON", "OPP_PHASE", "FAT_FRACTION", NULL};
    const char *word = NULL, *where = name_with(f, localizer_words, &word);
    if (has_value(f->image_type, "LOCALIZER", true) || has_value(f->image_type, "SCOUT", true)) {
        because(r, "localizer: ImageType");
        refuse(r, ERR_REFUSED, "localizer (ImageType)");
    } else if (where) {
        because(r, "localizer: \"%s\" in %s", word, where);
        refuse(r, ERR_REFUSED, "localizer (\"%s\" in %s)", word, where);
    }
    for (const char *const *value = dixon_values; !xray && *value; value++)
        if (has_value(f->image_type, *value, false)) {
            because(r, "Dixon: ImageType has %s", *value);
            refuse(r, ERR_REFUSED, "Dixon image (ImageType has %s)", *value);
        }
    if ((!xray && has_value(f->image_type, "DERIVED", false)) ||
        has_value(f->image_type, "MPR", true) ||
        has_value(f->image_type, "PROJECTION IMAGE", true)) {
        because(r, "derived: ImageType");
        refuse(r, ERR_REFUSED,
               "derived image (ImageType has DERIVED, MPR or PROJECTION IMAGE): not as acquired");
    }
    if (has_value(f->image_type, "SECONDARY", false))
        refuse(r, ERR_REFUSED, "secondary image (ImageType): not as acquired");
    if ((!xray && has_value(f->image_type, "P", false)) || has_value(f->image_type, "PHASE", true))
        refuse(r, ERR_REFUSED, "phase image (ImageType): not a magnitude image");
}

static void check_contrast_agent(const struct series_facts *f, struct recognition *r)
{
    static const char *const words[] = {"gd", "gad", "postcontrast", "km", "mdc", NULL};
    static const char *const none[] = {"NO", "NONE", "NO CONTRAST", "N", "WITHOUT", NULL};
    const char *word = NULL, *where = name_with(f, words, &word);
    bool agent = f->contrast_agent[0] != '\0';
    for (const char *const *no = none; *no; no++)
        agent = agent && strcasecmp(f->contrast_agent, *no) != 0;
    const char *what = agent                            ? "ContrastBolusAgent is set"
                       : f->has_contrast_agent_sequence ? "ContrastBolusAgentSequence is set"
                       : where                          ? "by its name"
                                                        : NULL;
    if (!what)
        return;
    because(r, "contrast-enhanced: %s", what);
    refuse(r, ERR_REFUSED, "contrast-enhanced (%s): models were not made for contrast agent", what);
}

/* ---- MR ---- */

static void recognise_plane(const struct series *s, const struct recognise_options *o,
                            struct recognition *r)
{
    static const char *const planes[] = {"sagittal", "coronal", "axial"};
    if (!s->has_geometry)
        return;
    int best = 0;
    for (int k = 1; k < 3; k++)
        if (fabs(s->normal[k]) > fabs(s->normal[best]))
            best = k;
    r->plane = "oblique";
    bool clear = true;
    for (int k = 0; k < 3; k++)
        clear = clear && (k == best || fabs(s->normal[best]) - fabs(s->normal[k]) > OBLIQUE_MARGIN);
    if (clear && fabs(s->normal[best]) >= o->plane_min_cosine)
        r->plane = planes[best];
    because(r, "%s: slice normal %.2f %.2f %.2f", r->plane, s->normal[0], s->normal[1],
            s->normal[2]);
    if (best != 0 || strcmp(r->plane, "sagittal") != 0)
        refuse(r, ERR_REFUSED, "%s series: only sagittal ones are processed", r->plane);
}

static bool is_inversion(const struct series_facts *f)
{
    return has_value(f->scanning_sequence, "IR", false) || f->inversion_ms > 0;
}

static void check_fat_suppression(const struct series_facts *f, struct recognition *r)
{
    static const char *const fat_words[] = {"fs",     "fatsat", "fatsup", "spair", "spir", "dixon",
                                            "mdixon", "ideal",  "tfs",    "chess", NULL};
    const char *word = NULL, *where = name_with(f, fat_words, &word);
    if (has_value(f->scan_options, "FS", false) || has_value(f->scan_options, "FAT_SAT", true) ||
        has_value(f->scan_options, "WE", false)) {
        because(r, "fat-saturated: ScanOptions");
        refuse(r, ERR_REFUSED, "fat-saturated (ScanOptions)");
    } else if (where) {
        because(r, "fat-saturated or Dixon: \"%s\" in %s", word, where);
        refuse(r, ERR_REFUSED, "fat-saturated or Dixon (\"%s\" in %s)", word, where);
    }
}

/* Inversion recovery: by TI. */
static void contrast_of_inversion(const struct series_facts *f, const struct recognise_options *o,
                                  struct recognition *r)
{
    static const char *const tirm_words[] = {"tirm", "tir", NULL};
    double tr = f->repetition_ms, ti = f->inversion_ms;
    double stir_max = o->stir_max_ti_ms;
    if (f->field_tesla > HIGH_FIELD_TESLA)
        stir_max *= HIGH_FIELD_FACTOR;
    if (isnan(ti) || ti <= 0) {
        refuse(r, ERR_REFUSED, "inversion recovery without InversionTime: contrast cannot be told");
        return;
    }
    if (ti >= o->stir_min_ti_ms && ti <= stir_max && tr >= o->stir_min_tr_ms) {
        const char *word = NULL, *where = name_with(f, tirm_words, &word);
        /* Siemens names its sequences *tir2d1_16. */
        if (!where && strncmp(f->sequence_name, "*tir", 4) == 0) {
            word = "*tir";
            where = "SequenceName";
        }
        r->contrast = where ? "TIRM" : "STIR";
        if (where)
            because(r, "TIRM: TI %.0f ms, TR %.0f ms, \"%s\" in %s", ti, tr, word, where);
        else
            because(r, "STIR: TI %.0f ms, TR %.0f ms, no name says TIRM", ti, tr);
    } else if (ti > o->t1_flair_max_ti_ms) {
        r->contrast = "FLAIR";
        because(r, "FLAIR: TI %.0f ms", ti);
        refuse(r, ERR_REFUSED, "FLAIR (TI %.0f ms): no model takes it", ti);
    } else if (ti >= o->t1_flair_min_ti_ms) {
        r->contrast = "T1-FLAIR";
        because(r, "T1-FLAIR: TI %.0f ms", ti);
        refuse(r, ERR_REFUSED, "T1-FLAIR (inversion, TI %.0f ms): no model takes it", ti);
    } else {
        refuse(r, ERR_REFUSED,
               "contrast cannot be told: inversion recovery with TI %.0f ms, TR %.0f ms", ti, tr);
    }
}

/* Spin echo without inversion: by TR and TE. */
static void contrast_of_spin_echo(const struct series_facts *f, const struct recognise_options *o,
                                  struct recognition *r)
{
    double tr = f->repetition_ms, te = f->echo_ms;
    if (isnan(tr) || isnan(te) || tr <= 0 || te < 0) {
        refuse(r, ERR_REFUSED, "contrast cannot be told: RepetitionTime or EchoTime is missing");
        return;
    }
    if (tr <= o->t1_max_tr_ms && te <= o->t1_max_te_ms) {
        r->contrast = "T1";
        because(r, "T1: spin echo, TR %.0f ms, TE %.0f ms", tr, te);
    } else if (tr >= o->t2_min_tr_ms && te >= o->t2_min_te_ms) {
        r->contrast = "T2";
        because(r, "T2: spin echo, TR %.0f ms, TE %.0f ms", tr, te);
    } else if (tr >= o->pd_min_tr_ms && te < o->pd_max_te_ms) {
        r->contrast = "PD";
        because(r, "PD: spin echo, TR %.0f ms, TE %.0f ms", tr, te);
        refuse(r, ERR_REFUSED, "proton density (TR %.0f ms, TE %.0f ms): no model takes it", tr,
               te);
    } else {
        refuse(r, ERR_REFUSED,
               "contrast cannot be told: spin echo with TR %.0f ms, TE %.0f ms is neither T1, T2 "
               "nor PD",
               tr, te);
    }
}

/* Does a name say outright that spin-echo physics has misled us? */
static void check_names(const struct series_facts *f, struct recognition *r)
{
    static const char *const inversion_words[] = {"stir", "tirm", "tir", "flair", NULL};
    static const char *const t1_words[] = {"t1", "t1w", NULL};
    static const char *const t2_words[] = {"t2", "t2w", "pd", "pdw", NULL};
    const char *word = NULL, *where = name_with(f, inversion_words, &word);
    bool is_t1 = strcmp(r->contrast, "T1") == 0, is_t2 = strcmp(r->contrast, "T2") == 0;
    if (!where && (is_t1 || is_t2)) {
        /* One name may list several contrasts ("t1 t2 sag"); then it says nothing. */
        const char *unused, *own = name_with(f, is_t1 ? t1_words : t2_words, &unused);
        where = own ? NULL : name_with(f, is_t1 ? t2_words : t1_words, &word);
    }
    if (where)
        refuse(r, ERR_REFUSED,
               "contrast is contradictory: %s by TR, TE and no inversion, but \"%s\" in %s",
               r->contrast, word, where);
}

static void recognise_contrast(const struct series_facts *f, const struct recognise_options *o,
                               struct recognition *r)
{
    if (has_value(f->scanning_sequence, "EP", false)) {
        r->contrast = "EPI";
        because(r, "EPI: ScanningSequence");
        refuse(r, ERR_REFUSED, "echo planar imaging (ScanningSequence EP): no model takes it");
    } else if (has_value(f->scanning_sequence, "GR", false)) {
        r->contrast = "GE";
        because(r, "GE: ScanningSequence");
        refuse(r, ERR_REFUSED, "gradient echo (ScanningSequence GR): no model takes it");
    } else if (o->assume_contrast) {
        r->contrast = o->assume_contrast;
        because(r, "%s: the configuration says so", o->assume_contrast);
    } else if (is_inversion(f)) {
        contrast_of_inversion(f, o, r);
    } else if (has_value(f->scanning_sequence, "SE", false)) {
        check_fat_suppression(f, r);
        contrast_of_spin_echo(f, o, r);
        check_names(f, r);
    } else {
        refuse(r, ERR_REFUSED, "contrast cannot be told: ScanningSequence is %s",
               f->scanning_sequence[0] ? "neither SE nor IR" : "missing");
    }
}

static void check_acquisition(const struct series_facts *f, const struct recognise_options *o,
                              struct recognition *r)
{
    if (strcmp(f->acquisition_type, "3D") == 0) {
        because(r, "3D: MRAcquisitionType");
        if (!o->allow_3d)
            refuse(r, ERR_REFUSED, "3D acquisition: models were made for 2D multi-slice series");
    }
}

/* ---- x-ray ---- */

static void recognise_view(const struct series_facts *f, struct recognition *r)
{
    static const char *const lateral_codes[] = {"399067008", "399173006", "399198007", NULL};
    static const char *const frontal_codes[] = {"399348003", "399012006", "272479007", NULL};
    char along_row = f->patient_orientation[0];
    const char *by = NULL;
    for (int i = 0; lateral_codes[i]; i++)
        if (strcmp(f->view_code, lateral_codes[i]) == 0)
            r->plane = "lateral", by = "ViewCodeSequence";
    for (int i = 0; !by && frontal_codes[i]; i++)
        if (strcmp(f->view_code, frontal_codes[i]) == 0)
            r->plane = "frontal", by = "ViewCodeSequence";
    if (!by && (strcmp(f->view_position, "LL") == 0 || strcmp(f->view_position, "RL") == 0 ||
                strcmp(f->view_position, "LLD") == 0 || strcmp(f->view_position, "RLD") == 0))
        r->plane = "lateral", by = "ViewPosition";
    if (!by && (strcmp(f->view_position, "AP") == 0 || strcmp(f->view_position, "PA") == 0))
        r->plane = "frontal", by = "ViewPosition";
    if (!by && (along_row == 'A' || along_row == 'P'))
        r->plane = "lateral", by = "PatientOrientation";
    if (!by && (along_row == 'L' || along_row == 'R'))
        r->plane = "frontal", by = "PatientOrientation";
    if (by)
        because(r, "%s: %s", r->plane, by);
    if (by && (along_row == 'L' || along_row == 'R') && strcmp(r->plane, "lateral") == 0)
        refuse(r, ERR_REFUSED,
               "x-ray view is contradictory: lateral by %s, frontal by "
               "PatientOrientation",
               by);
    if (strcmp(r->plane, "lateral") != 0)
        refuse(r, ERR_REFUSED, "%s x-ray: only lateral ones are processed",
               by ? "frontal" : "unknown view of an");
}

/* ---- body part ---- */

static bool body_part_by_code(const struct series_facts *f, struct recognition *r)
{
    size_t n = sizeof regions / sizeof *regions;
    for (size_t i = 0; i < n; i++)
        if (f->region_code[0] && regions[i].sct && strcmp(f->region_code, regions[i].sct) == 0) {
            r->body_part = regions[i].body_part;
            because(r, "%s: AnatomicRegionSequence", r->body_part);
            return true;
        }
    for (size_t i = 0; i < n; i++)
        if (f->body_part[0] && strcasecmp(f->body_part, regions[i].word) == 0) {
            r->body_part = regions[i].body_part;
            because(r, "%s: BodyPartExamined", r->body_part);
            return true;
        }
    return false;
}

static bool body_part_by_name(const struct series_facts *f, const struct recognise_options *o,
                              struct recognition *r)
{
    const char *word = NULL, *where = NULL;
    if (o->spine_words) {
        where = name_with(f, o->spine_words, &word);
        r->body_part = where ? "SPINE" : r->body_part;
    } else {
        size_t n = sizeof builtin_spine_words / sizeof *builtin_spine_words;
        for (size_t i = 0; i < n && !where; i++) {
            const char *const one[] = {builtin_spine_words[i].word, NULL};
            where = name_with(f, one, &word);
            r->body_part = where ? builtin_spine_words[i].body_part : r->body_part;
        }
    }
    if (where)
        because(r, "%s: \"%s\" in %s", r->body_part, word, where);
    return where != NULL;
}

static void recognise_body_part(const struct series_facts *f, const struct recognise_options *o,
                                struct recognition *r)
{
    if (body_part_by_code(f, r))
        return;
    if (f->body_part[0] || f->region_code[0]) {
        r->body_part = "other";
        because(r, "other body part: %s",
                f->body_part[0] ? "BodyPartExamined" : "AnatomicRegionSequence");
        refuse(r, ERR_REFUSED, "body part is not the spine (%s)",
               f->body_part[0] ? "BodyPartExamined" : "AnatomicRegionSequence");
        return;
    }
    if (o->allow_body_part_by_name && body_part_by_name(f, o, r))
        return;
    because(r, "body part: BodyPartExamined and AnatomicRegionSequence are missing");
    if (!o->allow_unknown_body_part)
        refuse(r, ERR_REFUSED,
               "body part is not given (BodyPartExamined, AnatomicRegionSequence)%s",
               o->allow_body_part_by_name ? " and no name says that it is the spine" : "");
}

void recognise(const struct series *s, const struct recognise_options *options,
               struct recognition *out)
{
    const struct recognise_options *o = options ? options : &recognise_defaults;
    const struct series_facts *f = &s->facts;
    struct recognition *r = out;
    memset(r, 0, sizeof *r);
    r->kind = "other";
    r->contrast = r->plane = r->body_part = unknown;

    check_synthetic(f, r);
    check_class(s, r);
    /* Colour, many sizes and the like first say that this is nothing to look closer at; but a
     * localizer has many orientations by its nature, so its own word comes before. */
    check_kind_of_image(f, r);
    if (s->problem.code != 0)
        refuse(r, s->problem.code, "%s", s->problem.text);
    if (strcmp(r->kind, "mr") == 0) {
        check_contrast_agent(f, r);
        recognise_contrast(f, o, r);
        check_acquisition(f, o, r);
        recognise_plane(s, o, r);
    } else if (strcmp(r->kind, "xray") == 0) {
        r->contrast = "XR";
        recognise_view(f, r);
    }
    recognise_body_part(f, o, r);
}
