/* dataset_impl.h - what the C++ files of the shim share; not for C */
#ifndef SPINENODE_DICOM_DATASET_IMPL_H
#define SPINENODE_DICOM_DATASET_IMPL_H

#include <cstdint>
#include <exception>
#include <new>

#include <sys/stat.h>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "node/base/err.h"

struct dataset {
    DcmFileFormat file;
    /* Of the file that it was read from: */
    uint64_t elements = 0;
    struct stat file_was = {};
};

/* struct item is DcmItem under another name. */
static inline DcmItem *unwrap(const struct item *it)
{
    return reinterpret_cast<DcmItem *>(const_cast<struct item *>(it));
}

static inline struct item *wrap(DcmItem *it)
{
    return reinterpret_cast<struct item *>(it);
}

static inline DcmTagKey key_of(uint32_t tag)
{
    return DcmTagKey((Uint16)(tag >> 16), (Uint16)(tag & 0xffff));
}

/* Part of dicom_init(): the dictionary, out of the table or of DCMDICTPATH. */
int dictionary_load(struct err *e);

/* Runs what and turns whatever it throws into an error: no exception leaves the shim. */
template <class F> static inline int protect(struct err *e, const char *doing, F what)
{
    try {
        return what();
    } catch (const std::bad_alloc &) {
        return err_set(e, ERR_NOMEM, "%s: no memory", doing);
    } catch (const std::exception &x) {
        return err_set(e, ERR_INVALID, "%s: %s", doing, x.what());
    } catch (...) {
        return err_set(e, ERR_INVALID, "%s: unknown exception", doing);
    }
}

/* The same for functions that answer otherwise instead of an error. */
template <class T, class F> static inline T protect_or(T otherwise, F what)
{
    try {
        return what();
    } catch (...) {
        return otherwise;
    }
}

#endif
