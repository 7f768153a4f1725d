/* banner.c - see banner.h */
#include "dicom/banner.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "node/base/err.h"

/* A glyph is 5 pixels wide and 7 high, with a blank column to the next and a border around all. */
#define GLYPH_WIDTH  5
#define GLYPH_HEIGHT 7
#define ADVANCE      (GLYPH_WIDTH + 1)
#define BORDER       2
#define STRIP_HEIGHT (GLYPH_HEIGHT + 2 * BORDER)

/* The strip takes at most this part of the rows. */
#define STRIP_PART 10

/* An image of this many columns gets the first, unscaled size. */
#define COLUMNS_PER_STEP 256

/* Longest text: the full form around 24 characters. */
#define TEXT_BYTES 72

/* One byte a row, from the top; bit 4 is the left column. */
static const unsigned char font[128][GLYPH_HEIGHT] = {
    ['A'] = {0x04, 0x0a, 0x11, 0x11, 0x1f, 0x11, 0x11},
    ['B'] = {0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e},
    ['C'] = {0x0e, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0e},
    ['D'] = {0x1e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x1e},
    ['E'] = {0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x1f},
    ['F'] = {0x1f, 0x10, 0x10, 0x1e, 0x10, 0x10, 0x10},
    ['G'] = {0x0e, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0f},
    ['H'] = {0x11, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11},
    ['I'] = {0x0e, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0e},
    ['J'] = {0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0c},
    ['K'] = {0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11},
    ['L'] = {0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f},
    ['M'] = {0x11, 0x1b, 0x15, 0x15, 0x11, 0x11, 0x11},
    ['N'] = {0x11, 0x19, 0x19, 0x15, 0x13, 0x13, 0x11},
    ['O'] = {0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e},
    ['P'] = {0x1e, 0x11, 0x11, 0x1e, 0x10, 0x10, 0x10},
    ['Q'] = {0x0e, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0d},
    ['R'] = {0x1e, 0x11, 0x11, 0x1e, 0x14, 0x12, 0x11},
    ['S'] = {0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e},
    ['T'] = {0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04},
    ['U'] = {0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e},
    ['V'] = {0x11, 0x11, 0x11, 0x11, 0x0a, 0x0a, 0x04},
    ['W'] = {0x11, 0x11, 0x11, 0x15, 0x15, 0x1b, 0x11},
    ['X'] = {0x11, 0x11, 0x0a, 0x04, 0x0a, 0x11, 0x11},
    ['Y'] = {0x11, 0x11, 0x0a, 0x04, 0x04, 0x04, 0x04},
    ['Z'] = {0x1f, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1f},
    ['0'] = {0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e},
    ['1'] = {0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e},
    ['2'] = {0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f},
    ['3'] = {0x1e, 0x01, 0x01, 0x0e, 0x01, 0x01, 0x1e},
    ['4'] = {0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02},
    ['5'] = {0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e},
    ['6'] = {0x0e, 0x10, 0x10, 0x1e, 0x11, 0x11, 0x0e},
    ['7'] = {0x1f, 0x01, 0x02, 0x02, 0x04, 0x04, 0x04},
    ['8'] = {0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e},
    ['9'] = {0x0e, 0x11, 0x11, 0x0f, 0x01, 0x01, 0x0e},
    ['-'] = {0x00, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x00},
    ['>'] = {0x10, 0x08, 0x04, 0x02, 0x04, 0x08, 0x10},
    ['+'] = {0x00, 0x04, 0x04, 0x1f, 0x04, 0x04, 0x00},
    ['/'] = {0x01, 0x01, 0x02, 0x04, 0x08, 0x10, 0x10},
    ['.'] = {0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x0c},
};

/* Columns that the text takes at scale 1. */
static unsigned text_columns(const char *text)
{
    return (unsigned)strlen(text) * ADVANCE + 2 * BORDER - 1;
}

/* The longest form of the text that fits into columns at scale 1. */
static void choose_text(char out[TEXT_BYTES], const char *what, unsigned columns)
{
    char known[26] = ""; /* with a blank before it, or nothing */
    if (what[0])
        snprintf(known, sizeof known, " %s", what);
    for (char *p = known; *p; p++)
        *p = (char)toupper((unsigned char)*p);
    const char *unsure = strstr(known, " " BANNER_UNSURE) ? " " BANNER_UNSURE : "";
    for (int form = 0; form < 7; form++) {
        switch (form) {
        case 0:
            snprintf(out, TEXT_BYTES, "SYNTHETIC - AI%s - NOT AN ACQUISITION", known);
            break;
        case 1:
            snprintf(out, TEXT_BYTES, "SYNTHETIC AI%s - NOT AN ACQUISITION", known);
            break;
        case 2:
            snprintf(out, TEXT_BYTES, "SYNTHETIC AI%s", known);
            break;
        case 3:
            snprintf(out, TEXT_BYTES, "SYNTHETIC AI%s", unsure);
            break;
        case 4:
            snprintf(out, TEXT_BYTES, "SYNTHETIC%s", unsure);
            break;
        default:
            snprintf(out, TEXT_BYTES, "SYNTH%s", form == 5 ? unsure : "");
        }
        if (text_columns(out) <= columns)
            return;
    }
}

static void draw_glyph(uint16_t *pixels, unsigned columns, unsigned x, unsigned y, unsigned scale,
                       const unsigned char glyph[GLYPH_HEIGHT], uint16_t bright)
{
    for (unsigned r = 0; r < GLYPH_HEIGHT * scale; r++)
        for (unsigned c = 0; c < GLYPH_WIDTH * scale; c++)
            if (glyph[r / scale] >> (GLYPH_WIDTH - 1 - c / scale) & 1)
                pixels[(size_t)(y + r) * columns + x + c] = bright;
}

unsigned banner_height(unsigned rows, unsigned columns)
{
    if (rows < BANNER_MIN_ROWS || columns < BANNER_MIN_COLUMNS)
        return 0;
    unsigned scale = columns / COLUMNS_PER_STEP;
    while (scale > 1 && STRIP_HEIGHT * scale > rows / STRIP_PART)
        scale--;
    return STRIP_HEIGHT * (scale ? scale : 1);
}

int banner_draw(uint16_t *pixels, unsigned rows, unsigned columns, const char *what, uint16_t dark,
                uint16_t bright, struct err *e)
{
    unsigned strip = banner_height(rows, columns);
    if (strip == 0)
        return err_set(e, ERR_LIMIT,
                       "image of %u × %u pixels is too small for the visible mark: at least %d × "
                       "%d are needed",
                       rows, columns, BANNER_MIN_ROWS, BANNER_MIN_COLUMNS);
    char text[TEXT_BYTES];
    unsigned scale = strip / STRIP_HEIGHT;
    choose_text(text, what, columns / scale);

    for (size_t i = 0; i < (size_t)strip * columns; i++)
        pixels[i] = dark;
    unsigned x = BORDER * scale;
    for (const char *p = text; *p; p++, x += ADVANCE * scale)
        draw_glyph(pixels, columns, x, BORDER * scale, scale, font[*p & 0x7f], bright);
    return 0;
}
