/* instance.h - one SOP instance, wherever it came from: what it is, who sent it, where it lies */
#ifndef SPINENODE_DICOM_INSTANCE_H
#define SPINENODE_DICOM_INSTANCE_H

#include <stdint.h>

#include "dicom/sop.h"
#include "node/base/digest.h"
#include "node/base/file.h"

/* A numeric address, IPv6 with its zone, and the terminator. */
#define ADDRESS_BYTES 64

struct instance {
    char sop_class[UID_BYTES];
    char sop_instance[UID_BYTES];
    char study[UID_BYTES];
    char series[UID_BYTES];
    char transfer_syntax[UID_BYTES];
    char calling_ae[AE_BYTES];
    char called_ae[AE_BYTES];
    char address[ADDRESS_BYTES];
    char path[PATH_BYTES];   /* the Part-10 file */
    uint64_t bytes;          /* of that file */
    char sha256[DIGEST_HEX]; /* of the data set alone (what the peer sent), "" if not computed:
                                so the same instance from another peer has the same digest */
};

#endif
