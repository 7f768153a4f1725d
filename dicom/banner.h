/*
 * banner.h - the visible mark in synthetic images
 *
 * A dark strip along the top edge with bright text in a 5×7 font of our own, scaled in whole steps
 * with the image. It takes at most a tenth of the rows (a sixth below 110), so the centre stays
 * untouched.
 */
#ifndef SPINENODE_DICOM_BANNER_H
#define SPINENODE_DICOM_BANNER_H

#include <stdint.h>

/* Fewest rows and columns that the mark can be put on. */
#define BANNER_MIN_ROWS    64
#define BANNER_MIN_COLUMNS 48

/* A word at the end of `what` that stays when the text is shortened, as long as it fits. */
#define BANNER_UNSURE "UNSURE"

struct err;

/* Rows that the mark takes of an image of that size: nothing is drawn below. 0: it is too small. */
unsigned banner_height(unsigned rows, unsigned columns);

/*
 * Draws into pixels[banner_height() * columns], the top of an image, in place. what: "T2>T1" or the
 * like, at most 24 characters, or
 * "". The text is the longest of these that fits, the last of which fits always:
 *
 *     SYNTHETIC - AI <what> - NOT AN ACQUISITION
 *     SYNTHETIC AI <what> - NOT AN ACQUISITION
 *     SYNTHETIC AI <what>
 *     SYNTHETIC AI
 *     SYNTHETIC
 *     SYNTH
 *
 * dark and bright are the stored values to use. ERR_LIMIT: the image is too small. Any thread.
 */
int banner_draw(uint16_t *pixels, unsigned rows, unsigned columns, const char *what, uint16_t dark,
                uint16_t bright, struct err *e);

#endif
