/*
 * recognise.h - what does a series show, and may a model see it?
 *
 * Contrast from the physics of the acquisition first (Scanning Sequence, TR, TE, TI), from names
 * only where physics cannot tell; plane from the geometry; body part from coded attributes. What
 * is unknown or contradictory is refused: the answer "cannot tell" is always right. No synthetic
 * image is ever let through (loop guard).
 *
 * Pure functions of struct series; any thread.
 */
#ifndef SPINENODE_DICOM_RECOGNISE_H
#define SPINENODE_DICOM_RECOGNISE_H

#include <stdbool.h>

#include "node/base/err.h"

struct series;

/* A site's thresholds; recognise_defaults holds the usual ones. */
struct recognise_options {
    double t1_max_tr_ms, t1_max_te_ms;             /* T1: TR and TE at most */
    double t2_min_tr_ms, t2_min_te_ms;             /* T2: at least */
    double pd_min_tr_ms, pd_max_te_ms;             /* proton density */
    double stir_min_ti_ms, stir_max_ti_ms;         /* at 1.5 T; the upper one × 1.2 above 2 T */
    double stir_min_tr_ms;                         /* STIR, TIRM: TR at least */
    double t1_flair_min_ti_ms, t1_flair_max_ti_ms; /* above: T2-FLAIR */
    double plane_min_cosine;                       /* |n·axis| at least */
    bool allow_3d;
    bool allow_body_part_by_name; /* unknown body part: words of protocol and series names */
    bool allow_unknown_body_part; /* … or taken for a spine without any sign */
    /* The admin's word for contrast, above physics: "T1", "T2", "STIR", "TIRM", "XR", or NULL. */
    const char *assume_contrast;
    /* Words (lower case, NULL at the end) that in a name mean spine; NULL: the built-in list. */
    const char *const *spine_words;
};

extern const struct recognise_options recognise_defaults;

#define RECOGNISE_REASONS      24
#define RECOGNISE_REASON_BYTES 128

struct recognition {
    /* What it is; static storage, never NULL, "unknown" where it cannot be told. */
    const char *kind; /* "mr", "xray", "other" */
    /* "T1" "T2" "STIR" "TIRM" "XR"; also "PD" "FLAIR" "T1-FLAIR" "GE" "EPI" */
    const char *contrast;
    const char *plane;     /* "sagittal" "coronal" "axial" "oblique"; x-ray: "lateral" "frontal" */
    const char *body_part; /* "CSPINE" "TSPINE" "LSPINE" "SPINE" "LSSPINE" "TLSPINE"; "other" */
    /* Why: one line per decision with the attributes used, e.g. "T2: TR 3500 ms, TE 95 ms". No
     * patient data; words from names appear only as the word that matched. */
    unsigned reasons;
    char reason[RECOGNISE_REASONS][RECOGNISE_REASON_BYTES];
    /* code 0: may be processed. ERR_REFUSED, ERR_UNSUPPORTED or ERR_LIMIT: why not. */
    struct err refusal;
};

/* options NULL: the defaults. Always fills out; a series whose `problem` is set is refused with
 * it, unless something more telling (a localizer, a synthetic image) is found first. */
void recognise(const struct series *s, const struct recognise_options *options,
               struct recognition *out);

#endif
