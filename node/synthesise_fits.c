/* synthesise_fits.c - may a model see a series, and what is the work called? See synthesise.h */
#include <stdio.h>
#include <string.h>

#include "node/base/err.h"

#include "dicom/series.h"
#include "model/package.h"
#include "node/synthesise.h"
#include "node/synthesiser.h"

/* Scanners round pixel spacing to few digits; a bound is not missed by that. */
#define SPACING_TOLERANCE 0.005

static bool spacing_is_within(const struct package *p, double mm)
{
    return mm >= p->spacing_mm_min * (1 - SPACING_TOLERANCE) &&
           mm <= p->spacing_mm_max * (1 + SPACING_TOLERANCE);
}

int synthesise_fits(const struct package *facts, const struct series *series, const char *contrast,
                    struct err *e)
{
    if (series->problem.code != 0)
        return err_set(e, ERR_REFUSED, "%s", series->problem.text);
    const char *wanted = model_contrast_name(facts->input_contrast);
    if (strcmp(contrast, wanted) != 0)
        return err_set(e, ERR_REFUSED, "the model %s is made for %s, and the series is %s",
                       facts->name, wanted, contrast);
    int rows, columns;
    int rc = synthesiser_grid(facts, series, &rows, &columns, e);
    if (rc != 0)
        return rc;
    if (rows < facts->rows_min || rows > facts->rows_max || columns < facts->columns_min ||
        columns > facts->columns_max) {
        char at[32] = "";
        if (facts->pixel_mm > 0)
            snprintf(at, sizeof at, " at %g mm", facts->pixel_mm);
        return err_set(e, ERR_REFUSED,
                       "the model %s is made for %d to %d rows and %d to %d columns, and the "
                       "series has %d x %d%s",
                       facts->name, facts->rows_min, facts->rows_max, facts->columns_min,
                       facts->columns_max, rows, columns, at);
    }
    /* Only projection x-rays come without geometry; their pixel spacing is no size in the patient,
     * and matters only where the model resamples to one of the detector. */
    if ((series->has_geometry || facts->pixel_mm > 0) &&
        (!spacing_is_within(facts, series->row_spacing_mm) ||
         !spacing_is_within(facts, series->column_spacing_mm)))
        return err_set(e, ERR_REFUSED,
                       "the model %s is made for pixels of %g to %g mm, and the series has "
                       "%.4g x %.4g mm",
                       facts->name, facts->spacing_mm_min, facts->spacing_mm_max,
                       series->row_spacing_mm, series->column_spacing_mm);
    return 0;
}

int synthesise_key(const struct series *series, const char *task, const char *model_digest,
                   const char *parameters, char out[DIGEST_HEX], struct err *e)
{
    struct digest *d = digest_new();
    if (d == NULL)
        return err_set(e, ERR_NOMEM, "naming the job: no memory");
    uint8_t bytes[DIGEST_BYTES];
    digest_add_text(d, series->series_uid);
    for (unsigned i = 0; i < series->slices; i++)
        digest_add_text(d, series->slice[i].sop_instance_uid);
    digest_add_text(d, task);
    digest_add_text(d, model_digest);
    digest_add_text(d, parameters);
    digest_finish(d, bytes);
    digest_to_hex(bytes, out);
    return 0;
}
