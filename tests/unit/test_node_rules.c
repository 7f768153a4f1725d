/* test_node_rules.c - wildcards, the choice of a model, and what rules decide */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "node/base/err.h"

#include "dicom/dataset.h"
#include "dicom/recognise.h"
#include "dicom/series.h"
#include "dicom/sop.h"
#include "dicom/tags.h"
#include "node/catalogue.h"
#include "node/config.h"
#include "node/rules.h"
#include "node/synthesise.h"

#include <stdio.h>
#include <unistd.h>

static void wildcard__matches_as_file_names_do_without_case(void **state)
{
    (void)state;
    assert_true(rules_wildcard("", ""));
    assert_true(rules_wildcard("*", ""));
    assert_true(rules_wildcard("*spine", "LSPINE"));
    assert_true(rules_wildcard("l?pine", "LSPINE"));
    assert_true(rules_wildcard("*a*b*c*", "xxaxxbxxcxx"));
    assert_true(rules_wildcard("T2*sag", "t2_tse_sag sag"));
    assert_false(rules_wildcard("", "a"));
    assert_false(rules_wildcard("?", ""));
    assert_false(rules_wildcard("spine", "LSPINE"));
    assert_false(rules_wildcard("*sag", "t2_sagittal"));
    assert_false(rules_wildcard("a*b", "acbd"));
}

static void wildcard__takes_no_exponential_time(void **state)
{
    (void)state;
    char pattern[201], text[1001];
    for (int i = 0; i < 200; i += 2)
        memcpy(pattern + i, "*a", 2);
    pattern[199] = 'b';
    pattern[200] = '\0';
    memset(text, 'a', 1000);
    text[1000] = '\0';
    assert_false(rules_wildcard(pattern, text));
}

/* ---- a small world: one T2 series, one model, one rule ---- */

static struct series series;
static struct config config;
static struct config_rule rules[3];
static struct catalogue catalogue;
static struct catalogue_model models[3];
static char nothing[] = "", pacs[] = "pacs";
static char *to_pacs[] = {pacs};

static void set_model(struct catalogue_model *m, char *file, const char *version)
{
    *m = (struct catalogue_model){.file = file};
    m->facts = (struct package){.task = TASK_T2_TO_T1,
                                .version = version,
                                .name = "test model",
                                .input_contrast = MODEL_T2,
                                .output_contrast = MODEL_T1,
                                .input_slices = 1,
                                .scale = 1,
                                .multiple = 16,
                                .spacing_mm_min = 0.3,
                                .spacing_mm_max = 1.2,
                                .rows_min = 192,
                                .rows_max = 1024,
                                .columns_min = 192,
                                .columns_max = 1024};
}

static int set_up(void **state)
{
    (void)state;
    static char t2_to_t1[] = "t2-to-t1", name[] = "r", model_a[] = "a.onnx", model_b[] = "b.onnx",
                model_c[] = "c.onnx";
    series = (struct series){.slices = 15,
                             .rows = 512,
                             .columns = 384,
                             .has_geometry = true,
                             .row_spacing_mm = 0.6,
                             .column_spacing_mm = 0.6,
                             .normal = {1, 0, 0},
                             .row_direction = {0, 1, 0},
                             .column_direction = {0, 0, 1},
                             .slice_spacing_mm = 4,
                             .slice_thickness_mm = 4};
    strcpy(series.sop_class_uid, SOP_MR);
    struct series_facts *f = &series.facts;
    strcpy(f->modality, "MR");
    strcpy(f->image_type, "ORIGINAL\\PRIMARY\\M\\NORM");
    strcpy(f->scanning_sequence, "SE");
    strcpy(f->acquisition_type, "2D");
    strcpy(f->photometric, "MONOCHROME2");
    strcpy(f->body_part, "LSPINE");
    f->repetition_ms = 3500;
    f->echo_ms = 100;
    f->inversion_ms = NAN;
    f->flip_degrees = 150;
    f->field_tesla = 1.5;
    f->echo_train = 15;
    f->samples_per_pixel = 1;
    f->frames = NAN;

    set_model(&models[0], model_a, "1.9.0");
    set_model(&models[1], model_b, "1.10.0");
    set_model(&models[2], model_c, "1.10.0-rc.1");
    catalogue = (struct catalogue){.folder = "/models", .models = models, .models_count = 3};

    memset(rules, 0, sizeof rules);
    for (int i = 0; i < 3; i++) {
        rules[i].name = name;
        rules[i].task = t2_to_t1;
        rules[i].model = rules[i].assume_contrast = rules[i].description = nothing;
        rules[i].destinations = to_pacs;
        rules[i].destinations_count = 1;
    }
    config = (struct config){.rules = rules, .rules_count = 1};
    const struct recognise_options *d = &recognise_defaults;
    config.recognition = (struct config_recognition){.t1_max_tr_ms = d->t1_max_tr_ms,
                                                     .t1_max_te_ms = d->t1_max_te_ms,
                                                     .t2_min_tr_ms = d->t2_min_tr_ms,
                                                     .t2_min_te_ms = d->t2_min_te_ms,
                                                     .pd_min_tr_ms = d->pd_min_tr_ms,
                                                     .pd_max_te_ms = d->pd_max_te_ms,
                                                     .stir_min_ti_ms = d->stir_min_ti_ms,
                                                     .stir_max_ti_ms = d->stir_max_ti_ms,
                                                     .stir_min_tr_ms = d->stir_min_tr_ms,
                                                     .t1_flair_min_ti_ms = d->t1_flair_min_ti_ms,
                                                     .t1_flair_max_ti_ms = d->t1_flair_max_ti_ms,
                                                     .plane_min_cosine = d->plane_min_cosine};
    return 0;
}

/* The decision on the first rule. */
static enum rule_outcome decide(const char *reason_part)
{
    struct rule_decisions *d = NULL;
    struct err e = {0};
    if (rules_decide(&config, &catalogue, &series, &d, &e) != 0)
        fail_msg("%s", e.text);
    enum rule_outcome outcome = d->decision[0].outcome;
    assert_int_equal(d->count, config.rules_count);
    assert_int_equal(d->matched, outcome == RULE_MATCHED);
    assert_int_equal(d->decision[0].reason.code == 0, outcome == RULE_MATCHED);
    if (strstr(d->decision[0].reason.text, reason_part) == NULL)
        fail_msg("got the reason: %s\nexpected: %s", d->decision[0].reason.text, reason_part);
    rules_free(d);
    return outcome;
}

static void rule__without_conditions_matches_what_was_recognised(void **state)
{
    (void)state;
    assert_int_equal(decide(""), RULE_MATCHED);
}

static void rule__matches_on_what_was_recognised(void **state)
{
    (void)state;
    static char t2[] = "T2", stir[] = "STIR", t1[] = "T1", sagittal[] = "sagittal",
                any_spine[] = "*SPINE", cspine[] = "CSPINE";
    char *right_contrast[] = {stir, t2}, *plane[] = {sagittal}, *part[] = {any_spine};
    char *wrong_contrast[] = {t1, stir}, *wrong_part[] = {cspine};
    struct config_match *m = &rules[0].match;
    m->contrast = right_contrast;
    m->contrast_count = 2;
    m->plane = plane;
    m->plane_count = 1;
    m->body_part = part;
    m->body_part_count = 1;
    assert_int_equal(decide(""), RULE_MATCHED);
    m->body_part = wrong_part;
    assert_int_equal(decide("body part is LSPINE, and the rule wants CSPINE"), RULE_NO_MATCH);
    m->contrast = wrong_contrast;
    assert_int_equal(decide("contrast is T2, and the rule wants T1 or STIR"), RULE_NO_MATCH);
}

static void rule__matches_on_numbers_with_both_ends_included(void **state)
{
    (void)state;
    struct config_match *m = &rules[0].match;
    m->slices = (struct config_range){15, 15};
    m->rows = (struct config_range){512, 0};
    m->columns = (struct config_range){0, 384};
    assert_int_equal(decide(""), RULE_MATCHED);
    m->slices = (struct config_range){16, 0};
    assert_int_equal(decide("15 images, and the rule wants at least 16"), RULE_NO_MATCH);
    m->slices = (struct config_range){0, 0};
    m->rows = (struct config_range){0, 511};
    assert_int_equal(decide("512 rows, and the rule wants 0 to 511"), RULE_NO_MATCH);
}

static void rule__never_matches_what_recognition_refused(void **state)
{
    (void)state;
    strcpy(series.facts.synthetic_data, "YES");
    assert_int_equal(decide("synthetic"), RULE_NO_MATCH);
}

static void rule__may_say_what_physics_cannot_tell(void **state)
{
    (void)state;
    static char t2[] = "T2";
    series.facts.echo_ms = series.facts.repetition_ms = NAN;
    assert_int_equal(decide("contrast cannot be told"), RULE_NO_MATCH);
    rules[0].assume_contrast = t2;
    assert_int_equal(decide(""), RULE_MATCHED);
    strcpy(series.facts.synthetic_data, "YES");
    assert_int_equal(decide("synthetic"), RULE_NO_MATCH);
}

static void rule__takes_the_newest_release_of_its_task(void **state)
{
    (void)state;
    struct err e;
    const struct catalogue_model *m = NULL;
    assert_int_equal(catalogue_choose(&catalogue, &rules[0], &m, &e), 0);
    assert_string_equal(m->file, "b.onnx");
    static char c_onnx[] = "c.onnx", missing[] = "d.onnx", other[] = "t1-to-t2";
    rules[0].model = c_onnx;
    assert_int_equal(catalogue_choose(&catalogue, &rules[0], &m, &e), 0);
    assert_string_equal(m->file, "c.onnx");
    rules[0].task = other;
    assert_int_equal(catalogue_choose(&catalogue, &rules[0], &m, &e), ERR_REFUSED);
    rules[0].model = missing;
    assert_int_equal(catalogue_choose(&catalogue, &rules[0], &m, &e), ERR_NOT_FOUND);
}

static void rule__without_a_model_is_an_error_unless_it_is_optional(void **state)
{
    (void)state;
    catalogue.models_count = 0;
    assert_int_equal(decide("no model for t2-to-t1 in /models"), RULE_NO_MODEL);
    rules[0].optional = true;
    assert_int_equal(decide("no model for t2-to-t1 in /models"), RULE_NO_MATCH);
    catalogue.models_count = 3;
    for (int i = 0; i < 3; i++)
        err_set(&models[i].problem, ERR_INVALID, "truncated");
    rules[0].optional = false;
    assert_int_equal(decide("one there cannot be used: truncated"), RULE_NO_MODEL);
}

static void rule__is_refused_when_the_model_is_not_made_for_the_series(void **state)
{
    (void)state;
    series.rows = 160;
    assert_int_equal(decide("made for 192 to 1024 rows and 192 to 1024 columns, and the series has "
                            "160 x 384"),
                     RULE_REFUSED);
    series.rows = 512;
    series.column_spacing_mm = 2;
    assert_int_equal(decide("made for pixels of 0.3 to 1.2 mm, and the series has 0.6 x 2 mm"),
                     RULE_REFUSED);
    series.column_spacing_mm = 1.2005; /* rounding of the scanner */
    assert_int_equal(decide(""), RULE_MATCHED);
    models[1].facts.input_contrast = MODEL_T1;
    assert_int_equal(decide("made for T1, and the series is T2"), RULE_REFUSED);
}

/* Writes one image with some attributes, to be the first of the series. */
static void write_image(const char *path)
{
    struct err e;
    struct dataset *d = dataset_new();
    assert_non_null(d);
    struct item *it = dataset_root(d);
    assert_int_equal(item_set_text(it, TAG_SOP_CLASS_UID, SOP_MR, &e), 0);
    assert_int_equal(item_set_text(it, TAG_SOP_INSTANCE_UID, "2.25.1", &e), 0);
    assert_int_equal(item_set_text(it, TAG_STUDY_INSTANCE_UID, "2.25.2", &e), 0);
    assert_int_equal(item_set_text(it, TAG_SERIES_INSTANCE_UID, "2.25.3", &e), 0);
    assert_int_equal(item_set_text(it, TAG_IMAGE_TYPE, "ORIGINAL\\PRIMARY\\M\\NORM", &e), 0);
    assert_int_equal(item_set_text(it, TAG_PROTOCOL_NAME, "LWS t2 tse sag", &e), 0);
    unlink(path);
    assert_int_equal(dataset_write(d, NULL, 0, path, &e), 0);
    dataset_free(d);
}

static void set_tag_match(struct config_tag_match *t, char *tag, char **is, unsigned is_count,
                          char **is_not, unsigned is_not_count)
{
    *t = (struct config_tag_match){tag, is, is_count, is_not, is_not_count};
}

static void rule__matches_on_tags_with_wildcards(void **state)
{
    (void)state;
    struct err e;
    assert_int_equal(dicom_init(&e), 0);
    char path[64];
    snprintf(path, sizeof path, "/tmp/spinenode-rules-%d.dcm", (int)getpid());
    write_image(path);
    struct slice slices[15] = {{.path = path}};
    series.slice = slices;

    static char protocol[] = "ProtocolName", type[] = "(0008,0008)",
                institution[] = "InstitutionName", sag[] = "*T2*SAG", hws[] = "HWS*",
                norm[] = "NORM", absent[] = "", derived[] = "DERIVED", original[] = "orig*";
    char *is_sag[] = {hws, sag}, *is_hws[] = {hws}, *is_norm[] = {norm}, *is_absent[] = {absent},
         *not_derived[] = {derived}, *not_original[] = {original};
    struct config_tag_match tags[4];
    struct config_match *m = &rules[0].match;
    m->tags = tags;
    m->tags_count = 4;
    set_tag_match(&tags[0], protocol, is_sag, 2, NULL, 0);
    set_tag_match(&tags[1], type, is_norm, 1, not_derived, 1);
    set_tag_match(&tags[2], institution, is_absent, 1, NULL, 0);
    set_tag_match(&tags[3], protocol, NULL, 0, is_hws, 1);
    assert_int_equal(decide(""), RULE_MATCHED);
    tags[1].is_not = not_original;
    assert_int_equal(decide("(0008,0008) is orig*, which the rule shuts out"), RULE_NO_MATCH);
    tags[1].is_not = not_derived;
    tags[0].is_count = 1;
    assert_int_equal(decide("ProtocolName is not HWS*"), RULE_NO_MATCH);
    tags[0].is_count = 2;
    set_tag_match(&tags[2], institution, NULL, 0, is_absent, 1);
    assert_int_equal(decide("InstitutionName is "), RULE_NO_MATCH);
    unlink(path);
    series.slice = NULL;
}

static void key__differs_with_everything_that_decides_the_result(void **state)
{
    (void)state;
    struct err e;
    char keys[5][DIGEST_HEX];
    struct slice slices[2] = {{.sop_instance_uid = "1.2"}, {.sop_instance_uid = "1.3"}};
    series.slice = slices;
    series.slices = 2;
    assert_int_equal(synthesise_key(&series, "t2-to-t1", "aa", "", keys[0], &e), 0);
    assert_int_equal(synthesise_key(&series, "t2-to-t1", "aa", "", keys[1], &e), 0);
    assert_string_equal(keys[0], keys[1]);
    assert_int_equal(synthesise_key(&series, "t2-to-stir", "aa", "", keys[1], &e), 0);
    assert_int_equal(synthesise_key(&series, "t2-to-t1", "ab", "", keys[2], &e), 0);
    assert_int_equal(synthesise_key(&series, "t2-to-t1", "aa", "x", keys[3], &e), 0);
    series.slices = 1;
    assert_int_equal(synthesise_key(&series, "t2-to-t1", "aa", "", keys[4], &e), 0);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(strlen(keys[i]), 64);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(keys[i], keys[j]);
    }
    series.slice = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wildcard__matches_as_file_names_do_without_case),
        cmocka_unit_test(wildcard__takes_no_exponential_time),
        cmocka_unit_test_setup(rule__without_conditions_matches_what_was_recognised, set_up),
        cmocka_unit_test_setup(rule__matches_on_what_was_recognised, set_up),
        cmocka_unit_test_setup(rule__matches_on_numbers_with_both_ends_included, set_up),
        cmocka_unit_test_setup(rule__never_matches_what_recognition_refused, set_up),
        cmocka_unit_test_setup(rule__may_say_what_physics_cannot_tell, set_up),
        cmocka_unit_test_setup(rule__takes_the_newest_release_of_its_task, set_up),
        cmocka_unit_test_setup(rule__without_a_model_is_an_error_unless_it_is_optional, set_up),
        cmocka_unit_test_setup(rule__is_refused_when_the_model_is_not_made_for_the_series, set_up),
        cmocka_unit_test_setup(rule__matches_on_tags_with_wildcards, set_up),
        cmocka_unit_test_setup(key__differs_with_everything_that_decides_the_result, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
